//! Alternatives: what would be done, what it gives and needs, and how it is written.

use dagwright_model::{
    message::{Alternative, Delivery, Guarantee, LossyUse, Parts, Placement, Privilege, Read, Role, Strategy, Write},
    schema::Verdict,
    spec::{LossyCast, SchemaChange},
    task::{SchemaEdit, WriteStrategy},
};

use crate::{
    Error,
    convert::{FromWire, all, common::data_type, each, enum_pairs, name, optional, required, text},
    proto,
};

enum_pairs!(Placement, proto::Placement { Fused, Mapped, Staged });
enum_pairs!(WriteStrategy, proto::WriteStrategy { Direct, StagingTable, PartitionStaging });
enum_pairs!(LossyCast, proto::LossyCast { Reject, Null, Quarantine });
enum_pairs!(SchemaChange, proto::SchemaChange { None, Additive, Widening });
enum_pairs!(Verdict, proto::Verdict { Exact, Lossless, Lossy, Impossible });
enum_pairs!(Privilege, proto::Privilege { Create, Insert, Update, Delete, Alter });
enum_pairs!(Delivery, proto::Delivery { ExactlyOnceAtomic, ExactlyOncePerPartition });

// === Alternative ===

impl From<&Alternative> for proto::Alternative {
    fn from(alternative: &Alternative) -> Self {
        Self {
            id: alternative.id.clone(),
            role: proto::Role::from(alternative.role).into(),
            subject: alternative.subject.clone(),
            strategy: Some((&alternative.strategy).into()),
            provides: each(&alternative.provides),
            requires: each(&alternative.requires),
            cost: Some((&alternative.cost).into()),
            schema_change: proto::SchemaChange::from(alternative.schema_change).into(),
            lossy: each(&alternative.lossy),
            delivery: alternative.delivery.map_or(proto::Delivery::Unspecified, Into::into).into(),
            objections: each(&alternative.objections),
            rationale: alternative.rationale.clone(),
        }
    }
}

impl TryFrom<proto::Alternative> for Alternative {
    type Error = Error;

    fn try_from(alternative: proto::Alternative) -> Result<Self, Error> {
        let delivery = match alternative.delivery {
            0 => None,
            value => Some(Delivery::from_wire(value, "alternative.delivery")?),
        };
        Ok(Self {
            id: text(alternative.id, "alternative.id")?,
            role: Role::from_wire(alternative.role, "alternative.role")?,
            subject: alternative.subject,
            strategy: required(alternative.strategy, "alternative.strategy")?.try_into()?,
            provides: all(alternative.provides)?,
            requires: all(alternative.requires)?,
            cost: required(alternative.cost, "alternative.cost")?.try_into()?,
            schema_change: SchemaChange::from_wire(alternative.schema_change, "alternative.schema_change")?,
            lossy: all(alternative.lossy)?,
            delivery,
            objections: all(alternative.objections)?,
            rationale: alternative.rationale,
        })
    }
}

// === Strategy ===

impl From<&Strategy> for proto::alternative::Strategy {
    fn from(strategy: &Strategy) -> Self {
        match strategy {
            Strategy::Read(read) => Self::Read(proto::Read {
                columns: each(&read.columns),
                filters: read.filters.clone(),
                incremental: read.incremental,
                parts: read
                    .parts
                    .as_ref()
                    .map(|parts| proto::Parts { by: Some((&parts.by).into()), count_max: parts.count_max }),
                on_misfit: proto::LossyCast::from(read.on_misfit).into(),
            }),
            Strategy::Compute { placement } => {
                Self::Compute(proto::Compute { placement: proto::Placement::from(*placement).into() })
            }
            Strategy::Write(write) => Self::Write(proto::Write {
                strategy: proto::WriteStrategy::from(write.strategy).into(),
                columns: each(&write.columns),
                edits: each(&write.edits),
                dedupe: each(&write.dedupe),
                on_misfit: proto::LossyCast::from(write.on_misfit).into(),
            }),
        }
    }
}

impl TryFrom<proto::alternative::Strategy> for Strategy {
    type Error = Error;

    fn try_from(strategy: proto::alternative::Strategy) -> Result<Self, Error> {
        use proto::alternative::Strategy as Wire;
        Ok(match strategy {
            Wire::Read(read) => Self::Read(Read {
                columns: all(read.columns)?,
                filters: read.filters,
                incremental: read.incremental,
                parts: optional(read.parts)?,
                on_misfit: LossyCast::from_wire(read.on_misfit, "read.on_misfit")?,
            }),
            Wire::Compute(compute) => {
                Self::Compute { placement: Placement::from_wire(compute.placement, "compute.placement")? }
            }
            Wire::Write(write) => Self::Write(Write {
                strategy: WriteStrategy::from_wire(write.strategy, "write.strategy")?,
                columns: all(write.columns)?,
                edits: all(write.edits)?,
                dedupe: all(write.dedupe)?,
                on_misfit: LossyCast::from_wire(write.on_misfit, "write.on_misfit")?,
            }),
        })
    }
}

impl TryFrom<proto::Parts> for Parts {
    type Error = Error;

    fn try_from(parts: proto::Parts) -> Result<Self, Error> {
        Ok(Self { by: required(parts.by, "parts.by")?.try_into()?, count_max: parts.count_max })
    }
}

// === SchemaEdit ===

impl From<&SchemaEdit> for proto::SchemaEdit {
    fn from(edit: &SchemaEdit) -> Self {
        use proto::schema_edit::{CreateTable, Edit, UniqueKey};
        let edit = match edit {
            SchemaEdit::CreateTable => Edit::CreateTable(CreateTable {}),
            SchemaEdit::AddColumn(column) => Edit::AddColumn(column.into()),
            SchemaEdit::WidenColumn(column) => Edit::WidenColumn(column.into()),
            SchemaEdit::DropNotNull(column) => Edit::DropNotNull(column.clone()),
            SchemaEdit::AddUniqueKey(columns) => Edit::AddUniqueKey(UniqueKey { columns: columns.clone() }),
        };
        Self { edit: Some(edit) }
    }
}

impl TryFrom<proto::SchemaEdit> for SchemaEdit {
    type Error = Error;

    fn try_from(edit: proto::SchemaEdit) -> Result<Self, Error> {
        use proto::schema_edit::Edit;
        Ok(match required(edit.edit, "schema_edit.edit")? {
            Edit::CreateTable(_) => Self::CreateTable,
            Edit::AddColumn(column) => Self::AddColumn(column.try_into()?),
            Edit::WidenColumn(column) => Self::WidenColumn(column.try_into()?),
            Edit::DropNotNull(column) => Self::DropNotNull(text(column, "schema_edit.drop_not_null")?),
            Edit::AddUniqueKey(key) => Self::AddUniqueKey(key.columns),
        })
    }
}

// === Guarantee ===

impl From<&Guarantee> for proto::Guarantee {
    fn from(guarantee: &Guarantee) -> Self {
        use proto::guarantee::{Guarantee as Wire, Ordering, Partitioning, Schema, SinkPrivilege, Staged, Unique};
        let guarantee = match guarantee {
            Guarantee::Schema { relation, columns, verdict } => Wire::Schema(Schema {
                relation: relation.to_string(),
                columns: each(columns),
                verdict: proto::Verdict::from(*verdict).into(),
            }),
            Guarantee::Unique { relation, columns } => {
                Wire::Unique(Unique { relation: relation.to_string(), columns: columns.clone() })
            }
            Guarantee::Ordering { relation, by } => {
                Wire::Ordering(Ordering { relation: relation.to_string(), by: each(by) })
            }
            Guarantee::Partitioning { relation, in_parts } => {
                Wire::Partitioning(Partitioning { relation: relation.to_string(), in_parts: *in_parts })
            }
            Guarantee::Staged { relation } => Wire::Staged(Staged { relation: relation.to_string() }),
            Guarantee::Privilege { sink, privilege } => Wire::Privilege(SinkPrivilege {
                sink: sink.to_string(),
                privilege: proto::Privilege::from(*privilege).into(),
            }),
        };
        Self { guarantee: Some(guarantee) }
    }
}

impl TryFrom<proto::Guarantee> for Guarantee {
    type Error = Error;

    fn try_from(guarantee: proto::Guarantee) -> Result<Self, Error> {
        use proto::guarantee::Guarantee as Wire;
        let relation = |text| name(text, "guarantee.relation");
        Ok(match required(guarantee.guarantee, "guarantee.guarantee")? {
            Wire::Schema(schema) => Self::Schema {
                relation: relation(schema.relation)?,
                columns: all(schema.columns)?,
                verdict: Verdict::from_wire(schema.verdict, "guarantee.schema.verdict")?,
            },
            Wire::Unique(unique) => Self::Unique { relation: relation(unique.relation)?, columns: unique.columns },
            Wire::Ordering(ordering) => {
                Self::Ordering { relation: relation(ordering.relation)?, by: all(ordering.by)? }
            }
            Wire::Partitioning(partitioning) => {
                Self::Partitioning { relation: relation(partitioning.relation)?, in_parts: partitioning.in_parts }
            }
            Wire::Staged(staged) => Self::Staged { relation: relation(staged.relation)? },
            Wire::Privilege(needed) => Self::Privilege {
                sink: name(needed.sink, "guarantee.privilege.sink")?,
                privilege: Privilege::from_wire(needed.privilege, "guarantee.privilege.privilege")?,
            },
        })
    }
}

// === LossyUse ===

impl From<&LossyUse> for proto::LossyUse {
    fn from(lossy: &LossyUse) -> Self {
        Self {
            subject: lossy.subject.to_string(),
            column: lossy.column.clone(),
            from: lossy.from.to_string(),
            to: lossy.to.to_string(),
            policy: proto::LossyCast::from(lossy.policy).into(),
        }
    }
}

impl TryFrom<proto::LossyUse> for LossyUse {
    type Error = Error;

    fn try_from(lossy: proto::LossyUse) -> Result<Self, Error> {
        Ok(Self {
            subject: name(lossy.subject, "lossy_use.subject")?,
            column: lossy.column,
            from: data_type(lossy.from, "lossy_use.from")?,
            to: data_type(lossy.to, "lossy_use.to")?,
            policy: LossyCast::from_wire(lossy.policy, "lossy_use.policy")?,
        })
    }
}
