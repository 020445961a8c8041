//! Says where the columns of a plan come from, and how it treats rows.

use std::collections::BTreeSet;

use datafusion::{
    common::{
        Column as PlanColumn, DFSchema, JoinType,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Distinct, Expr, LogicalPlan},
};

/// A column of a relation that a plan scans: relation, column.
pub type Origin = (String, String);

/// Where one output column comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ColumnLineage {
    /// Every column it is computed from.
    pub from: BTreeSet<Origin>,
    /// The column it is, where it is one as it stands.
    pub same_as: Option<Origin>,
}

/// How a plan treats rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// The tables it scans, each as often as it does.
    pub scans: Vec<String>,
    /// Whether each output row depends on one row of one table alone.
    pub row_local: bool,
    /// Whether it keeps rows in memory.
    pub blocking: bool,
    /// Whether it runs a part of itself again and again.
    pub recursive: bool,
}

/// Returns the shape of a plan, subqueries included.
#[must_use]
pub fn shape(plan: &LogicalPlan) -> Shape {
    let mut shape = Shape { row_local: true, ..Shape::default() };
    let visited = plan.apply_with_subqueries(|node| {
        let (local, blocking) = match node {
            LogicalPlan::TableScan(scan) => {
                shape.scans.push(scan.table_name.table().to_owned());
                (scan.fetch.is_none(), false)
            }
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Unnest(_)
            | LogicalPlan::Repartition(_) => (true, false),
            LogicalPlan::Union(_) | LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => (false, false),
            LogicalPlan::Limit(_) => (false, false),
            LogicalPlan::RecursiveQuery(_) => {
                shape.recursive = true;
                (false, true)
            }
            LogicalPlan::Window(_)
            | LogicalPlan::Aggregate(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::Distinct(_) => (false, true),
            LogicalPlan::Statement(_)
            | LogicalPlan::Explain(_)
            | LogicalPlan::Analyze(_)
            | LogicalPlan::Extension(_)
            | LogicalPlan::Dml(_)
            | LogicalPlan::Ddl(_)
            | LogicalPlan::Copy(_)
            | LogicalPlan::DescribeTable(_) => (false, true),
        };
        shape.row_local &= local;
        shape.blocking |= blocking;
        Ok(TreeNodeRecursion::Continue)
    });
    shape.row_local &= visited.is_ok() && shape.scans.len() == 1;
    shape
}

/// Returns where each output column of a plan comes from.
#[must_use]
pub fn lineage(plan: &LogicalPlan) -> Vec<ColumnLineage> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            let table = scan.table_name.table();
            let origin = |name: &String| (table.to_owned(), name.clone());
            let column = |name| ColumnLineage { from: BTreeSet::from([origin(name)]), same_as: Some(origin(name)) };
            scan.projected_schema.fields().iter().map(|field| column(field.name())).collect()
        }
        LogicalPlan::Projection(projection) => of_exprs(&projection.expr, &projection.input),
        LogicalPlan::Aggregate(aggregate) => {
            let mut columns = of_exprs(&aggregate.group_expr, &aggregate.input);
            columns.extend(of_exprs(&aggregate.aggr_expr, &aggregate.input));
            // Grouping sets add a column and turn values into NULL: then only the union of all is sure.
            if columns.len() == plan.schema().fields().len() { columns } else { blurred(plan) }
        }
        LogicalPlan::Window(window) => {
            let mut columns = lineage(&window.input);
            columns.extend(of_exprs(&window.window_expr, &window.input));
            columns
        }
        LogicalPlan::Join(join) => {
            let (left, right) = (lineage(&join.left), lineage(&join.right));
            match join.join_type {
                JoinType::LeftSemi | JoinType::LeftAnti => left,
                JoinType::RightSemi | JoinType::RightAnti => right,
                JoinType::LeftMark | JoinType::RightMark => blurred(plan),
                JoinType::Inner => [left, right].concat(),
                JoinType::Left => [left, filled(right)].concat(),
                JoinType::Right => [filled(left), right].concat(),
                JoinType::Full => [filled(left), filled(right)].concat(),
            }
        }
        LogicalPlan::Union(union) => {
            let mut columns = vec![ColumnLineage::default(); plan.schema().fields().len()];
            for input in &union.inputs {
                for (column, more) in columns.iter_mut().zip(lineage(input)) {
                    column.from.extend(more.from);
                }
            }
            columns
        }
        LogicalPlan::Distinct(Distinct::On(distinct)) => of_exprs(&distinct.select_expr, &distinct.input),
        LogicalPlan::Filter(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Limit(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::Subquery(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Distinct(Distinct::All(_)) => {
            plan.inputs().first().map(|input| lineage(input)).unwrap_or_default()
        }
        LogicalPlan::Unnest(unnest) => {
            let input = lineage(&unnest.input);
            let of = |index: &usize| input.get(*index).cloned().unwrap_or_default();
            unnest.dependency_indices.iter().map(|index| ColumnLineage { same_as: None, ..of(index) }).collect()
        }
        LogicalPlan::EmptyRelation(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::RecursiveQuery(_)
        | LogicalPlan::Statement(_)
        | LogicalPlan::Explain(_)
        | LogicalPlan::Analyze(_)
        | LogicalPlan::Extension(_)
        | LogicalPlan::Dml(_)
        | LogicalPlan::Ddl(_)
        | LogicalPlan::Copy(_)
        | LogicalPlan::DescribeTable(_) => blurred(plan),
    }
}

/// Every output column may come from every column below.
fn blurred(plan: &LogicalPlan) -> Vec<ColumnLineage> {
    let mut from = BTreeSet::new();
    for input in plan.inputs() {
        from.extend(lineage(input).into_iter().flat_map(|column| column.from));
    }
    vec![ColumnLineage { from, same_as: None }; plan.schema().fields().len()]
}

/// The side of an outer join that may be NULL: its columns are no longer what they were.
fn filled(columns: Vec<ColumnLineage>) -> Vec<ColumnLineage> {
    columns.into_iter().map(|column| ColumnLineage { same_as: None, ..column }).collect()
}

fn of_exprs(exprs: &[Expr], input: &LogicalPlan) -> Vec<ColumnLineage> {
    let below = lineage(input);
    exprs.iter().map(|expr| of_expr(expr, input.schema(), &below)).collect()
}

fn of_expr(expr: &Expr, schema: &DFSchema, below: &[ColumnLineage]) -> ColumnLineage {
    let find = |column: &PlanColumn| schema.maybe_index_of_column(column).and_then(|index| below.get(index));
    let mut inner = expr;
    while let Expr::Alias(alias) = inner {
        inner = &alias.expr;
    }
    if let Expr::Column(column) = inner {
        return find(column).cloned().unwrap_or_default();
    }
    let mut from = BTreeSet::new();
    let visited = expr.apply(|node| {
        match node {
            Expr::Column(column) => from.extend(find(column).into_iter().flat_map(|found| found.from.clone())),
            Expr::ScalarSubquery(subquery) => from.extend(all_of(&subquery.subquery)),
            Expr::Exists(exists) => from.extend(all_of(&exists.subquery.subquery)),
            Expr::InSubquery(in_subquery) => from.extend(all_of(&in_subquery.subquery.subquery)),
            Expr::SetComparison(comparison) => from.extend(all_of(&comparison.subquery.subquery)),
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor cannot fail");
    ColumnLineage { from, same_as: None }
}

fn all_of(plan: &LogicalPlan) -> BTreeSet<Origin> {
    lineage(plan).into_iter().flat_map(|column| column.from).collect()
}
