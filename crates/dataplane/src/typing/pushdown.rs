//! Finds what steps, gates and sinks need of each source: columns, and predicates that rows must meet.
//!
//! Steps are planned as views into what consumes them, so that DataFusion's optimiser carries needs down to the
//! sources. Narrowing must not change a meaning (`SELECT *` in the middle, `ORDER BY 2`), so the optimised plans over
//! the narrowed sources are compared with those over the whole ones; where they differ, everything is read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use dagwright_model::{
    facts::{Pushdown, TypingRequest},
    id::Name,
    schema::Column,
};
use datafusion::{
    common::{
        Column as PlanColumn,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, LogicalPlan, Operator},
    sql::unparser::expr_to_sql,
};

use super::{plan_steps, session_over, table::TypingTable};
use crate::{error::Result, gates, transform::Session};

/// How often columns that a narrowed plan turns out to miss are added before everything is read.
const REPAIRS_MAX: usize = 64;

/// What the optimised plans scan of a source.
#[derive(Default)]
struct Scans {
    columns: BTreeSet<String>,
    /// The predicates that every scan has; `None` before the first.
    filters: Option<BTreeSet<String>>,
}

/// Finds what is needed of each source.
pub(super) async fn needed(request: &TypingRequest) -> Result<BTreeMap<Name, Pushdown>> {
    let whole = optimised_roots(request).await?;
    let mut scans: BTreeMap<Name, Scans> = BTreeMap::new();
    for plan in &whole {
        collect(plan, &request.sources, &mut scans);
    }
    let mut needs = BTreeMap::new();
    for (name, columns) in &request.sources {
        let found = scans.remove(name);
        let used = found.is_some();
        let found = found.unwrap_or_default();
        let mut wanted = found.columns;
        wanted.extend(request.incremental.get(name).map(|incremental| incremental.cursor.clone()));
        if let (true, true, Some(first)) = (used, wanted.is_empty(), columns.first()) {
            // Rows are counted: something of them must be read.
            wanted.insert(first.name.clone());
        }
        let columns = in_order(columns, &wanted);
        let filters = found.filters.unwrap_or_default().into_iter().collect();
        needs.insert(name.clone(), Pushdown { columns, filters });
    }
    repair(request, &mut needs, &whole).await;
    Ok(needs)
}

/// Adds what the narrowed steps miss; where that does not help, everything is needed.
async fn repair(request: &TypingRequest, needs: &mut BTreeMap<Name, Pushdown>, whole: &[LogicalPlan]) {
    for _ in 0..REPAIRS_MAX {
        let narrowed = super::narrowed(request, needs);
        let failure = match plan_steps(&narrowed).await {
            Ok(_) => match optimised_roots(&narrowed).await {
                Ok(plans) if same(&plans, whole) => return,
                Ok(_) => break,
                Err(error) => error,
            },
            Err(error) => error,
        };
        let Some(missing) = missing_column(&failure.problem.message) else { break };
        let mut added = false;
        for (name, columns) in &request.sources {
            let Some(need) = needs.get_mut(name) else { continue };
            if columns.iter().any(|column| column.name == missing) && !need.columns.contains(&missing) {
                let wanted = need.columns.iter().cloned().chain([missing.clone()]).collect();
                need.columns = in_order(columns, &wanted);
                added = true;
            }
        }
        if !added {
            break;
        }
    }
    for (name, columns) in &request.sources {
        if let Some(need) = needs.get_mut(name) {
            need.columns = columns.iter().map(|column| column.name.clone()).collect();
        }
    }
}

/// DataFusion names a missing column as `No field named t.x.` or `No field named x. Valid fields are …`.
fn missing_column(message: &str) -> Option<String> {
    let rest = message.split_once("No field named ")?.1;
    let quoted = rest.trim_start_matches(|character: char| character != '"');
    let plain =
        rest.split(|character: char| character.is_whitespace() || character == ',').next()?.trim_end_matches('.');
    let name = if plain.contains('"') { quoted.split('"').nth(1)? } else { plain.rsplit('.').next()? };
    Some(name.to_owned())
}

fn in_order(columns: &[Column], wanted: &BTreeSet<String>) -> Vec<String> {
    columns.iter().map(|column| column.name.clone()).filter(|name| wanted.contains(name)).collect()
}

/// Compares plans by everything but which columns scans leave out.
fn same(narrowed: &[LogicalPlan], whole: &[LogicalPlan]) -> bool {
    let text = |plans: &[LogicalPlan]| {
        let lines = plans.iter().flat_map(|plan| {
            let text = plan.display_indent().to_string();
            text.lines().map(without_projection).collect::<Vec<_>>()
        });
        lines.collect::<Vec<_>>()
    };
    text(narrowed) == text(whole)
}

fn without_projection(line: &str) -> String {
    match line.split_once(" projection=[") {
        Some((before, after)) => format!("{before}{}", after.split_once(']').map_or("", |(_, rest)| rest)),
        None => line.to_owned(),
    }
}

/// Plans what sinks and gates read, with all steps inlined, and optimises it.
async fn optimised_roots(request: &TypingRequest) -> Result<Vec<LogicalPlan>> {
    let session = session_over(&request.sources)?;
    let mut relations = request.sources.clone();
    for step in &request.steps {
        let planned = session.plan_step(step, &request.binds).await?;
        session.register_table(&step.name, Arc::new(TypingTable::view(&planned.columns, planned.plan)))?;
        relations.insert(step.name.clone(), planned.columns);
    }
    let mut roots = Vec::new();
    for output in &request.outputs {
        roots.push(whole_relation(&session, output).await?);
    }
    for (gate, on, rule) in &request.gates {
        let columns = relations.get(on).map(Vec::as_slice).unwrap_or_default();
        roots.push(gates::rule_plan(&session, gate, on, columns, rule, &request.binds).await?);
    }
    let state = session.context().state();
    let optimise = |plan: &LogicalPlan| {
        state.optimize(plan).map_err(|error| crate::transform::invalid_sql("transform", &error.strip_backtrace()))
    };
    roots.iter().map(optimise).collect()
}

async fn whole_relation(session: &Session, relation: &Name) -> Result<LogicalPlan> {
    let sql = format!("SELECT * FROM {}", crate::transform::sql::quoted(relation.as_str()));
    let planned = session.plan_select(&sql, &BTreeMap::new()).await;
    planned.map(|(plan, _)| plan).map_err(|reason| crate::transform::invalid_sql(relation.as_str(), &reason))
}

fn collect(plan: &LogicalPlan, sources: &BTreeMap<Name, Vec<Column>>, scans: &mut BTreeMap<Name, Scans>) {
    let visited = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(name) = sources.keys().find(|name| name.as_str() == scan.table_name.table())
        {
            let found = scans.entry(name.clone()).or_default();
            found.columns.extend(scan.projected_schema.fields().iter().map(|field| field.name().clone()));
            // A filter that a connector does not apply is applied above the scan: its columns are needed there.
            found.columns.extend(scan.filters.iter().flat_map(Expr::column_refs).map(|column| column.name.clone()));
            let filters: BTreeSet<String> = scan.filters.iter().filter_map(pushable).collect();
            found.filters = Some(match found.filters.take() {
                Some(known) => known.intersection(&filters).cloned().collect(),
                None => filters,
            });
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor cannot fail");
}

/// Returns a predicate as SQL over unqualified columns, if every connector can be asked to understand it and it
/// cannot fail on any row.
fn pushable(filter: &Expr) -> Option<String> {
    if !is_plain(filter) {
        return None;
    }
    let bare = filter.clone().transform(|expr| {
        Ok(match expr {
            Expr::Column(column) => Transformed::yes(Expr::Column(PlanColumn::new_unqualified(column.name))),
            other => Transformed::no(other),
        })
    });
    expr_to_sql(&bare.ok()?.data).ok().map(|sql| sql.to_string())
}

fn is_plain(expr: &Expr) -> bool {
    let operand = |expr: &Expr| matches!(expr, Expr::Column(_) | Expr::Literal(..));
    match expr {
        Expr::Column(_) => true,
        Expr::Not(inner) => is_plain(inner),
        Expr::IsNull(inner)
        | Expr::IsNotNull(inner)
        | Expr::IsTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsNotFalse(inner) => operand(inner),
        Expr::Between(between) => operand(&between.expr) && operand(&between.low) && operand(&between.high),
        Expr::InList(list) => operand(&list.expr) && list.list.iter().all(operand),
        Expr::BinaryExpr(binary) => match binary.op {
            Operator::And | Operator::Or => is_plain(&binary.left) && is_plain(&binary.right),
            Operator::Eq | Operator::NotEq | Operator::Lt | Operator::LtEq | Operator::Gt | Operator::GtEq => {
                operand(&binary.left) && operand(&binary.right)
            }
            _ => false,
        },
        _ => false,
    }
}
