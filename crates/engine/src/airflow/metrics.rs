//! What is measured of Airflow.

use std::{sync::LazyLock, time::Duration};

use dagwright_model::code::Code;
use dagwright_telemetry::metric::{Appears, Label, Metric, SLOW_SECONDS};
use opentelemetry::{
    KeyValue, global,
    metrics::{Counter, Histogram},
};

const RESULT: Label = Label::of("result", &["visible", "unchanged", "refused"]);
const CODE: Label = Label::few("code", "the codes of [errors](errors/)");

const DEPLOY_SECONDS: Metric = Metric::histogram(
    "dagwright_deploy_to_visible_seconds",
    "s",
    SLOW_SECONDS,
    "a DAG was first deployed to Airflow",
    "How long it took from a plan to a DAG that Airflow shows, or refuses.",
)
.labels(&[RESULT]);
const RECONCILED: Metric =
    Metric::counter("dagwright_airflow_reconciliations_total", "{page}", "Pages of runs that Airflow was asked for.");
const RECONCILIATION_FAILURES: Metric = Metric::counter(
    "dagwright_airflow_reconciliation_failures_total",
    "{page}",
    "Times that Airflow did not say how its runs are.",
)
.labels(&[CODE])
.appears(Appears::After("Airflow first did not answer"));

/// Every metric of this module.
pub(crate) const TABLE: [Metric; 3] = [DEPLOY_SECONDS, RECONCILED, RECONCILIATION_FAILURES];

struct Instruments {
    deploy_seconds: Histogram<f64>,
    reconciled: Counter<u64>,
    reconciliation_failures: Counter<u64>,
}

static INSTRUMENTS: LazyLock<Instruments> = LazyLock::new(|| {
    let meter = global::meter("dagwright-engine");
    Instruments {
        deploy_seconds: DEPLOY_SECONDS.to_histogram(&meter),
        reconciled: RECONCILED.to_counter(&meter),
        reconciliation_failures: RECONCILIATION_FAILURES.to_counter(&meter),
    }
});

/// What a deployment came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deployment {
    /// Airflow shows the DAG.
    Visible,
    /// It showed it before.
    Unchanged,
    /// It will not.
    Refused,
}

/// Makes every series that can be there from the start.
pub(crate) fn prepare() {
    LazyLock::force(&INSTRUMENTS);
}

pub(crate) fn deployed(what: Deployment, elapsed: Duration) {
    let result = match what {
        Deployment::Visible => "visible",
        Deployment::Unchanged => "unchanged",
        Deployment::Refused => "refused",
    };
    INSTRUMENTS.deploy_seconds.record(elapsed.as_secs_f64(), &[KeyValue::new(RESULT.name, result)]);
}

pub(crate) fn reconciled() {
    INSTRUMENTS.reconciled.add(1, &[]);
}

pub(crate) fn reconciliation_failed(code: Code) {
    INSTRUMENTS.reconciliation_failures.add(1, &[KeyValue::new(CODE.name, code.to_string())]);
}
