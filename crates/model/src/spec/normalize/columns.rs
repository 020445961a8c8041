//! Checks lists of column names, and orders over columns.

use std::collections::BTreeSet;

use crate::{
    code::Code,
    spec::{
        OrderBy,
        report::{Report, Site, quoted},
    },
};

/// The most columns of a key or rule.
const COLUMNS_MAX: usize = 64;

/// Checks that a list of column names is neither empty nor repeats itself.
pub(super) fn check(columns: &[String], site: &Site<'_>, report: &mut Report) {
    if columns.is_empty() {
        report.push(Code::SpecWrongType, site, "the list of columns is empty", "name at least one column");
    }
    if columns.len() > COLUMNS_MAX {
        let message = format!("{} columns; at most {COLUMNS_MAX} are allowed", columns.len());
        report.push(Code::SpecWrongType, site, message, "");
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, column) in columns.iter().enumerate() {
        name(column, || site.index(index), report);
        if !seen.insert(column) {
            let message = format!("the column {} stands here twice", quoted(column));
            report.push(Code::SpecConflict, &site.index(index), message, "remove one");
        }
    }
}

/// Checks that a column name is one.
pub(super) fn name<'t>(column: &str, site: impl FnOnce() -> Site<'t>, report: &mut Report) {
    if column.trim().is_empty() {
        report.push(Code::SpecBadName, &site(), "a column without a name", "write the column's name");
    }
}

/// Reads the terms of an order: `column`, `column asc` or `column desc`.
pub(super) fn order(terms: &[String], site: &Site<'_>, report: &mut Report) -> Vec<OrderBy> {
    let mut order: Vec<OrderBy> = Vec::new();
    for (index, term) in terms.iter().enumerate() {
        let term = term.trim();
        let (column, direction) = term.rsplit_once(char::is_whitespace).unwrap_or((term, ""));
        let (column, descending) = match direction.to_ascii_lowercase().as_str() {
            "desc" => (column, true),
            "asc" => (column, false),
            // A column's name may hold blanks.
            _ => (term, false),
        };
        let column = column.trim_end();
        let quoted_inside = column.strip_prefix('"').and_then(|column| column.strip_suffix('"'));
        let column = quoted_inside.map_or_else(|| column.to_owned(), |column| column.replace("\"\"", "\""));
        name(&column, || site.index(index), report);
        if order.iter().any(|earlier| earlier.column == column) {
            let message = format!("the column {} stands here twice", quoted(&column));
            report.push(Code::SpecConflict, &site.index(index), message, "remove one");
        }
        order.push(OrderBy { column, descending });
    }
    order
}

#[cfg(test)]
mod tests {
    use super::order;
    use crate::spec::report::{Report, Site};

    #[test]
    fn orders_read_as_written() {
        let mut report = Report::default();
        let terms = ["a", "b DESC", "c asc", "my col", "\"my col\" desc "].map(String::from);
        let order = order(&terms, &Site::root(None), &mut report);
        let read: Vec<_> = order.iter().map(|term| (term.column.as_str(), term.descending)).collect();
        assert_eq!(read, [("a", false), ("b", true), ("c", false), ("my col", false), ("my col", true)]);
        assert_eq!(report.finish().len(), 1, "the repeated column");
    }
}
