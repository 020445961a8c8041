//! Airflow 2.11: everything comes from package `airflow` itself.

use super::{Dialect, Import, python::Expr};

pub(super) fn dialect() -> Dialect {
    Dialect {
        dag: Import { module: "airflow", name: "DAG" },
        param: Import { module: "airflow.models.param", name: "Param" },
        timetable: Import { module: "airflow.timetables.interval", name: "CronDataIntervalTimetable" },
        // None, and nothing like it for runs that are triggered: they end at `dagrun_timeout`.
        deadline: None,
        asset: Import { module: "airflow.datasets", name: "Dataset" },
        // A switch; its factor is always 2.
        retry_exponential_backoff: (Expr::Bool(true), None),
    }
}
