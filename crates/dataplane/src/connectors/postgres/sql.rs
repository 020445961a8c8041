//! Writes SQL: names are always quoted, and values never stand in it.
//!
//! Values reach the server as parameters. `COPY` takes none, so its bounds travel in settings of the transaction
//! (`dagwright.b0`, `dagwright.b1`, …; `dagwright.q0`, … for the binds of a query), set by parameter and read back by
//! `current_setting`, which the planner folds.

use dagwright_model::spec::TableName;
use tokio_postgres::Client;

/// The prefix of everything this connector creates by itself.
pub(crate) const PREFIX: &str = "_dagwright_";

/// A table, as it stands in SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// The schema.
    pub schema: String,
    /// The table.
    pub name: String,
}

/// Values that SQL without parameters needs, and the expressions that stand for them.
#[derive(Debug)]
pub(crate) struct Bounds {
    /// Keeps the settings of one set apart from those of another.
    letter: char,
    values: Vec<String>,
}

// === impl Table ===

impl Table {
    /// Names a table of a schema.
    pub(crate) fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self { schema: schema.into(), name: name.into() }
    }

    /// Names another table of the same schema.
    pub(crate) fn beside(&self, name: impl Into<String>) -> Self {
        Self::new(self.schema.clone(), name)
    }

    /// Returns `"schema"."table"`.
    pub(crate) fn sql(&self) -> String {
        format!("{}.{}", quoted(&self.schema), quoted(&self.name))
    }
}

// === impl Bounds ===

impl Bounds {
    /// Makes a set for the limits of a read.
    pub(crate) fn of_read() -> Self {
        Self { letter: 'b', values: Vec::new() }
    }

    /// Makes a set for the binds of a query.
    pub(crate) fn of_query() -> Self {
        Self { letter: 'q', values: Vec::new() }
    }

    /// Takes a value and returns the expression that reads it back as text.
    pub(crate) fn add(&mut self, value: impl Into<String>) -> String {
        self.values.push(value.into());
        format!("pg_catalog.current_setting('{}')", self.setting(self.values.len() - 1))
    }

    /// Sets the values for the current transaction.
    pub(crate) async fn set(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        for (index, value) in self.values.iter().enumerate() {
            client.execute("SELECT pg_catalog.set_config($1, $2, true)", &[&self.setting(index), value]).await?;
        }
        Ok(())
    }

    fn setting(&self, index: usize) -> String {
        format!("dagwright.{}{index}", self.letter)
    }
}

/// Quotes a name.
pub(crate) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Quotes names and joins them by commas.
pub(crate) fn quoted_list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    names.into_iter().map(quoted).collect::<Vec<_>>().join(", ")
}

/// Returns what stands for a table whose schema may be left to the search path.
pub(crate) fn as_written(table: &TableName) -> String {
    match &table.schema {
        Some(schema) => format!("{}.{}", quoted(schema), quoted(&table.table)),
        None => quoted(&table.table),
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, Table, quoted_list};

    #[test]
    fn names_cannot_leave_their_quotes() {
        let hostile = "x\"; DROP TABLE y; --";
        assert_eq!(Table::new("s", hostile).sql(), "\"s\".\"x\"\"; DROP TABLE y; --\"");
        assert_eq!(quoted_list(["a b", "ü\"", "select"]), "\"a b\", \"ü\"\"\", \"select\"");
    }

    #[test]
    fn values_never_stand_in_sql() {
        let mut bounds = Bounds::of_read();
        assert_eq!(bounds.add("'; DROP TABLE y; --"), "pg_catalog.current_setting('dagwright.b0')");
        assert_eq!(bounds.add("2"), "pg_catalog.current_setting('dagwright.b1')");
    }
}
