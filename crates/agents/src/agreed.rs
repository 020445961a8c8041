//! A plan that was agreed on, with what follows from it alone: its hash, and what it compiles to.
//!
//! Both are needed again and again, and neither ever changes, so each is worked out once for all who hold the plan.

use std::sync::{Arc, OnceLock};

use dagwright_compiler::{Target, compile};
use dagwright_model::{canonical, id::PlanHash, plan::Plan, record::DagCompiled};

/// A plan that was agreed on.
#[derive(Debug)]
pub(crate) struct Agreed {
    plan: Arc<Plan>,
    hash: PlanHash,
    compiled: OnceLock<Vec<DagCompiled>>,
}

// === impl Agreed ===

impl Agreed {
    pub(crate) fn new(plan: Plan) -> Self {
        Self { hash: plan.hash(), plan: Arc::new(plan), compiled: OnceLock::new() }
    }

    pub(crate) fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    pub(crate) fn hash(&self) -> &PlanHash {
        &self.hash
    }

    /// Compiles the plan for every target: proof that it compiles, and the hashes of what would be deployed.
    pub(crate) fn compiled(&self) -> &[DagCompiled] {
        self.compiled.get_or_init(|| Target::ALL.iter().filter_map(|target| self.compile(*target)).collect())
    }

    fn compile(&self, target: Target) -> Option<DagCompiled> {
        let dag = compile(&self.plan, target).into_iter().next()?;
        Some(DagCompiled {
            plan_hash: self.hash.clone(),
            target: target.to_string(),
            file_hash: canonical::hash_bytes(&dag.bytes),
            file: dag.name,
        })
    }
}
