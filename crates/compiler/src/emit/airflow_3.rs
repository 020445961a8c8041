//! Airflow 3.x: DAGs are written against `airflow.sdk`.

use super::{Dialect, Import, python::Expr};

pub(super) fn dialect() -> Dialect {
    Dialect {
        dag: Import { module: "airflow.sdk", name: "DAG" },
        param: Import { module: "airflow.sdk", name: "Param" },
        timetable: Import { module: "airflow.sdk", name: "CronDataIntervalTimetable" },
        // The factor itself; `True` would count as 1 and never back off.
        retry_exponential_backoff: Expr::Int(2),
    }
}
