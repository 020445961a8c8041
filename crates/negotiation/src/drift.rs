//! How the schemas that a plan uses differ from those of the plan before it.
//!
//! Compared is what both plans use: columns that nothing reads may come and go. A source may have further columns
//! (additive), types that hold every old value (widening), or something is gone or is another thing (breaking). What became
//! text is another thing: whoever reads the sink would notice. Whether NULL may occur is no difference, since it is only
//! seen, not promised, in most sources.

use std::collections::BTreeMap;

use dagwright_model::{
    id::Name,
    plan::Plan,
    schema::{Column, DataType, Verdict},
    setback::{DriftKind, SchemaDrift, Side},
    spec::SchemaChange,
    task::{Input, Output, SinkWrite, SourceRead, Work},
};

/// The columns of each source or sink.
type Schemas<'a> = BTreeMap<&'a Name, &'a [Column]>;

/// Returns the schemas that differ: sources, then sinks, by name. What only one of the plans has is no drift.
#[must_use]
pub fn between(before: &Plan, after: &Plan) -> Vec<SchemaDrift> {
    let mut found = Vec::new();
    for (side, was, is) in [(Side::Source, sources(before), sources(after)), (Side::Sink, sinks(before), sinks(after))]
    {
        let both = was.into_iter().filter_map(|(name, was)| Some((name, was, *is.get(name)?)));
        found.extend(both.filter_map(|(name, was, is)| compare(name, side, was, is)));
    }
    found
}

/// Tells whether a policy lets a change of a schema go through by itself.
#[must_use]
pub fn allowed(change: DriftKind, policy: SchemaChange) -> bool {
    match change {
        DriftKind::Additive => policy >= SchemaChange::Additive,
        DriftKind::Widening => policy >= SchemaChange::Widening,
        DriftKind::Breaking => false,
    }
}

fn sources(plan: &Plan) -> Schemas<'_> {
    let mut schemas = Schemas::new();
    for (name, read) in plan.tasks.iter().flat_map(|task| reads(&task.spec.work)) {
        schemas.insert(name, &read.columns);
    }
    schemas
}

fn reads(work: &Work) -> Vec<(&Name, &SourceRead)> {
    match work {
        Work::Split(split) => vec![(&split.source, &split.read)],
        Work::Move(work) => {
            let read = work.inputs.iter().filter_map(|(name, input)| match input {
                Input::Source(read) => Some((name, read)),
                Input::Staged { .. } => None,
            });
            read.collect()
        }
        Work::Publish(_) | Work::Cleanup => Vec::new(),
    }
}

fn sinks(plan: &Plan) -> Schemas<'_> {
    let written = plan.tasks.iter().flat_map(|task| writes(&task.spec.work));
    written.map(|write| (&write.name, write.columns.as_slice())).collect()
}

fn writes(work: &Work) -> Vec<&SinkWrite> {
    match work {
        Work::Publish(publish) => vec![&publish.sink],
        Work::Move(work) => {
            let written = work.outputs.iter().filter_map(|output| match output {
                Output::Sink(write) => Some(write),
                Output::Staged { .. } => None,
            });
            written.collect()
        }
        Work::Split(_) | Work::Cleanup => Vec::new(),
    }
}

fn compare(name: &Name, side: Side, before: &[Column], after: &[Column]) -> Option<SchemaDrift> {
    let mut found = Vec::new();
    for was in before {
        match after.iter().find(|is| is.name == was.name) {
            None => {
                found.push((DriftKind::Breaking, format!("column {} is gone (it was {})", was.name, was.data_type)))
            }
            Some(is) if is.data_type == was.data_type => {}
            Some(is) => {
                let what = format!("column {} is {}, it was {}", was.name, is.data_type, was.data_type);
                found.push((change_of_type(&was.data_type, &is.data_type), what));
            }
        }
    }
    for is in after.iter().filter(|is| before.iter().all(|was| was.name != is.name)) {
        found.push((DriftKind::Additive, format!("column {} ({}) is new", is.name, is.data_type)));
    }
    let change = found.iter().map(|(change, _)| *change).max()?;
    Some(SchemaDrift {
        subject: name.clone(),
        side,
        change,
        what: found.into_iter().map(|(_, what)| what).collect(),
        before: before.to_vec(),
        after: after.to_vec(),
    })
}

fn change_of_type(was: &DataType, is: &DataType) -> DriftKind {
    let is_text = |data_type: &DataType| matches!(data_type, DataType::String { .. } | DataType::Json);
    match was.cast_to(is) {
        Verdict::Exact | Verdict::Lossless if is_text(was) == is_text(is) => DriftKind::Widening,
        Verdict::Exact | Verdict::Lossless | Verdict::Lossy | Verdict::Impossible => DriftKind::Breaking,
    }
}

#[cfg(test)]
mod tests {
    use dagwright_model::{
        schema::Column,
        setback::{DriftKind, Side},
        spec::SchemaChange,
    };

    use crate::rules::fixture::name;

    fn columns(text: &str) -> Vec<Column> {
        let column = |text: &str| {
            let (name, data_type) = text.split_once(' ').expect("a name and a type");
            Column { name: name.into(), data_type: data_type.parse().expect("a type"), nullable: true }
        };
        text.split(", ").map(column).collect()
    }

    #[track_caller]
    fn check(before: &str, after: &str, wanted: Option<(DriftKind, &[&str])>) {
        let found = super::compare(&name("items"), Side::Source, &columns(before), &columns(after));
        let found = found.as_ref().map(|drift| (drift.change, drift.what.iter().map(String::as_str).collect()));
        assert_eq!(found, wanted.map(|(change, what)| (change, what.to_vec())));
    }

    #[test]
    fn each_change_of_a_schema_has_its_gravity() {
        use DriftKind::{Additive, Breaking, Widening};
        check("a int64, b string", "a int64, b string", None);
        check("a int64, b string", "b string, a int64", None);
        check("a int64", "a int64, b date", Some((Additive, &["column b (date) is new"])));
        check("a int32", "a int64", Some((Widening, &["column a is int64, it was int32"])));
        check("a int64, b string", "b string", Some((Breaking, &["column a is gone (it was int64)"])));
        check("a int64", "a string", Some((Breaking, &["column a is string, it was int64"])));
        check("a int64", "a int32", Some((Breaking, &["column a is int32, it was int64"])));
        check("a string(5)", "a string", Some((Widening, &["column a is string, it was string(5)"])));
        let renamed = ["column a is gone (it was int64)", "column b (int64) is new"];
        check("a int64", "b int64", Some((Breaking, &renamed)));
    }

    #[test]
    fn a_policy_lets_through_what_it_names_and_never_what_breaks() {
        for (change, policies) in [
            (DriftKind::Additive, &[SchemaChange::Additive, SchemaChange::Widening][..]),
            (DriftKind::Widening, &[SchemaChange::Widening]),
            (DriftKind::Breaking, &[]),
        ] {
            for policy in [SchemaChange::None, SchemaChange::Additive, SchemaChange::Widening] {
                assert_eq!(super::allowed(change, policy), policies.contains(&policy), "{change:?} {policy:?}");
            }
        }
    }
}
