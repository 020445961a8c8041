//! Plans on an Apache Airflow: deployed as DAGs, triggered, and followed until they end.
//!
//! | module | what it holds |
//! |---|---|
//! | [`deploy`] | where DAG files go: a folder, a versioned bundle, a Git repository |
//! | [`told`] | what Airflow's events say, whichever way they come |

pub mod deploy;
pub mod told;
