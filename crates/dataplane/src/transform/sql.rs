//! Vets a step's SQL and gives its binds their types, before and after planning.
//!
//! A step is one SELECT over the relations it may see. Everything else that DataFusion's SQL can say (tables from
//! files, COPY, SET, DDL, DML, EXPLAIN) is refused, and no such thing can hide below a SELECT.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::ControlFlow,
    sync::Arc,
};

use chrono::{DateTime, NaiveDate};
use dagwright_model::{
    code::Code,
    spec::ParamType,
    task::{Problem, RunContext},
};
use datafusion::{
    common::{ScalarValue, tree_node::TreeNodeRecursion},
    logical_expr::{LogicalPlan, Statement as PlanStatement},
    sql::{
        parser::{DFParserBuilder, Statement},
        sqlparser::{
            ast::{Expr as SqlExpr, Statement as SqlStatement, Value as SqlValue, VisitMut, VisitorMut},
            dialect::GenericDialect,
            parser::Parser,
        },
    },
};
use serde_json::Value;

use crate::error::{Error, Result};

/// The longest SQL text, in bytes; four times what a spec may hold, whose limit counts characters.
pub const SQL_BYTES_MAX: usize = 400_000;

/// How deep expressions and queries may nest; the parser's own recursion is bounded by it.
const DEPTH_MAX: usize = 64;

/// Two binds that every run may have.
const INTERVAL_BINDS: [&str; 2] = ["data_interval_start", "data_interval_end"];

/// A parsed and vetted SELECT whose binds are typed.
pub struct Select {
    /// The statement.
    pub statement: Statement,
    /// The binds it uses.
    pub binds: BTreeSet<String>,
}

/// Parses one SELECT and types its binds.
///
/// # Errors
/// Why it is refused, for people.
pub fn parse(sql: &str, binds: &BTreeMap<String, ParamType>) -> Result<Select, String> {
    if sql.len() > SQL_BYTES_MAX {
        return Err(format!("the SQL is longer than {SQL_BYTES_MAX} bytes"));
    }
    let dialect = GenericDialect {};
    let mut parser = DFParserBuilder::new(sql)
        .with_dialect(&dialect)
        .with_recursion_limit(DEPTH_MAX)
        .build()
        .map_err(|error| error.to_string())?;
    let mut statements = parser.parse_statements().map_err(|error| error.to_string())?;
    let (Some(statement), None) = (statements.pop_front(), statements.pop_front()) else {
        return Err("a step is exactly one SELECT".into());
    };
    let Statement::Statement(mut inner) = statement else { return Err(only_select()) };
    if !matches!(*inner, SqlStatement::Query(_)) {
        return Err(only_select());
    }
    let mut numberer = BindNumberer { binds, used: BTreeSet::new() };
    if let ControlFlow::Break(message) = inner.visit(&mut numberer) {
        return Err(message);
    }
    let statement = if binds.is_empty() { *inner } else { prepared(*inner, binds)? };
    Ok(Select { statement: Statement::Statement(Box::new(statement)), binds: numberer.used })
}

/// Wraps a SELECT in the one statement by which DataFusion lets binds have types.
fn prepared(select: SqlStatement, binds: &BTreeMap<String, ParamType>) -> Result<SqlStatement, String> {
    let types = binds.values().map(|param_type| sql_type(*param_type)).collect::<Vec<_>>().join(", ");
    let parsed = Parser::parse_sql(&GenericDialect {}, &format!("PREPARE step ({types}) AS SELECT 1"));
    match parsed.map_err(|error| error.to_string())?.pop() {
        Some(SqlStatement::Prepare { name, data_types, .. }) => {
            Ok(SqlStatement::Prepare { name, data_types, statement: Box::new(select) })
        }
        _ => Err("the binds have no SQL types".into()),
    }
}

/// Takes the SELECT out of the statement that typed its binds.
#[must_use]
pub fn unprepared(plan: LogicalPlan) -> LogicalPlan {
    match plan {
        LogicalPlan::Statement(PlanStatement::Prepare(prepare)) => Arc::unwrap_or_clone(prepare.input),
        other => other,
    }
}

/// Refuses everything in a plan that is not a query.
///
/// # Errors
/// What was found, for people.
pub fn vet(plan: &LogicalPlan) -> Result<(), String> {
    let mut found = None;
    let visited = plan.apply_with_subqueries(|node| {
        let refused = match node {
            LogicalPlan::Statement(_) => "a statement",
            LogicalPlan::Dml(_) => "INSERT, UPDATE or DELETE",
            LogicalPlan::Ddl(_) => "CREATE, DROP or SELECT INTO",
            LogicalPlan::Copy(_) => "COPY",
            LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) => "EXPLAIN",
            LogicalPlan::DescribeTable(_) => "DESCRIBE",
            LogicalPlan::Extension(_) => "an extension",
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Window(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Repartition(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::TableScan(_)
            | LogicalPlan::EmptyRelation(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Limit(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::Unnest(_)
            | LogicalPlan::RecursiveQuery(_) => return Ok(TreeNodeRecursion::Continue),
        };
        found = Some(refused);
        Ok(TreeNodeRecursion::Stop)
    });
    match (visited, found) {
        (Err(error), _) => Err(error.to_string()),
        (Ok(_), Some(refused)) => Err(format!("{refused} is not allowed; {}", only_select())),
        (Ok(_), None) => Ok(()),
    }
}

/// Returns the values of binds as typed scalars, by their position among all binds.
///
/// # Errors
/// DW0120 when a bind has no value in this run, or one of another type.
pub fn values(
    used: &BTreeSet<String>,
    types: &BTreeMap<String, ParamType>,
    run: &RunContext,
) -> Result<HashMap<String, ScalarValue>> {
    used.iter()
        .map(|name| {
            let param_type = *types.get(name).ok_or_else(|| bad(name, "the bind has no type", "plan again"))?;
            let value = value(name, param_type, run)?;
            let scalar = scalar(&value, param_type).ok_or_else(|| misfit(name))?;
            let position = types.keys().position(|known| known == name).unwrap_or_default() + 1;
            Ok((position.to_string(), scalar))
        })
        .collect()
}

/// Returns the value of a bind in a run, of its type or null.
///
/// # Errors
/// DW0120 when it has no value in this run, or one of another type.
pub fn value(name: &str, param_type: ParamType, run: &RunContext) -> Result<Value> {
    let interval = run.interval.as_ref();
    let value = match run.params.get(name) {
        Some(value) => value.clone(),
        None if name == INTERVAL_BINDS[0] && interval.is_some() => {
            interval.map(|interval| interval.start.clone()).into()
        }
        None if name == INTERVAL_BINDS[1] && interval.is_some() => interval.map(|interval| interval.end.clone()).into(),
        None if INTERVAL_BINDS.contains(&name) => {
            return Err(bad(name, "the run has no data interval", "give the run an interval"));
        }
        None => return Err(bad(name, "the run gives the parameter no value", "give it a value or a default")),
    };
    scalar(&value, param_type).map(|_| value).ok_or_else(|| misfit(name))
}

fn misfit(name: &str) -> Error {
    bad(name, "the parameter's value is not of its type", "give a value of the declared type")
}

fn bad(name: &str, message: &str, hint: &str) -> Error {
    Error::from_problem(Problem {
        code: Code::TaskSpecInvalid,
        subject: name.into(),
        message: message.into(),
        hint: hint.into(),
    })
}

/// Replaces names of binds by their position among all binds.
struct BindNumberer<'a> {
    binds: &'a BTreeMap<String, ParamType>,
    used: BTreeSet<String>,
}

impl VisitorMut for BindNumberer<'_> {
    type Break = String;

    fn post_visit_expr(&mut self, expr: &mut SqlExpr) -> ControlFlow<String> {
        let SqlExpr::Value(value) = expr else { return ControlFlow::Continue(()) };
        let SqlValue::Placeholder(placeholder) = &mut value.value else { return ControlFlow::Continue(()) };
        let name = placeholder.trim_start_matches('$').to_owned();
        let Some(position) = self.binds.keys().position(|known| *known == name) else {
            let known = self.binds.keys().map(|name| format!("${name}")).collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "there are none".into() } else { format!("there are {known}") };
            return ControlFlow::Break(format!("{placeholder:?} is not a bind; {known}"));
        };
        *placeholder = format!("${}", position + 1);
        self.used.insert(name);
        ControlFlow::Continue(())
    }
}

fn only_select() -> String {
    "a step is one SELECT".into()
}

/// The SQL type of a bind; instants have microseconds, as everything else.
fn sql_type(param_type: ParamType) -> &'static str {
    match param_type {
        ParamType::String => "VARCHAR",
        ParamType::Integer => "BIGINT",
        ParamType::Number => "DOUBLE",
        ParamType::Boolean => "BOOLEAN",
        ParamType::Date => "DATE",
        ParamType::Timestamp => "TIMESTAMP(6) WITH TIME ZONE",
    }
}

fn scalar(value: &Value, param_type: ParamType) -> Option<ScalarValue> {
    if value.is_null() {
        return Some(match param_type {
            ParamType::String => ScalarValue::Utf8(None),
            ParamType::Integer => ScalarValue::Int64(None),
            ParamType::Number => ScalarValue::Float64(None),
            ParamType::Boolean => ScalarValue::Boolean(None),
            ParamType::Date => ScalarValue::Date32(None),
            ParamType::Timestamp => ScalarValue::TimestampMicrosecond(None, Some("UTC".into())),
        });
    }
    Some(match param_type {
        ParamType::String => ScalarValue::Utf8(Some(value.as_str()?.into())),
        ParamType::Integer => ScalarValue::Int64(Some(value.as_i64()?)),
        ParamType::Number => ScalarValue::Float64(Some(value.as_f64()?)),
        ParamType::Boolean => ScalarValue::Boolean(Some(value.as_bool()?)),
        ParamType::Date => {
            let date: NaiveDate = value.as_str()?.parse().ok()?;
            let days = date.signed_duration_since(NaiveDate::default()).num_days();
            ScalarValue::Date32(Some(i32::try_from(days).ok()?))
        }
        ParamType::Timestamp => {
            let instant = DateTime::parse_from_rfc3339(value.as_str()?).ok()?;
            ScalarValue::TimestampMicrosecond(Some(instant.timestamp_micros()), Some("UTC".into()))
        }
    })
}

/// Quotes an identifier for DataFusion's SQL.
#[must_use]
pub fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}
