//! What a sink's schema makes of a relation: missing, too narrow, or in need of values that do not come.
//!
//! [`fit`] is asked twice: strictly, with no change of the schema and no value lost, to name every conflict; and
//! with what the request's policy allows, to counter them. A sink that is new, or whose files all go, fits anything.

use dagwright_model::{
    facts::SinkColumn,
    id::Name,
    message::{Conflict, ConflictKind, LossyUse, Role},
    schema::{Column, DataType},
    spec::{Locator, LossyCast, SchemaChange},
    task::SchemaEdit,
};

use super::{conflict, percent, remedy, type_fit, unique_index};
use crate::{case::Case, rules::type_fit::Fit};

/// What may be done to make a relation fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leave {
    /// The gravest change of the sink's schema.
    pub schema_change: SchemaChange,
    /// What may become of values that are known not to fit.
    pub lossy: LossyCast,
}

/// A relation fitted into a sink.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fitted {
    /// The columns written, with the sink's types.
    pub columns: Vec<Column>,
    /// What changes about the sink's schema first.
    pub edits: Vec<SchemaEdit>,
    /// The gravest of these changes.
    pub schema_change: SchemaChange,
    /// Conversions that may lose something.
    pub lossy: Vec<LossyUse>,
    /// What still stands in the way.
    pub objections: Vec<Conflict>,
}

/// Nothing is changed and nothing is lost.
pub const STRICT: Leave = Leave { schema_change: SchemaChange::None, lossy: LossyCast::Reject };

/// Fits what a sink gets into it.
#[must_use]
pub fn fit(case: Case<'_>, name: &Name, leave: Leave) -> Fitted {
    let sink = &case.spec.sinks[name];
    let columns = case.columns(&sink.from);
    let known = case.inspection(name).map(|seen| &seen.columns[..]).unwrap_or_default();
    let is_table = matches!(sink.locator, Locator::Table { .. });
    let mut fitted = Fitted::default();
    if case.writes_afresh(name) {
        fitted.columns = columns.into_iter().map(|column| afresh(column, &sink.key)).collect();
        if is_table {
            fitted.edits.push(SchemaEdit::CreateTable);
        }
        return fitted;
    }
    if known.is_empty() {
        // Text files name their columns at most; what is written beside them keeps its own types.
        fitted.columns = columns;
        return fitted;
    }
    let mut draft = Draft { case, name, leave, is_table, fitted };
    for column in &columns {
        match known.iter().find(|known| known.column.name == column.name) {
            Some(existing) => draft.existing(column, existing),
            None => draft.missing(column),
        }
    }
    for unfed in known.iter().filter(|known| !columns.iter().any(|column| column.name == known.column.name)) {
        draft.unfed(unfed);
    }
    match unique_index::edit(case, name, leave.schema_change) {
        Some(Ok(edit)) => draft.change(SchemaChange::Additive, edit),
        Some(Err(conflict)) => draft.fitted.objections.push(conflict),
        None => {}
    }
    draft.fitted
}

/// A column as a new table gets it: only the key promises a value, since a source that never missed one still may.
fn afresh(column: Column, key: &[String]) -> Column {
    let nullable = !key.contains(&column.name);
    Column { nullable, ..column }
}

/// A relation on its way into an existing sink.
struct Draft<'a> {
    case: Case<'a>,
    name: &'a Name,
    leave: Leave,
    is_table: bool,
    fitted: Fitted,
}

// === impl Draft ===

impl Draft<'_> {
    /// Writes a column that the sink has.
    fn existing(&mut self, column: &Column, existing: &SinkColumn) {
        let sink_type = &existing.column.data_type;
        if existing.generated {
            let message = format!("column {}: the sink generates it itself", column.name);
            self.object(ConflictKind::Unsupported, &column.name, message, "leave it out in the last step");
            return;
        }
        let from = &self.case.spec.sinks[self.name].from;
        let traced = self.case.trace(from, &column.name);
        let seen = traced.and_then(|traced| Some((traced.profile, self.case.profile(traced.source)?)));
        let mut written = existing.column.clone();
        match type_fit::judge(column, sink_type, seen) {
            Fit::Exact | Fit::Lossless => {}
            Fit::Checked => self.lossy(column, sink_type, self.case.spec.policy.lossy_cast),
            Fit::Misfit(misfit) => {
                let wider = sink_type.common_with(&column.data_type);
                match wider.filter(|_| self.allows(SchemaChange::Widening)) {
                    Some(wider) => {
                        written.data_type = wider;
                        self.change(SchemaChange::Widening, SchemaEdit::WidenColumn(written.clone()));
                    }
                    // An emptied value needs a column that may be empty.
                    None if self.leave.lossy == LossyCast::Quarantine
                        || (self.leave.lossy == LossyCast::Null && existing.column.nullable) =>
                    {
                        self.lossy(column, sink_type, self.leave.lossy);
                    }
                    None => self.misfit(column, &misfit, existing),
                }
            }
            Fit::Impossible => {
                let message = format!("column {}: source {}; sink {sink_type}", column.name, column.data_type);
                let change = format!("convert it in a step, to {sink_type}");
                self.object(ConflictKind::Type, &column.name, message, &change);
            }
        }
        if column.nullable && !existing.column.nullable {
            self.not_null(column, existing, &mut written);
        }
        self.fitted.columns.push(written);
    }

    /// Names a known misfit, with what would resolve it.
    fn misfit(&mut self, column: &Column, misfit: &str, existing: &SinkColumn) {
        let null = if existing.column.nullable { "" } else { " not null" };
        let sink_type = &existing.column.data_type;
        let message = format!("column {}: source {}, {misfit}; sink {sink_type}{null}", column.name, column.data_type);
        let mut found = conflict(ConflictKind::Type, Role::Loading, self.name.as_str(), message);
        found.column = Some(column.name.clone());
        found.remedies.push(remedy("policy.lossy_cast", "set quarantine to set such rows aside"));
        if self.is_table && sink_type.common_with(&column.data_type).is_some() {
            found.remedies.push(remedy("policy.schema_change", "set widening, so that the column is widened"));
        }
        found.remedies.push(remedy("transform", format!("clean {} in a step", column.name)));
        self.fitted.objections.push(found);
    }

    /// Writes a column that may hold NULL where none is allowed.
    fn not_null(&mut self, column: &Column, existing: &SinkColumn, written: &mut Column) {
        let from = &self.case.spec.sinks[self.name].from;
        let traced = self.case.trace(from, &column.name).filter(|traced| traced.every_row);
        let Some(traced) = traced.filter(|traced| traced.profile.nulls > 0) else {
            // Nothing is known against it: each value is checked.
            return;
        };
        if self.allows(SchemaChange::Widening) {
            written.nullable = true;
            self.change(SchemaChange::Widening, SchemaEdit::DropNotNull(column.name.clone()));
            return;
        }
        if self.leave.lossy == LossyCast::Quarantine {
            self.lossy(column, &existing.column.data_type, LossyCast::Quarantine);
            return;
        }
        let rows = self.case.profile(traced.source).map_or(0, |profile| profile.rows_sampled);
        let share = percent(traced.profile.nulls, rows);
        let message = format!("column {}: source has {share} NULL; sink is not null", column.name);
        let mut found = conflict(ConflictKind::NotNull, Role::Loading, self.name.as_str(), message);
        found.column = Some(column.name.clone());
        found.remedies = vec![
            remedy("policy.lossy_cast", "set quarantine to set such rows aside"),
            remedy("policy.schema_change", "set widening, so that the column may hold NULL"),
            remedy("transform", format!("fill {} in, or filter such rows out", column.name)),
        ];
        self.fitted.objections.push(found);
    }

    /// Adds a column that the sink lacks.
    fn missing(&mut self, column: &Column) {
        let added = Column { nullable: true, ..column.clone() };
        if self.allows(SchemaChange::Additive) {
            self.change(SchemaChange::Additive, SchemaEdit::AddColumn(added.clone()));
            self.fitted.columns.push(added);
            return;
        }
        let message = format!("column {}: the sink has none of that name", column.name);
        let mut found = conflict(ConflictKind::MissingColumn, Role::Loading, self.name.as_str(), message);
        found.column = Some(column.name.clone());
        found.remedies = vec![
            remedy("policy.schema_change", "set additive, so that the column is added"),
            remedy("transform", format!("leave {} out in the last step", column.name)),
        ];
        self.fitted.objections.push(found);
    }

    /// Leaves out a column of the sink that nothing is written to.
    fn unfed(&mut self, unfed: &SinkColumn) {
        let column = &unfed.column;
        if column.nullable || unfed.has_default || unfed.generated {
            return;
        }
        if self.allows(SchemaChange::Widening) {
            self.change(SchemaChange::Widening, SchemaEdit::DropNotNull(column.name.clone()));
            return;
        }
        let message = format!("column {}: the sink needs a value, and none comes", column.name);
        let change = format!("compute {} in the last step", column.name);
        self.object(ConflictKind::NotNull, &column.name, message, &change);
    }

    fn allows(&self, change: SchemaChange) -> bool {
        // Old files keep their columns whatever the new ones hold, so nothing of theirs can be widened.
        self.leave.schema_change >= change && (self.is_table || change <= SchemaChange::Additive)
    }

    fn change(&mut self, change: SchemaChange, edit: SchemaEdit) {
        self.fitted.schema_change = self.fitted.schema_change.max(change);
        if self.is_table {
            self.fitted.edits.push(edit);
        }
    }

    fn lossy(&mut self, column: &Column, to: &DataType, policy: LossyCast) {
        self.fitted.lossy.push(LossyUse {
            subject: self.name.clone(),
            column: column.name.clone(),
            from: column.data_type.clone(),
            to: to.clone(),
            policy,
        });
    }

    fn object(&mut self, kind: ConflictKind, column: &str, message: String, in_transform: &str) {
        let mut found = conflict(kind, Role::Loading, self.name.as_str(), message);
        found.column = Some(column.into());
        found.remedies.push(remedy("transform", in_transform));
        self.fitted.objections.push(found);
    }
}

#[cfg(test)]
mod tests {
    use dagwright_model::{
        spec::{LossyCast, SchemaChange},
        task::SchemaEdit,
    };

    use super::{Leave, STRICT};
    use crate::rules::fixture::Fixture;

    const WIDENING: Leave = Leave { schema_change: SchemaChange::Widening, lossy: LossyCast::Reject };
    const ADDITIVE: Leave = Leave { schema_change: SchemaChange::Additive, lossy: LossyCast::Reject };
    const QUARANTINE: Leave = Leave { schema_change: SchemaChange::None, lossy: LossyCast::Quarantine };

    #[track_caller]
    fn check(change: impl FnOnce(&mut Fixture), leave: Leave, edits: &[SchemaEdit], lossy: usize, objections: &[&str]) {
        let mut fixture = Fixture::table();
        fixture.existing_sink(&["id", "seen_at", "amount", "label"]);
        change(&mut fixture);
        let found = super::fit(fixture.case(), &fixture.sink, leave);
        assert_eq!(found.objections.iter().map(|c| c.message.as_str()).collect::<Vec<_>>(), objections);
        assert_eq!(found.edits, edits);
        assert_eq!(found.lossy.len(), lossy);
    }

    #[test]
    fn a_missing_sink_is_made() {
        let fixture = Fixture::table();
        let found = super::fit(fixture.case(), &fixture.sink, STRICT);
        assert_eq!((found.edits, found.schema_change), (vec![SchemaEdit::CreateTable], SchemaChange::None));
        assert!(found.columns.iter().all(|column| column.nullable), "no source promises values for good");
    }

    #[test]
    fn a_sink_that_fits_is_left_alone() {
        check(|_| {}, STRICT, &[], 0, &[]);
    }

    #[test]
    fn text_into_a_decimal() {
        let text = |f: &mut Fixture| {
            f.column_mut("amount").column.data_type = "string".parse().expect("a type");
            f.column_mut("amount").misfits.insert("float64".into(), 31);
            f.sink_column_mut("amount").column.data_type = "decimal(10,2)".parse().expect("a type");
            f.sink_column_mut("amount").column.nullable = false;
            f.column_mut("amount").column.nullable = false;
        };
        let message = "column amount: source string, 3.1 % not numeric; sink decimal(10,2) not null";
        check(text, STRICT, &[], 0, &[message]);
        check(text, QUARANTINE, &[], 1, &[]);
        let wider = |f: &Fixture| f.sink_column("amount").column.clone();
        let mut fixture = Fixture::table();
        fixture.existing_sink(&["id", "seen_at", "amount", "label"]);
        text(&mut fixture);
        let mut column = wider(&fixture);
        column.data_type = "string".parse().expect("a type");
        check(text, WIDENING, &[SchemaEdit::WidenColumn(column)], 0, &[]);
    }

    #[test]
    fn a_column_too_few() {
        let narrow = |f: &mut Fixture| f.inspection_mut().columns.retain(|known| known.column.name != "label");
        check(narrow, STRICT, &[], 0, &["column label: the sink has none of that name"]);
        let column = Fixture::table().column_mut("label").column.clone();
        check(narrow, ADDITIVE, &[SchemaEdit::AddColumn(column)], 0, &[]);
    }

    #[test]
    fn a_column_too_many() {
        let wide = |f: &mut Fixture| {
            let mut extra = f.sink_column("label").clone();
            extra.column.name = "extra".into();
            extra.column.nullable = false;
            f.inspection_mut().columns.push(extra);
        };
        check(wide, ADDITIVE, &[], 0, &["column extra: the sink needs a value, and none comes"]);
        check(wide, WIDENING, &[SchemaEdit::DropNotNull("extra".into())], 0, &[]);
        let filled = |f: &mut Fixture| {
            wide(f);
            f.sink_column_mut("extra").has_default = true;
        };
        check(filled, STRICT, &[], 0, &[]);
    }

    #[test]
    fn null_into_not_null() {
        let gaps = |f: &mut Fixture| {
            f.column_mut("amount").nulls = 52;
            f.column_mut("amount").column.nullable = true;
            f.sink_column_mut("amount").column.nullable = false;
        };
        check(gaps, STRICT, &[], 0, &["column amount: source has 5.2 % NULL; sink is not null"]);
        check(gaps, QUARANTINE, &[], 1, &[]);
        check(gaps, WIDENING, &[SchemaEdit::DropNotNull("amount".into())], 0, &[]);
    }
}
