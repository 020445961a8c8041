//! Projection and filter pushdown: reading only the columns and rows that anything needs.
//!
//! The typed steps say what is needed. Row formats are read whole whatever is needed, but fields that nobody wants
//! are not parsed; Parquet and databases do not even move them.

use dagwright_model::{id::Name, schema::Column, spec::FileFormat};

use crate::case::Case;

/// What a filter leaves of the rows, in thousandths, where nothing is known: the usual guess of query planners.
const FILTER_SHARE: u64 = 333;

/// What of a row format's cost is finding fields, in thousandths; the rest is parsing those that are wanted.
const ROW_FORMAT_SHARE: u64 = 400;

/// A way to read columns and rows of a source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Projection {
    /// The columns read.
    pub columns: Vec<Column>,
    /// The predicates applied early.
    pub filters: Vec<String>,
    /// What of the source's bytes it costs, in thousandths.
    pub share: u64,
}

/// Returns how the source is read with everything pushed down that can be.
#[must_use]
pub fn pushed(case: Case<'_>, source: &Name) -> Projection {
    let columns = case.needed_columns(source);
    let filters = case.filters(source).to_vec();
    let all = case.source_columns(source).len().max(1) as u64;
    let wanted = 1000 * columns.len() as u64 / all;
    let format = case.profile(source).and_then(|profile| profile.format);
    let share = match format {
        Some(FileFormat::Csv | FileFormat::Ndjson) => ROW_FORMAT_SHARE + wanted * (1000 - ROW_FORMAT_SHARE) / 1000,
        // Row groups are skipped by their statistics at best; the columns are what counts.
        Some(FileFormat::Parquet) => wanted,
        None if filters.is_empty() => wanted,
        None => wanted * FILTER_SHARE / 1000,
    };
    Projection { columns, filters, share: share.clamp(1, 1000) }
}

/// Returns how the source is read with nothing pushed down, if that differs.
#[must_use]
pub fn whole(case: Case<'_>, source: &Name) -> Option<Projection> {
    let columns = case.source_columns(source);
    let pushed = pushed(case, source);
    (pushed.columns.len() < columns.len() || !pushed.filters.is_empty()).then_some(Projection {
        columns,
        filters: Vec::new(),
        share: 1000,
    })
}

#[cfg(test)]
mod tests {
    use dagwright_model::facts::Pushdown;

    use crate::rules::fixture::Fixture;

    #[track_caller]
    fn check(mut fixture: Fixture, columns: &[&str], filters: &[&str], share: u64, differs: bool) {
        let pushdown = Pushdown {
            columns: columns.iter().map(ToString::to_string).collect(),
            filters: filters.iter().map(ToString::to_string).collect(),
        };
        fixture.facts.typing.pushdown.insert(fixture.source.clone(), pushdown);
        let pushed = super::pushed(fixture.case(), &fixture.source);
        assert_eq!(pushed.columns.iter().map(|column| column.name.as_str()).collect::<Vec<_>>(), columns);
        assert_eq!(pushed.share, share);
        assert_eq!(super::whole(fixture.case(), &fixture.source).is_some(), differs);
    }

    #[test]
    fn less_is_read_where_less_is_needed() {
        check(Fixture::table(), &["id", "seen_at", "amount", "label"], &[], 1000, false);
        check(Fixture::table(), &["id", "amount"], &[], 500, true);
        check(Fixture::table(), &["id", "amount"], &["amount > 0"], 166, true);
        check(Fixture::files(1), &["id", "amount"], &[], 700, true);
    }
}
