//! What waits for a person to approve it, for those who ask people elsewhere.

use dagwright_model::{
    id::{PlanHash, RequestId},
    record::{Record, RecordBody},
    setback::DriftKind,
    spec::SchemaChange,
};
use dagwright_store::{Error as StoreError, RequestState};

use super::{Refused, Service, blocking};

/// A request whose plan waits for approval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The request.
    pub request: RequestId,
    /// Its pipeline's `dag_id`.
    pub pipeline: String,
    /// The plan.
    pub plan: PlanHash,
    /// The gravest schema change that it makes to a sink.
    pub schema_change: SchemaChange,
    /// The gravest change of what its pipeline reads or writes since the earlier version of the plan, where it waits for that.
    pub drift: Option<DriftKind>,
}

impl Service {
    /// Returns what waits for approval, of pipelines that this process acts for.
    ///
    /// # Errors
    /// [`Refused::Store`] when the ledger cannot be read.
    pub async fn waiting(&self) -> Result<Vec<Waiting>, Refused> {
        let open = self.open().await?;
        let register = self.shared.resources.register.clone();
        let found = blocking(move || {
            let mut found = Vec::new();
            for summary in open.into_iter().filter(|summary| summary.state == RequestState::AwaitingApproval) {
                let Some(hash) = summary.plan.filter(|_| register.acts_for(&summary.pipeline)) else { continue };
                if let Some(plan) = register.plan(&hash)? {
                    let drift = drift(&register.read(&summary.request, 0)?);
                    found.push(Waiting {
                        request: summary.request,
                        pipeline: summary.pipeline,
                        plan: hash,
                        schema_change: plan.schema_change,
                        drift,
                    });
                }
            }
            Ok::<_, StoreError>(found)
        });
        found.await.map_err(|error| self.shared.refused(error))
    }

    /// Tells whether a request waits with a plan; `None` where nothing is known of it.
    ///
    /// # Errors
    /// [`Refused::Store`] when the ledger cannot be read.
    pub async fn waits_with(&self, request: &RequestId, plan: &PlanHash) -> Result<Option<bool>, Refused> {
        let known = self.summary(request).await?;
        Ok(known.map(|known| known.state == RequestState::AwaitingApproval && known.plan.as_ref() == Some(plan)))
    }
}

/// Returns the gravest change for which a request was last said to wait.
fn drift(records: &[Record]) -> Option<DriftKind> {
    let needed = records.iter().rev().find_map(|record| match &record.body {
        RecordBody::ApprovalNeeded(needed) => Some(needed),
        _ => None,
    });
    needed?.drift.iter().map(|drift| drift.change).max()
}
