//! The DAG file: what every target shares. Where targets differ, a [`Dialect`] says how.

mod airflow_2;
mod airflow_3;
pub(crate) mod python;

use std::collections::{BTreeMap, BTreeSet};

use dagwright_model::{
    id::{PlanHash, TaskId},
    message::Role,
    plan::{Plan, PlannedTask},
    spec::{Param, ParamType, Schedule},
    task::{Output, Work, WriteStrategy},
    units::Span,
};
use serde_json::Value;

use self::python::{Argument, Expr, Identifier, text_block};
use crate::{Target, doc};

/// The package with our operators.
const OPERATORS_MODULE: &str = "dagwright_airflow";

/// The tag by which people, and who deploys them, find our DAGs.
pub const TAG: &str = "dagwright";

/// The most characters Airflow lets a tag have.
const TAG_CHARS_MAX: usize = 100;

/// The longest pause between two tries.
const RETRY_DELAY_MAX: Span = Span(3_600_000);

/// The longest span written, ten years: Python's timers do not take much more, and nobody means it.
const SPAN_MAX: Span = Span(3650 * 86_400_000);

/// The day from which a pipeline without one may run; with `catchup` off it changes nothing.
const START_DATE: &str = "1970-01-01";

/// Names that the DAG file uses itself, which no task's variable may hide.
const RESERVED: [&str; 3] = ["midnight", "str", "timedelta"];

/// What differs between targets.
struct Dialect {
    dag: Import,
    param: Import,
    timetable: Import,
    /// The value that makes pauses between tries double.
    retry_exponential_backoff: Expr,
}

/// Where a name comes from.
#[derive(Clone, Copy)]
struct Import {
    module: &'static str,
    name: &'static str,
}

/// Writes the DAG file of a plan.
pub(crate) fn dag_file(plan: &Plan, hash: &PlanHash, plan_file: &str, target: Target) -> String {
    let dialect = match target {
        Target::Airflow2 => airflow_2::dialect(),
        Target::Airflow3 => airflow_3::dialect(),
    };
    let variables = variables(plan);
    let mut file = format!(
        "\"\"\"Compiled by Dagwright from plan {}; change the pipeline's spec and compile again, not this file.\"\"\"\n\n",
        hash.short()
    );
    file.push_str(&imports(plan, &dialect));
    let path = Expr::name("Path")
        .call(vec![(None, Expr::name("__file__"))])
        .attribute("with_name")
        .call(vec![(None, Expr::text(plan_file))]);
    // Text, because mapped tasks are serialized with their arguments.
    file.push_str(&statement(0, "PLAN = ", &Expr::name("str").call(vec![(None, path)])));
    file.push_str(&format!("\nDOC = {}\n\n", text_block(&doc::markdown(plan, hash))));

    let dag = Expr::name("DAG").call(dag_arguments(plan, hash, &dialect));
    // Too wide for a line by its arguments alone, so it is always broken up.
    file.push_str(&format!("with {}:\n", dag.render(0, usize::MAX / 2, 0)));
    for (task, variable) in plan.tasks.iter().zip(&variables) {
        let operator = operator_call(plan, task, &variables);
        file.push_str(&statement(4, &format!("{} = ", variable.as_str()), &operator));
    }
    if plan.tasks.is_empty() {
        file.push_str("    pass\n");
    }
    let edges: Vec<_> =
        plan.tasks.iter().zip(&variables).filter_map(|(task, own)| edge(plan, task, own, &variables)).collect();
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

fn imports(plan: &Plan, dialect: &Dialect) -> String {
    let mut needed = vec![dialect.dag];
    if !plan.params.is_empty() {
        needed.push(dialect.param);
    }
    if plan.schedule.is_some() {
        needed.push(dialect.timetable);
    }
    needed.push(Import { module: OPERATORS_MODULE, name: "midnight" });
    needed.extend(plan.tasks.iter().map(|task| Import { module: OPERATORS_MODULE, name: operator(task) }));
    let mut modules: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Import { module, name } in needed {
        modules.entry(module).or_default().insert(name);
    }
    let mut text = String::from("from datetime import timedelta\nfrom pathlib import Path\n\n");
    for (module, names) in modules {
        // Constants, then classes, then functions, as isort has it.
        let mut names: Vec<_> = names.into_iter().collect();
        names.sort_by_key(|name| {
            (!name.bytes().all(|b| b.is_ascii_uppercase()), name.starts_with(char::is_lowercase), *name)
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

fn dag_arguments(plan: &Plan, hash: &PlanHash, dialect: &Dialect) -> Vec<Argument> {
    let mut arguments: Vec<Argument> = vec![(Some("dag_id"), Expr::text(&plan.dag_id))];
    if let Some(description) = plan.description.as_ref().filter(|text| !text.is_empty()) {
        arguments.push((Some("description"), Expr::text(description)));
    }
    arguments.push((Some("doc_md"), Expr::name("DOC")));
    let none = Expr::Json(Value::Null);
    arguments.push((Some("schedule"), plan.schedule.as_ref().map_or(none, |schedule| timetable(schedule, dialect))));
    let (day, timezone) = match &plan.schedule {
        Some(Schedule { start_date, timezone, .. }) => (start_date.as_deref().unwrap_or(START_DATE), timezone.as_str()),
        None => (START_DATE, "UTC"),
    };
    let start = Expr::name("midnight").call(vec![(None, Expr::text(day)), (None, Expr::text(timezone))]);
    arguments.push((Some("start_date"), start));
    arguments.push((Some("catchup"), Expr::Bool(plan.schedule.as_ref().is_some_and(|schedule| schedule.catchup))));
    if let Some(deadline) = plan.deadline {
        arguments.push((Some("dagrun_timeout"), timedelta(deadline)));
    }
    arguments.push((Some("max_active_runs"), Expr::Int(plan.airflow.max_active_runs.into())));
    // Whoever deploys it wants it to run; whoever pauses it later is heard.
    arguments.push((Some("is_paused_upon_creation"), Expr::Bool(false)));
    arguments.push((Some("tags"), Expr::List(tags(plan, hash).into_iter().map(Expr::Str).collect())));
    if !plan.params.is_empty() {
        let entry = |(name, param)| (Expr::text(String::from(Clone::clone(name))), param_call(param, dialect));
        arguments.push((Some("params"), Expr::Dict(plan.params.iter().map(entry).collect())));
    }
    arguments.push((Some("default_args"), default_args(plan, dialect)));
    arguments
}

fn timetable(schedule: &Schedule, dialect: &Dialect) -> Expr {
    let timezone = (Some("timezone"), Expr::text(&schedule.timezone));
    Expr::name(dialect.timetable.name).call(vec![(None, Expr::text(&schedule.cron)), timezone])
}

/// Returns the tag by which a DAG says which plan it was compiled from: an API that lists DAGs shows little else of them.
#[must_use]
pub fn plan_tag(hash: &PlanHash) -> String {
    format!("plan {}", hash.short())
}

/// Returns the tags as Airflow accepts them: not empty, not too long, none twice.
fn tags(plan: &Plan, hash: &PlanHash) -> Vec<String> {
    let mut tags: Vec<String> = Vec::new();
    let of_plan = plan_tag(hash);
    for tag in plan.tags.iter().map(String::as_str).chain([TAG, &of_plan]) {
        let tag: String = tag.chars().take(TAG_CHARS_MAX).collect();
        if !tag.is_empty() && !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    tags
}

fn param_call(param: &Param, dialect: &Dialect) -> Expr {
    let (json_type, format) = match param.param_type {
        ParamType::String => ("string", None),
        ParamType::Integer => ("integer", None),
        ParamType::Number => ("number", None),
        ParamType::Boolean => ("boolean", None),
        ParamType::Date => ("string", Some("date")),
        ParamType::Timestamp => ("string", Some("date-time")),
    };
    let mut arguments: Vec<Argument> = Vec::new();
    if let Some(default) = &param.default {
        arguments.push((None, Expr::Json(default.clone())));
    }
    arguments.push((Some("type"), Expr::text(json_type)));
    if let Some(format) = format {
        arguments.push((Some("format"), Expr::text(format)));
    }
    if let Some(allowed) = &param.allowed {
        arguments.push((Some("enum"), Expr::List(allowed.iter().cloned().map(Expr::Json).collect())));
    }
    Expr::name(dialect.param.name).call(arguments)
}

fn default_args(plan: &Plan, dialect: &Dialect) -> Expr {
    let mut entries: Vec<(&str, Expr)> = Vec::new();
    if let Some(owner) = plan.owner.as_ref().filter(|owner| !owner.is_empty()) {
        // Airflow puts it into the environment of each task, where NUL makes every try fail.
        let owner: String = owner.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        entries.push(("owner", Expr::Str(owner)));
    }
    entries.push(("retries", Expr::Int(plan.retries.max.into())));
    entries.push(("retry_delay", timedelta(plan.retries.backoff)));
    entries.push(("retry_exponential_backoff", dialect.retry_exponential_backoff.clone()));
    entries.push(("max_retry_delay", timedelta(RETRY_DELAY_MAX)));
    entries.push(("pool", Expr::text(&plan.airflow.pool)));
    entries.push(("priority_weight", Expr::Json(plan.airflow.priority_weight.into())));
    Expr::Dict(entries.into_iter().map(|(key, value)| (Expr::text(key), value)).collect())
}

/// Writes a span in the largest unit that holds it exactly.
fn timedelta(span: Span) -> Expr {
    let ms = span.min(SPAN_MAX).0;
    let units = [("days", 86_400_000), ("hours", 3_600_000), ("minutes", 60_000), ("seconds", 1_000)];
    let exact = units.into_iter().find(|(_, factor)| ms >= *factor && ms.is_multiple_of(*factor));
    let (unit, factor) = exact.unwrap_or(("milliseconds", 1));
    Expr::name("timedelta").call(vec![(Some(unit), Expr::Int(ms / factor))])
}

// === tasks ===

/// Returns each task's variable: its id where that is a free identifier.
fn variables(plan: &Plan) -> Vec<Identifier> {
    let mut taken = BTreeSet::new();
    let variable = |(index, task): (usize, &PlannedTask)| {
        let own = Identifier::checked(&task.spec.id.0)
            .filter(|name| !RESERVED.contains(&name.as_str()) && !name.as_str().starts_with("task_"));
        let own = own.filter(|name| taken.insert(name.clone()));
        own.unwrap_or_else(|| Identifier::numbered(index + 1))
    };
    plan.tasks.iter().enumerate().map(variable).collect()
}

/// Returns the operator that runs a task.
fn operator(task: &PlannedTask) -> &'static str {
    match (&task.spec.work, task.role) {
        (Work::Split(_), _) => "DagwrightSplit",
        (Work::Publish(_), _) => "DagwrightPublish",
        (Work::Cleanup, _) => "DagwrightCleanup",
        (Work::Move(_), Role::Extraction) => "DagwrightExtract",
        (Work::Move(_), Role::Transformation) => "DagwrightTransform",
        (Work::Move(_), Role::Loading | Role::Orchestrator) => "DagwrightLoad",
    }
}

fn operator_call(plan: &Plan, task: &PlannedTask, variables: &[Identifier]) -> Expr {
    let arguments: Vec<Argument> = vec![
        (Some("task_id"), Expr::text(&task.spec.id.0)),
        (Some("plan"), Expr::name("PLAN")),
        (Some("execution_timeout"), timedelta(task.timeout)),
    ];
    let class = Expr::name(operator(task));
    match task.mapped_over.as_ref().and_then(|split| variable_of(plan, split, variables)) {
        Some(split) => {
            let partitions = Expr::Name(split).attribute("output");
            class.attribute("partial").call(arguments).attribute("expand").call(vec![(Some("partition"), partitions)])
        }
        None => class.call(arguments),
    }
}

fn variable_of(plan: &Plan, id: &TaskId, variables: &[Identifier]) -> Option<Identifier> {
    let index = plan.tasks.iter().position(|task| task.spec.id == *id)?;
    variables.get(index).cloned()
}

// === dependencies ===

/// Writes what a task follows; `None` when it is the first, or its mapping says it already.
fn edge(plan: &Plan, task: &PlannedTask, own: &Identifier, variables: &[Identifier]) -> Option<Expr> {
    let upstream = |wanted: &dyn Fn(&PlannedTask) -> bool| -> Vec<Expr> {
        let before = plan.tasks.iter().zip(variables).filter(|(other, _)| task.after.contains(&other.spec.id));
        before.filter(|(other, _)| wanted(other)).map(|(_, variable)| Expr::Name(variable.clone())).collect()
    };
    let own = Expr::Name(own.clone());
    if !task.teardown {
        let before = one_or_list(upstream(&|other| task.mapped_over.as_ref() != Some(&other.spec.id)))?;
        return Some(before.before(own));
    }
    // What stages is the set-up of what removes it: who clears a task that reads the staging area then clears, by
    // Airflow's own rule, what fills it too. A teardown never decides how its run ends.
    let setups = one_or_list(upstream(&stages)).map(|setups| (Some("setups"), setups));
    let teardown = own.attribute("as_teardown").call(setups.into_iter().collect());
    Some(match one_or_list(upstream(&|other| !stages(other))) {
        Some(before) => before.before(teardown),
        None => teardown,
    })
}

/// Tells whether a task leaves something in the staging area.
fn stages(task: &PlannedTask) -> bool {
    let Work::Move(work) = &task.spec.work else { return false };
    work.outputs.iter().any(|output| match output {
        Output::Staged { .. } => true,
        Output::Sink(sink) => sink.strategy == WriteStrategy::PartitionStaging,
    })
}

fn one_or_list(mut names: Vec<Expr>) -> Option<Expr> {
    match names.len() {
        0 => None,
        1 => names.pop(),
        _ => Some(Expr::List(names)),
    }
}
