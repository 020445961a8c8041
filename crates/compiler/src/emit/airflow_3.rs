//! Airflow 3.x: DAGs are written against `airflow.sdk`, and where its versions differ, against our package.

use super::{Dialect, Import, python::Expr};

/// The module of our package with what 3.x has in several places or forms.
const AUTHORING: &str = "dagwright_airflow.authoring";

pub(super) fn dialect() -> Dialect {
    let backoff = "RETRY_EXPONENTIAL_BACKOFF";
    Dialect {
        dag: Import { module: "airflow.sdk", name: "DAG" },
        param: Import { module: "airflow.sdk", name: "Param" },
        // In 3.0 and 3.1 `airflow.sdk` has it not.
        timetable: Import { module: AUTHORING, name: "CronDataIntervalTimetable" },
        asset: Import { module: "airflow.sdk", name: "Asset" },
        // 3.0 has none, and later ones have it in several places.
        deadline: Some(Import { module: AUTHORING, name: "deadline" }),
        // A switch in 3.0 and 3.1, which take nothing else; then the factor itself, where `True` would never back off.
        retry_exponential_backoff: (Expr::name(backoff), Some(Import { module: AUTHORING, name: backoff })),
    }
}
