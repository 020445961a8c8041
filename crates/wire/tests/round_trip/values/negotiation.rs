//! Arbitrary messages of a negotiation.

use dagwright_model::{
    facts::{ProbeRequest, TypingRequest},
    id::{PlanHash, RequestId},
    message::{
        Alternative, Bound, Conflict, ConflictKind, Delivery, Envelope, Guarantee, LossyUse, Message, Parts, Party,
        Placement, Privilege, Question, Read, Remedy, Role, Strategy as Way, Write,
    },
    schema::{Column, DataType, Verdict},
    spec::{Locator, LossyCast, OrderBy, SchemaChange, SinkMode},
    task::{SchemaEdit, SplitBy, WriteStrategy},
};
use proptest::{
    collection::vec,
    option,
    prelude::{BoxedStrategy, Just, Strategy, any, prop_oneof},
    sample::select,
};

use super::{cost, name, observation, problem, sha256, some_text, text};

fn data_type() -> BoxedStrategy<DataType> {
    select(vec![
        DataType::Boolean,
        DataType::Int64,
        DataType::Decimal { precision: 10, scale: 2 },
        DataType::String { length: Some(3) },
        DataType::TEXT,
        DataType::TimestampTz,
        DataType::List(Box::new(DataType::Struct(vec![("a".into(), DataType::Date)]))),
    ])
    .boxed()
}

fn column() -> BoxedStrategy<Column> {
    (text(), data_type(), any::<bool>())
        .prop_map(|(name, data_type, nullable)| Column { name, data_type, nullable })
        .boxed()
}

fn order() -> BoxedStrategy<OrderBy> {
    (some_text(), any::<bool>()).prop_map(|(column, descending)| OrderBy { column, descending }).boxed()
}

fn role() -> BoxedStrategy<Role> {
    select(vec![Role::Orchestrator, Role::Extraction, Role::Transformation, Role::Loading]).boxed()
}

fn lossy_cast() -> BoxedStrategy<LossyCast> {
    select(vec![LossyCast::Reject, LossyCast::Null, LossyCast::Quarantine]).boxed()
}

fn edit() -> BoxedStrategy<SchemaEdit> {
    prop_oneof![
        Just(SchemaEdit::CreateTable),
        column().prop_map(SchemaEdit::AddColumn),
        column().prop_map(SchemaEdit::WidenColumn),
        some_text().prop_map(SchemaEdit::DropNotNull),
        vec(text(), 0..3).prop_map(SchemaEdit::AddUniqueKey),
    ]
    .boxed()
}

fn strategy() -> BoxedStrategy<Way> {
    let by = prop_oneof![Just(SplitBy::Files), some_text().prop_map(SplitBy::KeyRange)];
    let parts = (by, any::<u32>()).prop_map(|(by, count_max)| Parts { by, count_max });
    prop_oneof![
        (vec(column(), 0..3), vec(text(), 0..3), any::<bool>(), option::of(parts), lossy_cast()).prop_map(
            |(columns, filters, incremental, parts, on_misfit)| {
                Way::Read(Read { columns, filters, incremental, parts, on_misfit })
            }
        ),
        select(vec![Placement::Fused, Placement::Mapped, Placement::Staged])
            .prop_map(|placement| Way::Compute { placement }),
        (
            select(vec![WriteStrategy::Direct, WriteStrategy::StagingTable, WriteStrategy::PartitionStaging]),
            vec(column(), 0..3),
            vec(edit(), 0..3),
            vec(order(), 0..3),
            lossy_cast(),
        )
            .prop_map(|(strategy, columns, edits, dedupe, on_misfit)| Way::Write(Write {
                strategy,
                columns,
                edits,
                dedupe,
                on_misfit
            })),
    ]
    .boxed()
}

fn guarantee() -> BoxedStrategy<Guarantee> {
    let verdict = select(vec![Verdict::Exact, Verdict::Lossless, Verdict::Lossy, Verdict::Impossible]);
    let privilege =
        select(vec![Privilege::Create, Privilege::Insert, Privilege::Update, Privilege::Delete, Privilege::Alter]);
    prop_oneof![
        (name(), vec(column(), 0..3), verdict).prop_map(|(relation, columns, verdict)| Guarantee::Schema {
            relation,
            columns,
            verdict
        }),
        (name(), vec(text(), 0..3)).prop_map(|(relation, columns)| Guarantee::Unique { relation, columns }),
        (name(), vec(order(), 0..3)).prop_map(|(relation, by)| Guarantee::Ordering { relation, by }),
        (name(), any::<bool>()).prop_map(|(relation, in_parts)| Guarantee::Partitioning { relation, in_parts }),
        name().prop_map(|relation| Guarantee::Staged { relation }),
        (name(), privilege).prop_map(|(sink, privilege)| Guarantee::Privilege { sink, privilege }),
    ]
    .boxed()
}

fn conflict() -> BoxedStrategy<Conflict> {
    let kind = select(vec![
        ConflictKind::Cursor,
        ConflictKind::Key,
        ConflictKind::UniqueIndex,
        ConflictKind::Type,
        ConflictKind::NotNull,
        ConflictKind::MissingColumn,
        ConflictKind::Privilege,
        ConflictKind::Unsupported,
        ConflictKind::ReadWrite,
        ConflictKind::Memory,
        ConflictKind::Deadline,
        ConflictKind::Space,
        ConflictKind::NoOffer,
    ]);
    let remedy = (text(), text()).prop_map(|(path, change)| Remedy { path, change });
    (kind, role(), text(), option::of(text()), text(), vec(remedy, 0..3))
        .prop_map(|(kind, owner, subject, column, message, remedies)| Conflict {
            kind,
            owner,
            subject,
            column,
            message,
            remedies,
        })
        .boxed()
}

fn alternative() -> BoxedStrategy<Alternative> {
    let delivery = select(vec![None, Some(Delivery::ExactlyOnceAtomic), Some(Delivery::ExactlyOncePerPartition)]);
    let change = select(vec![SchemaChange::None, SchemaChange::Additive, SchemaChange::Widening]);
    let lossy = (name(), text(), data_type(), data_type(), lossy_cast())
        .prop_map(|(subject, column, from, to, policy)| LossyUse { subject, column, from, to, policy });
    (
        (some_text(), role(), text(), strategy(), vec(guarantee(), 0..4), vec(guarantee(), 0..4)),
        (cost(), change, vec(lossy, 0..3), delivery, vec(conflict(), 0..2), text()),
    )
        .prop_map(
            |(
                (id, role, subject, strategy, provides, requires),
                (cost, schema_change, lossy, delivery, objections, rationale),
            )| Alternative {
                id,
                role,
                subject,
                strategy,
                provides,
                requires,
                cost,
                schema_change,
                lossy,
                delivery,
                objections,
                rationale,
            },
        )
        .boxed()
}

fn question() -> BoxedStrategy<Question> {
    prop_oneof![
        (name(), text()).prop_map(|(name, uri)| {
            Question::Probe(ProbeRequest::Sink {
                name,
                locator: Locator::Uri(uri),
                format: None,
                mode: SinkMode::Append,
            })
        }),
        vec(name(), 0..3).prop_map(|outputs| {
            Question::Type(TypingRequest {
                sources: Default::default(),
                steps: Vec::new(),
                binds: Default::default(),
                gates: Vec::new(),
                outputs,
                incremental: Default::default(),
            })
        }),
    ]
    .boxed()
}

fn message() -> BoxedStrategy<Message> {
    let bound = select(vec![Bound::Rounds, Bound::Alternatives, Bound::Messages, Bound::Time]);
    let problems = || vec(problem(), 0..3);
    prop_oneof![
        vec(question(), 0..3).prop_map(|questions| Message::Observe { questions }),
        vec(observation(), 0..3).prop_map(|observations| Message::Observed { observations }),
        (any::<u32>(), vec(alternative(), 0..3))
            .prop_map(|(round, alternatives)| Message::Proposals { round, alternatives }),
        (any::<u32>(), vec(conflict(), 0..3)).prop_map(|(round, conflicts)| Message::Conflicts { round, conflicts }),
        (any::<u32>(), vec(alternative(), 0..3))
            .prop_map(|(round, alternatives)| Message::Counter { round, alternatives }),
        (any::<u32>(), text()).prop_map(|(round, reason)| Message::Refuse { round, reason }),
        vec(text(), 0..3).prop_map(|alternatives| Message::Award { alternatives }),
        Just(Message::Committed),
        problems().prop_map(|problems| Message::CommitFailed { problems }),
        sha256().prop_map(|plan| Message::Sealed { plan: PlanHash(plan) }),
        vec(conflict(), 0..3).prop_map(|conflicts| Message::Deadlocked { conflicts }),
        (bound, vec(conflict(), 0..3)).prop_map(|(bound, conflicts)| Message::Expired { bound, conflicts }),
        problems().prop_map(|problems| Message::Failed { problems }),
    ]
    .boxed()
}

pub(crate) fn envelope() -> BoxedStrategy<Envelope> {
    let party = || (role(), name()).prop_map(|(role, instance)| Party { role, instance });
    (some_text(), any::<u32>(), party(), party(), message())
        .prop_map(|(session, sequence, from, to, body)| Envelope {
            session: RequestId(session),
            sequence,
            from,
            to,
            body,
        })
        .boxed()
}
