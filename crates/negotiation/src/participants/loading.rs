//! What the loading agent offers: ways to write each sink.

use dagwright_model::{
    id::Name,
    message::{Alternative, Conflict, ConflictKind, Cost, Delivery, Guarantee, Role, Strategy, Write},
    schema::Verdict,
    spec::{Locator, LossyCast, SchemaChange, SinkMode},
    task::{SchemaEdit, WriteStrategy},
};

use crate::{
    case::Case,
    cost::Rates,
    rules::{
        partition, privilege, read_write, sink_mode, sink_schema,
        sink_schema::{Fitted, Leave, STRICT},
        space, unique_key,
        unique_key::Known,
    },
};

/// What a row of a table is taken to weigh, where only rows are counted.
const ROW_BYTES: u64 = 100;

/// Offers to write each sink as it is, or to make it where it is missing.
#[must_use]
pub fn propose(case: Case<'_>, rates: &Rates) -> Vec<Alternative> {
    let mut offers = Vec::new();
    for name in case.spec.sinks.keys() {
        let mut fitted = sink_schema::fit(case, name, STRICT);
        fitted.objections.splice(0..0, obstacles(case, name));
        let way = Way { case, rates, name, fitted: &fitted };
        for strategy in strategies(case, name) {
            offers.push(way.offer(strategy, ""));
        }
    }
    offers
}

/// Counters what the schema stands in the way of with what the request's policy allows.
#[must_use]
pub fn counter(case: Case<'_>, rates: &Rates, conflicts: &[Conflict]) -> Vec<Alternative> {
    let policy = case.spec.policy;
    let leaves = [
        ("_changed", Leave { schema_change: policy.schema_change, lossy: LossyCast::Reject }),
        ("_lossy", Leave { schema_change: SchemaChange::None, lossy: policy.lossy_cast }),
        ("_changed_lossy", Leave { schema_change: policy.schema_change, lossy: policy.lossy_cast }),
    ];
    let mut offers = Vec::new();
    for name in case.spec.sinks.keys() {
        let concerned = conflicts.iter().any(|found| {
            let by_schema = matches!(
                found.kind,
                ConflictKind::Type | ConflictKind::NotNull | ConflictKind::MissingColumn | ConflictKind::UniqueIndex
            );
            by_schema && found.subject == name.as_str()
        });
        // What no change of the schema removes would stand in the way of every counter as well.
        if !concerned || !obstacles(case, name).is_empty() {
            continue;
        }
        let mut known: Vec<Fitted> = Vec::new();
        for (variant, leave) in leaves {
            let fitted = sink_schema::fit(case, name, leave);
            if !fitted.objections.is_empty() || known.contains(&fitted) {
                continue;
            }
            let way = Way { case, rates, name, fitted: &fitted };
            offers.extend(strategies(case, name).into_iter().map(|strategy| way.offer(strategy, variant)));
            known.push(fitted);
        }
    }
    offers
}

/// Returns what stands in the way whatever the schema is.
fn obstacles(case: Case<'_>, name: &Name) -> Vec<Conflict> {
    let mut found = sink_mode::objections(case, name);
    found.extend(read_write::objections(case, name));
    found.extend(unique_key::objections(case, name));
    found.extend(space::objection(case, name));
    found
}

fn strategies(case: Case<'_>, name: &Name) -> Vec<WriteStrategy> {
    let sink = &case.spec.sinks[name];
    let one = match (&sink.locator, sink.mode) {
        (Locator::Table { .. }, SinkMode::Upsert) => WriteStrategy::StagingTable,
        _ => WriteStrategy::Direct,
    };
    match partition::mappable(case) {
        Ok(_) => vec![one, WriteStrategy::PartitionStaging],
        Err(_) => vec![one],
    }
}

/// A sink, with what is common to all ways to write it.
struct Way<'a> {
    case: Case<'a>,
    rates: &'a Rates,
    name: &'a Name,
    fitted: &'a Fitted,
}

// === impl Way ===

impl Way<'_> {
    fn offer(&self, strategy: WriteStrategy, suffix: &str) -> Alternative {
        let Self { case, name, fitted, .. } = *self;
        let sink = &case.spec.sinks[name];
        let variant = match strategy {
            WriteStrategy::Direct => "direct",
            WriteStrategy::StagingTable => "staging_table",
            WriteStrategy::PartitionStaging => "partitions",
        };
        let relation = &sink.from;
        let in_parts = strategy == WriteStrategy::PartitionStaging;
        let needed = case.columns(relation);
        let mut requires = vec![
            Guarantee::Schema { relation: relation.clone(), columns: needed, verdict: Verdict::Exact },
            Guarantee::Partitioning { relation: relation.clone(), in_parts },
        ];
        if sink.mode == SinkMode::Upsert && unique_key::known(case, name) == Known::Unique {
            requires.push(Guarantee::Unique { relation: relation.clone(), columns: sink.key.clone() });
        }
        requires.extend(privilege::required(case, name, &fitted.edits));
        Alternative {
            id: format!("{}/{name}/{variant}{suffix}", Role::Loading),
            role: Role::Loading,
            subject: name.to_string(),
            strategy: Strategy::Write(Write {
                strategy,
                columns: fitted.columns.clone(),
                edits: fitted.edits.clone(),
                dedupe: sink.dedupe.clone(),
                on_misfit: case.spec.policy.lossy_cast,
            }),
            provides: Vec::new(),
            requires,
            cost: self.cost(strategy),
            schema_change: fitted.schema_change,
            lossy: fitted.lossy.clone(),
            delivery: Some(Delivery::ExactlyOnceAtomic),
            objections: fitted.objections.clone(),
            rationale: self.rationale(strategy),
        }
    }

    fn cost(&self, strategy: WriteStrategy) -> Cost {
        let Self { case, rates, name, fitted } = *self;
        let sink = &case.spec.sinks[name];
        let (mut rows, mut bytes) = (0, 0);
        for source in case.origins(&sink.from) {
            if let Some(profile) = case.profile(source) {
                rows = rows.max(profile.rows.value);
                bytes = bytes.max(profile.bytes.value);
            }
        }
        let seen = case.inspection(name);
        let scheme = seen.map_or("file", |seen| seen.identity.scheme.as_str());
        let mut cost = rates.write(scheme, sink.format, rows, bytes);
        let twice =
            |cost: Cost| Cost { bytes: cost.bytes * 2, cpu_ms: cost.cpu_ms * 2, wall_ms: cost.wall_ms * 2, ..cost };
        match (strategy, &sink.locator) {
            (WriteStrategy::Direct, _) => {}
            (WriteStrategy::StagingTable, _) => cost = twice(cost),
            (WriteStrategy::PartitionStaging, Locator::Uri(_)) => cost.wall_ms /= rates.parallel_tasks.max(1),
            (WriteStrategy::PartitionStaging, _) => {
                let staged = cost.wall_ms / rates.parallel_tasks.max(1);
                cost = Cost { wall_ms: staged + cost.wall_ms, ..twice(cost) };
            }
        }
        if fitted.edits.iter().any(|edit| matches!(edit, SchemaEdit::WidenColumn(_) | SchemaEdit::AddUniqueKey(_))) {
            // The database reads, or rewrites, every row there is.
            let held = seen.and_then(|seen| seen.rows).unwrap_or(0);
            let rewritten = rates.write(scheme, None, held, held.saturating_mul(ROW_BYTES));
            cost = cost.then(rewritten);
        }
        cost
    }

    fn rationale(&self, strategy: WriteStrategy) -> String {
        let Self { case, name, fitted, .. } = *self;
        let sink = &case.spec.sinks[name];
        let exists = case.inspection(name).is_some_and(|seen| seen.exists);
        let what = match (sink.mode, &sink.locator) {
            _ if !exists => "makes it",
            (SinkMode::Append, _) => "adds to it",
            (SinkMode::Replace, Locator::Uri(_)) => "writes it anew, then lets the old go",
            (SinkMode::Replace, _) => "replaces its rows",
            (SinkMode::Upsert | SinkMode::OverwritePartitions | SinkMode::Scd2, _) => "replaces rows by key",
        };
        let how = match strategy {
            WriteStrategy::Direct => "visible in one instant",
            WriteStrategy::StagingTable => "through a staging table, visible in one instant",
            WriteStrategy::PartitionStaging => "each part stages by itself, one step makes all visible",
        };
        let mut text = format!("{what}, {how}");
        if sink.mode == SinkMode::Upsert {
            match (unique_key::known(case, name), sink.dedupe.is_empty()) {
                (Known::Repeats, false) => text += "; of rows with the same key the first by `dedupe` wins",
                (Known::Unknown, true) => text += "; a key that repeats ends the run",
                (Known::Unique | Known::Unknown | Known::Repeats, _) => {}
            }
        }
        for edit in &fitted.edits {
            match edit {
                SchemaEdit::CreateTable => {}
                SchemaEdit::AddColumn(column) => text += &format!("; adds column {}", column.name),
                SchemaEdit::WidenColumn(column) => {
                    text += &format!("; widens column {} to {}", column.name, column.data_type);
                }
                SchemaEdit::DropNotNull(column) => text += &format!("; lets column {column} hold NULL"),
                SchemaEdit::AddUniqueKey(key) => text += &format!("; adds a unique index on ({})", key.join(", ")),
            }
        }
        let set_aside = fitted.lossy.iter().filter(|used| used.policy != LossyCast::Reject);
        let columns: Vec<_> = set_aside.map(|used| used.column.as_str()).collect();
        if !columns.is_empty() {
            let fate = match case.spec.policy.lossy_cast {
                LossyCast::Quarantine => "their rows are set aside",
                LossyCast::Null => "they become NULL",
                LossyCast::Reject => "they end the run",
            };
            text += &format!("; where values of {} do not fit, {fate}", columns.join(", "));
        }
        text
    }
}
