//! Judges quality gates while rows stream by.
//!
//! `not_null` and `check` look at each row; NULL counts as true, as in a CHECK constraint. `unique` keeps the keys
//! aside and counts repeats at the end; a key with a NULL in it repeats none, as in a UNIQUE constraint. Every gate
//! sees every row of its relation, and verdicts fall before anything becomes visible.

mod unique;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    buffer::BooleanBuffer,
    compute::filter_record_batch,
};
use dagwright_model::{
    code::Code,
    id::Name,
    schema::Column,
    spec::{GateRule, OnFail, ParamType, QualityGate},
    task::Problem,
};
use datafusion::{
    common::{
        DFSchemaRef, ScalarValue,
        tree_node::{TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, ExprSchemable, LogicalPlan},
    physical_expr::PhysicalExpr,
};
use futures::{StreamExt, TryStreamExt};

use crate::{
    cast::row_values,
    connectors::BatchStream,
    error::{Error, Result},
    gates::unique::Keys,
    storage::Folder,
    tally::{Reject, Rejects},
    transform::{Session, failure::run_failure, relation::Relation, sql::quoted},
};

/// The gates of one relation.
pub struct Gates {
    relation: Arc<Relation>,
    rules: Vec<Rule>,
    rejects: Rejects,
}

/// What came of the gates of a relation.
#[derive(Debug, Default)]
pub struct Verdicts {
    /// Rows that broke each gate.
    pub broken: BTreeMap<Name, u64>,
    /// What a person should know though nothing failed.
    pub warnings: Vec<Problem>,
    /// Why the task fails: the first gate that failed.
    pub failure: Option<Error>,
}

struct Rule {
    gate: QualityGate,
    check: Check,
    broken: AtomicU64,
}

enum Check {
    NotNull(Vec<usize>),
    Holds(Arc<dyn PhysicalExpr>),
    Unique(Box<Keys>),
}

// === impl Gates ===

impl Gates {
    /// Prepares the gates of a relation; `temp` takes the keys of `unique` gates that memory does not.
    ///
    /// # Errors
    /// DW0501 when a gate does not plan.
    pub async fn new(
        session: &Session,
        relation: &Arc<Relation>,
        gates: &[QualityGate],
        binds: (&BTreeMap<String, ParamType>, &HashMap<String, ScalarValue>),
        rejects: Rejects,
        temp: &Folder,
    ) -> Result<Self> {
        let mut rules = Vec::new();
        for gate in gates {
            let check = match &gate.rule {
                GateRule::NotNull(columns) => Check::NotNull(positions(&gate.name, &relation.columns, columns)?),
                GateRule::Unique(columns) => {
                    let positions = positions(&gate.name, &relation.columns, columns)?;
                    Check::Unique(Box::new(Keys::new(session, &gate.name, relation, positions, temp)?))
                }
                GateRule::Check(text) => {
                    let plan = check_plan(session, &gate.name, &relation.name, text, binds.0).await?;
                    let plan = Session::bind(&gate.name, plan, binds.1)?;
                    let (expr, schema) = expression(&gate.name, plan)?;
                    let physical = session.context().state().create_physical_expr(expr, &schema);
                    Check::Holds(physical.map_err(|error| invalid(&gate.name, &error.strip_backtrace()))?)
                }
            };
            rules.push(Rule { gate: gate.clone(), check, broken: AtomicU64::default() });
        }
        Ok(Self { relation: relation.clone(), rules, rejects })
    }

    /// Tells whether there is nothing to judge.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Judges the rows of a stream as they pass; quarantined ones leave it.
    #[must_use]
    pub fn judge_stream(self: &Arc<Self>, stream: BatchStream) -> BatchStream {
        let gates = self.clone();
        stream
            .and_then(move |batch| {
                let gates = gates.clone();
                async move { gates.judge(batch).await }
            })
            .boxed()
    }

    async fn judge(&self, batch: RecordBatch) -> Result<RecordBatch> {
        let mut rejecting: Vec<(&QualityGate, BooleanBuffer)> = Vec::new();
        for rule in &self.rules {
            let broken = match &rule.check {
                Check::NotNull(columns) => BooleanBuffer::collect_bool(batch.num_rows(), |row| {
                    columns.iter().any(|column| batch.column(*column).is_null(row))
                }),
                Check::Holds(expr) => self.not_true(expr, &batch)?,
                Check::Unique(_) => continue,
            };
            let count = broken.count_set_bits() as u64;
            rule.broken.fetch_add(count, Relaxed);
            if count > 0 && rule.gate.on_fail == OnFail::Quarantine {
                rejecting.push((&rule.gate, broken));
            }
        }
        let batch = if rejecting.is_empty() { batch } else { self.reject(&batch, &rejecting).await? };
        for rule in &self.rules {
            if let Check::Unique(keys) = &rule.check {
                keys.take(&batch).await?;
            }
        }
        Ok(batch)
    }

    fn not_true(&self, expr: &Arc<dyn PhysicalExpr>, batch: &RecordBatch) -> Result<BooleanBuffer> {
        let evaluated = expr.evaluate(batch).and_then(|value| value.into_array(batch.num_rows()));
        let array = evaluated.map_err(|error| run_failure(self.relation.name.as_str(), &error))?;
        let holds = array.as_boolean();
        Ok(BooleanBuffer::collect_bool(holds.len(), |row| holds.is_valid(row) && !holds.value(row)))
    }

    async fn reject(&self, batch: &RecordBatch, rejecting: &[(&QualityGate, BooleanBuffer)]) -> Result<RecordBatch> {
        let rejected =
            BooleanBuffer::collect_bool(batch.num_rows(), |row| rejecting.iter().any(|(_, broken)| broken.value(row)));
        for row in rejected.set_indices() {
            let why: Vec<String> = rejecting
                .iter()
                .filter(|(_, broken)| broken.value(row))
                .map(|(gate, _)| format!("gate {}", gate.name))
                .collect();
            let reject = Reject {
                relation: self.relation.name.clone(),
                reason: why.join("; "),
                position: None,
                values: row_values(batch, row, &self.relation.schema, &self.relation.classified),
            };
            self.rejects
                .send(reject)
                .await
                .map_err(|error| crate::storage::unusable("rejected rows could not be kept").caused_by(error))?;
        }
        self.relation.rejected.fetch_add(rejected.count_set_bits() as u64, Relaxed);
        let keep = BooleanArray::new(!&rejected, None);
        filter_record_batch(batch, &keep).map_err(|error| run_failure(self.relation.name.as_str(), &error.into()))
    }

    /// Says what came of the gates, once every row has passed.
    ///
    /// # Errors
    /// Whatever counting repeated keys meets.
    pub async fn verdicts(&self, session: &Session, rows: u64) -> Result<Verdicts> {
        let mut verdicts = Verdicts::default();
        for rule in &self.rules {
            let broken = match &rule.check {
                Check::Unique(keys) => keys.repeats(session).await?,
                Check::NotNull(_) | Check::Holds(_) => rule.broken.load(Relaxed),
            };
            verdicts.broken.insert(rule.gate.name.clone(), broken);
            if broken == 0 {
                continue;
            }
            let gate = &rule.gate;
            let message = format!("{broken} of {rows} rows of {} break it", self.relation.name);
            match gate.on_fail {
                OnFail::Warn => verdicts.warnings.push(Problem {
                    code: Code::GateFailed,
                    subject: gate.name.to_string(),
                    message,
                    hint: "they are loaded all the same; on_fail: quarantine keeps them out".into(),
                }),
                OnFail::Fail => fail_first(&mut verdicts, || {
                    Error::new(
                        Code::GateFailed,
                        gate.name.as_str(),
                        message,
                        "mend the rows at their origin or in a step, or let the gate warn or quarantine",
                    )
                }),
                OnFail::Quarantine if broken > gate.max_rejected.of(rows) => fail_first(&mut verdicts, || {
                    Error::new(
                        Code::QuarantineFull,
                        gate.name.as_str(),
                        format!("{message}, more than its max_rejected of {}", gate.max_rejected),
                        "look at the rows in the quarantine; mend them, or raise max_rejected",
                    )
                }),
                OnFail::Quarantine => {}
            }
        }
        Ok(verdicts)
    }
}

fn fail_first(verdicts: &mut Verdicts, failure: impl FnOnce() -> Error) {
    verdicts.failure.get_or_insert_with(failure);
}

/// Checks that a gate plans over its relation.
///
/// # Errors
/// DW0501 with the reason.
pub async fn check_rule(
    session: &Session,
    gate: &Name,
    on: &Name,
    columns: &[Column],
    rule: &GateRule,
    binds: &BTreeMap<String, ParamType>,
) -> Result<()> {
    match rule {
        GateRule::NotNull(names) | GateRule::Unique(names) => positions(gate, columns, names).map(drop),
        GateRule::Check(text) => {
            let plan = check_plan(session, gate, on, text, binds).await?;
            let optimised = session.context().state().optimize(&plan);
            optimised.map_err(|error| invalid(gate, &error.strip_backtrace()))?;
            expression(gate, plan).map(drop)
        }
    }
}

/// Returns the plan of what a gate reads of its relation.
///
/// # Errors
/// DW0501 with the reason.
pub async fn rule_plan(
    session: &Session,
    gate: &Name,
    on: &Name,
    columns: &[Column],
    rule: &GateRule,
    binds: &BTreeMap<String, ParamType>,
) -> Result<LogicalPlan> {
    match rule {
        GateRule::NotNull(names) | GateRule::Unique(names) => {
            positions(gate, columns, names)?;
            let list = names.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", ");
            let sql = format!("SELECT {list} FROM {}", quoted(on.as_str()));
            let planned = session.plan_select(&sql, binds).await;
            planned.map(|(plan, _)| plan).map_err(|reason| invalid(gate, &reason))
        }
        GateRule::Check(text) => check_plan(session, gate, on, text, binds).await,
    }
}

async fn check_plan(
    session: &Session,
    gate: &Name,
    on: &Name,
    text: &str,
    binds: &BTreeMap<String, ParamType>,
) -> Result<LogicalPlan> {
    // On lines of its own, so that a comment in it ends with it.
    let sql = format!("SELECT (\n{text}\n) AS holds FROM {}", quoted(on.as_str()));
    session.plan_select(&sql, binds).await.map(|(plan, _)| plan).map_err(|reason| invalid(gate, &reason))
}

/// Takes the one expression out of a check's plan; anything but that was smuggled in.
fn expression(gate: &Name, plan: LogicalPlan) -> Result<(Expr, DFSchemaRef)> {
    let one = || invalid(gate, "a check is one expression over the columns of its relation");
    let LogicalPlan::Projection(projection) = plan else { return Err(one()) };
    if !matches!(*projection.input, LogicalPlan::TableScan(_)) {
        return Err(one());
    }
    let [expr] = &projection.expr[..] else { return Err(one()) };
    let expr = match expr {
        Expr::Alias(alias) => alias.expr.as_ref().clone(),
        other => other.clone(),
    };
    let mut subquery = false;
    let visited = expr.apply(|node| {
        subquery |=
            matches!(node, Expr::ScalarSubquery(_) | Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_));
        Ok(TreeNodeRecursion::Continue)
    });
    if visited.is_err() || subquery {
        return Err(one());
    }
    let schema = projection.input.schema().clone();
    let data_type = expr.get_type(&schema).map_err(|error| invalid(gate, &error.strip_backtrace()))?;
    if data_type != arrow::datatypes::DataType::Boolean {
        return Err(invalid(gate, &format!("a check is true or false, this is {data_type}")));
    }
    Ok((expr, schema))
}

fn positions(gate: &Name, columns: &[Column], names: &[String]) -> Result<Vec<usize>> {
    names
        .iter()
        .map(|name| {
            let found = columns.iter().position(|column| column.name == *name);
            found.ok_or_else(|| invalid(gate, &format!("there is no column {name:?} in what it judges")))
        })
        .collect()
}

fn invalid(gate: &Name, reason: &str) -> Error {
    Error::new(
        Code::SqlInvalid,
        gate.as_str(),
        format!("the gate does not plan: {reason}"),
        "correct the gate; it sees the columns of the source or step it is on",
    )
}
