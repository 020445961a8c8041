//! Gives the binds of a query their values: each becomes a typed expression, and no value stands in the SQL.

use std::collections::BTreeMap;

use dagwright_model::{
    code::Code,
    spec::{ParamType, QueryBind, replace_binds},
    task::RunContext,
};

use super::{fault::Subject, sql::Bounds};
use crate::{
    error::{Error, Result},
    transform::sql::value,
};

/// A query without binds, and the values it reads instead.
#[derive(Debug)]
pub(crate) struct Bound {
    /// The query.
    pub sql: String,
    /// What must be set before it is run.
    pub values: Bounds,
}

// === impl Bound ===

impl Bound {
    /// Binds a query to the values of a run, or to samples where none is known.
    ///
    /// # Errors
    /// DW0120 when the run gives a bind no value, or one that is not of its type.
    pub(crate) fn new(
        query: &str,
        binds: &BTreeMap<String, QueryBind>,
        run: Option<&RunContext>,
        subject: &Subject,
    ) -> Result<Self> {
        let mut values = Bounds::of_query();
        // One setting a bind, however often the query names it.
        let mut known = BTreeMap::new();
        for (name, bind) in binds {
            let value = match run {
                Some(run) => text(value(name, bind.param_type, run)?),
                None => bind.sample.clone(),
            };
            if value.as_ref().is_some_and(|value| value.contains('\0')) {
                return Err(invalid(subject, &format!("the value of ${name} holds a NUL character")));
            }
            let value = value.map_or_else(|| "NULL".into(), |value| values.add(value));
            known.insert(name.as_str(), format!("({value}::{})", sql_type(bind.param_type)));
        }
        let unknown =
            |name: &str| invalid(subject, &format!("the query uses ${name}, of which the plan knows nothing"));
        let sql = replace_binds(query, |name| known.get(name).cloned().ok_or_else(|| unknown(name)))?;
        Ok(Self { sql, values })
    }
}

fn text(value: serde_json::Value) -> Option<String> {
    match value {
        serde_json::Value::Null => None,
        serde_json::Value::String(text) => Some(text),
        other => Some(other.to_string()),
    }
}

fn sql_type(param_type: ParamType) -> &'static str {
    match param_type {
        ParamType::String => "text",
        ParamType::Integer => "int8",
        ParamType::Number => "float8",
        ParamType::Boolean => "bool",
        ParamType::Date => "date",
        ParamType::Timestamp => "timestamptz",
    }
}

fn invalid(subject: &Subject, message: &str) -> Error {
    subject.error(Code::TaskSpecInvalid, message, "plan again with values of the declared types")
}
