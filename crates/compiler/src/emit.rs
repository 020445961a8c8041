//! The DAG file: what every target shares. Where targets differ, a [`Dialect`] says how.

mod airflow_2;
mod airflow_3;
pub(crate) mod python;

use std::collections::{BTreeMap, BTreeSet};

use dagwright_model::{id::PlanHash, spec::Alerts};
use serde_json::Value;

use self::python::{Argument, Expr, Identifier, text_block};
use crate::{
    Target,
    dag::{Dag, DagParam, DagTask, DefaultArgs, Trigger},
};

/// The package with our operators.
const OPERATORS_MODULE: &str = "dagwright_airflow";

/// What tells people of a run that failed.
const NOTIFIER: Import = Import { module: "dagwright_airflow.alerts", name: "DagwrightNotifier" };

/// Names that the DAG file uses itself, which no task's variable may hide.
const RESERVED: [&str; 3] = ["deadline", "midnight", "timedelta"];

/// What differs between targets.
struct Dialect {
    dag: Import,
    param: Import,
    timetable: Import,
    asset: Import,
    /// What makes a deadline of a span, where Airflow may have such a thing.
    deadline: Option<Import>,
    /// The value that makes pauses between tries double, and where its name comes from if it has one.
    retry_exponential_backoff: (Expr, Option<Import>),
}

/// Where a name comes from.
#[derive(Clone, Copy)]
struct Import {
    module: &'static str,
    name: &'static str,
}

/// Writes the file of a DAG, whose plan has this hash and stands in `plan_file`.
pub(crate) fn dag_file(dag: &Dag<'_>, hash: &PlanHash, plan_file: &str, target: Target) -> String {
    let dialect = match target {
        Target::Airflow2 => airflow_2::dialect(),
        Target::Airflow3 => airflow_3::dialect(),
    };
    let variables = variables(dag);
    let mut file = format!(
        "\"\"\"Compiled by Dagwright from plan {}; change the pipeline's spec and compile again, not this file.\"\"\"\n\n",
        hash.short()
    );
    file.push_str(&imports(dag, &dialect));
    // A bare name, which operators look for beside this file: a path would be part of mapped tasks as Airflow stores
    // them, and differ with each folder, so that an unchanged plan became a new version of its DAG.
    file.push_str(&statement(0, "PLAN = ", &Expr::text(plan_file)));
    file.push_str(&format!("\nDOC = {}\n\n", text_block(&dag.doc_md)));

    let call = Expr::name("DAG").call(dag_arguments(dag, &dialect));
    // Too wide for a line by its arguments alone, so it is always broken up.
    file.push_str(&format!("with {}:\n", call.render(0, usize::MAX / 2, 0)));
    for (task, variable) in dag.tasks.iter().zip(&variables) {
        let operator = operator_call(dag, task, &variables, &dialect);
        file.push_str(&statement(4, &format!("{} = ", variable.as_str()), &operator));
    }
    if dag.tasks.is_empty() {
        file.push_str("    pass\n");
    }
    let edges: Vec<_> =
        dag.tasks.iter().zip(&variables).filter_map(|(task, own)| edge(dag, task, own, &variables)).collect();
    if !edges.is_empty() {
        file.push('\n');
    }
    for edge in edges {
        file.push_str(&statement(4, "", &edge));
    }
    file
}

fn statement(indent: usize, prefix: &str, expression: &Expr) -> String {
    format!("{:indent$}{prefix}{}\n", "", expression.render(indent, indent + prefix.chars().count(), 0))
}

// === imports ===

fn imports(dag: &Dag<'_>, dialect: &Dialect) -> String {
    let mut needed = vec![dialect.dag];
    if !dag.params.is_empty() {
        needed.push(dialect.param);
    }
    if matches!(dag.schedule, Some(Trigger::Cron { .. })) {
        needed.push(dialect.timetable);
    }
    let waits = matches!(&dag.schedule, Some(Trigger::Assets { assets }) if !assets.is_empty());
    if waits || dag.tasks.iter().any(|task| !task.outlets.is_empty()) {
        needed.push(dialect.asset);
    }
    needed.extend(dialect.retry_exponential_backoff.1);
    needed.extend(dialect.deadline.filter(|_| dag.deadline_ms.is_some()));
    needed.extend((!dag.alerts.is_empty()).then_some(NOTIFIER));
    needed.push(Import { module: OPERATORS_MODULE, name: "midnight" });
    needed.extend(dag.tasks.iter().map(|task| Import { module: OPERATORS_MODULE, name: task.operator }));
    let mut modules: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Import { module, name } in needed {
        modules.entry(module).or_default().insert(name);
    }
    let mut text = String::from("from datetime import timedelta\n\n");
    for (module, names) in modules {
        // Constants, then classes, then functions, as isort has it.
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_by_key(|name| {
            (!name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'), name.starts_with(char::is_lowercase), *name)
        });
        let line = format!("from {module} import {}\n", names.join(", "));
        if line.len() <= 100 {
            text.push_str(&line);
        } else {
            let names: String = names.iter().map(|name| format!("    {name},\n")).collect();
            text.push_str(&format!("from {module} import (\n{names})\n"));
        }
    }
    text.push('\n');
    text
}

// === the DAG ===

fn dag_arguments(dag: &Dag<'_>, dialect: &Dialect) -> Vec<Argument> {
    let mut arguments: Vec<Argument> = vec![(Some("dag_id"), Expr::text(dag.dag_id))];
    if let Some(description) = &dag.description {
        arguments.push((Some("description"), Expr::text(description)));
    }
    arguments.push((Some("doc_md"), Expr::name("DOC")));
    arguments.push((Some("schedule"), schedule(dag.schedule.as_ref(), dialect)));
    let start = [dag.start_date.day, dag.start_date.timezone].map(|text| (None, Expr::text(text)));
    arguments.push((Some("start_date"), Expr::name("midnight").call(start.into())));
    arguments.push((Some("catchup"), Expr::Bool(dag.catchup)));
    if let Some(timeout) = dag.dagrun_timeout_ms {
        arguments.push((Some("dagrun_timeout"), timedelta(timeout)));
    }
    if let (Some(deadline), Some(import)) = (dag.deadline_ms, dialect.deadline) {
        let arguments_of = vec![(None, timedelta(deadline)), (None, texts(&dag.alerts.on_deadline))];
        arguments.push((None, Expr::name(import.name).call(arguments_of).unpacked()));
    }
    if !dag.alerts.is_empty() {
        arguments.push((Some("on_failure_callback"), notifier(&dag.alerts)));
    }
    arguments.push((Some("max_active_runs"), Expr::Int(dag.max_active_runs.into())));
    arguments.push((Some("is_paused_upon_creation"), Expr::Bool(dag.is_paused_upon_creation)));
    arguments.push((Some("tags"), texts(&dag.tags)));
    if !dag.params.is_empty() {
        let params = dag.params.iter().map(|(name, param)| (Expr::text(name.as_str()), param_call(param, dialect)));
        arguments.push((Some("params"), Expr::Dict(params.collect())));
    }
    arguments.push((Some("default_args"), default_args(&dag.default_args, dialect)));
    arguments
}

fn texts(texts: &[String]) -> Expr {
    Expr::List(texts.iter().map(Expr::text).collect())
}

fn notifier(alerts: &Alerts) -> Expr {
    let told = [("on_failure", &alerts.on_failure), ("on_deadline", &alerts.on_deadline)];
    let arguments = told.into_iter().filter(|(_, told)| !told.is_empty());
    Expr::name(NOTIFIER.name).call(arguments.map(|(keyword, told)| (Some(keyword), texts(told))).collect())
}

fn schedule(trigger: Option<&Trigger<'_>>, dialect: &Dialect) -> Expr {
    match trigger {
        None => Expr::Json(Value::Null),
        Some(Trigger::Cron { cron, timezone }) => Expr::name(dialect.timetable.name)
            .call(vec![(None, Expr::text(*cron)), (Some("timezone"), Expr::text(*timezone))]),
        Some(Trigger::Assets { assets }) => self::assets(assets, dialect),
    }
}

fn assets(uris: &[String], dialect: &Dialect) -> Expr {
    Expr::List(uris.iter().map(|uri| Expr::name(dialect.asset.name).call(vec![(None, Expr::text(uri))])).collect())
}

fn param_call(param: &DagParam<'_>, dialect: &Dialect) -> Expr {
    let mut arguments: Vec<Argument> = Vec::new();
    if let Some(default) = param.default {
        arguments.push((None, Expr::Json(default.clone())));
    }
    for keyword in ["type", "format", "enum"] {
        arguments.extend(param.schema.get(keyword).map(|value| (Some(keyword), Expr::Json(value.clone()))));
    }
    Expr::name(dialect.param.name).call(arguments)
}

fn default_args(args: &DefaultArgs<'_>, dialect: &Dialect) -> Expr {
    let mut entries: Vec<(&str, Expr)> = Vec::new();
    if let Some(owner) = &args.owner {
        entries.push(("owner", Expr::text(owner)));
    }
    entries.push(("retries", Expr::Int(args.retries.into())));
    entries.push(("retry_delay", timedelta(args.retry_delay_ms)));
    entries.push(("retry_exponential_backoff", dialect.retry_exponential_backoff.0.clone()));
    entries.push(("max_retry_delay", timedelta(args.max_retry_delay_ms)));
    entries.push(("pool", Expr::text(args.pool)));
    entries.push(("priority_weight", Expr::Json(args.priority_weight.into())));
    Expr::Dict(entries.into_iter().map(|(key, value)| (Expr::text(key), value)).collect())
}

/// Writes a span in the largest unit that holds it exactly.
fn timedelta(ms: u64) -> Expr {
    let units = [("days", 86_400_000), ("hours", 3_600_000), ("minutes", 60_000), ("seconds", 1_000)];
    let exact = units.into_iter().find(|(_, factor)| ms >= *factor && ms.is_multiple_of(*factor));
    let (unit, factor) = exact.unwrap_or(("milliseconds", 1));
    Expr::name("timedelta").call(vec![(Some(unit), Expr::Int(ms / factor))])
}

// === tasks ===

/// Returns each task's variable: its id where that is a free identifier.
fn variables(dag: &Dag<'_>) -> Vec<Identifier> {
    let mut taken = BTreeSet::new();
    let variable = |(index, task): (usize, &DagTask<'_>)| {
        let own = Identifier::checked(task.task_id)
            .filter(|name| !RESERVED.contains(&name.as_str()) && !name.as_str().starts_with("task_"));
        let own = own.filter(|name| taken.insert(name.clone()));
        own.unwrap_or_else(|| Identifier::numbered(index + 1))
    };
    dag.tasks.iter().enumerate().map(variable).collect()
}

fn operator_call(dag: &Dag<'_>, task: &DagTask<'_>, variables: &[Identifier], dialect: &Dialect) -> Expr {
    let mut arguments: Vec<Argument> = vec![
        (Some("task_id"), Expr::text(task.task_id)),
        (Some("plan"), Expr::name("PLAN")),
        (Some("execution_timeout"), timedelta(task.execution_timeout_ms)),
    ];
    if !task.outlets.is_empty() {
        arguments.push((Some("outlets"), assets(&task.outlets, dialect)));
    }
    let class = Expr::name(task.operator);
    match task.mapped_over.and_then(|split| variable_of(dag, split, variables)) {
        Some(split) => {
            let partitions = split.attribute("output");
            class.attribute("partial").call(arguments).attribute("expand").call(vec![(Some("partition"), partitions)])
        }
        None => class.call(arguments),
    }
}

fn variable_of(dag: &Dag<'_>, task_id: &str, variables: &[Identifier]) -> Option<Expr> {
    let index = dag.tasks.iter().position(|task| task.task_id == task_id)?;
    variables.get(index).cloned().map(Expr::Name)
}

// === dependencies ===

/// Writes what a task follows; `None` when it is the first, or its mapping says it already.
fn edge(dag: &Dag<'_>, task: &DagTask<'_>, own: &Identifier, variables: &[Identifier]) -> Option<Expr> {
    let named = |ids: &[&str]| one_or_list(ids.iter().filter_map(|id| variable_of(dag, id, variables)).collect());
    let own = Expr::Name(own.clone());
    let before = named(&task.after);
    let Some(setups) = &task.teardown_of else {
        return Some(before?.before(own));
    };
    let setups = named(setups).map(|setups| (Some("setups"), setups));
    let teardown = own.attribute("as_teardown").call(setups.into_iter().collect());
    Some(match before {
        Some(before) => before.before(teardown),
        None => teardown,
    })
}

fn one_or_list(mut names: Vec<Expr>) -> Option<Expr> {
    match names.len() {
        0 => None,
        1 => names.pop(),
        _ => Some(Expr::List(names)),
    }
}
