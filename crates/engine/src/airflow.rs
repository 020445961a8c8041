//! Plans on an Apache Airflow: deployed as DAGs, triggered, and followed until they end.
//!
//! | module | what it holds |
//! |---|---|
//! | `engine` | [`AirflowEngine`] |
//! | `deployer` | brings plans to Airflow and waits until it shows them |
//! | [`deploy`] | where DAG files go: a folder, a versioned bundle, a Git repository |
//! | `following` | the run of a plan in Airflow as a pure machine |
//! | `follower` | the shell around it |
//! | `look` | what became of tries, as Airflow shows it or as it was told |
//! | `class` | what kind of failure a code means, and what may be done about it |
//! | `sweep` | removes what no DAG refers to and no run needs |
//! | [`told`] | what Airflow's events say, whichever way they come |
//! | [`watch`] | who follows which run; asks Airflow so that no end is missed |
//! | [`run_id`] | what a run that we trigger is called, and what it is given |
//! | `metrics` | what is measured |

pub(crate) mod class;
pub mod deploy;
mod deployer;
mod engine;
#[cfg(test)]
pub(crate) mod fake;
mod follower;
mod following;
mod look;
pub(crate) mod metrics;
pub mod run_id;
#[cfg(test)]
mod simulation;
mod sweep;
pub mod told;
pub mod watch;

pub use self::engine::{AirflowEngine, Settings};
