//! Kafka as the bus of many processes: over librdkafka's mock cluster where errors are injected, over a real broker where
//! it matters what a broker does.
//!
//! Needs what `tests/scripts/tools.sh kafka` installs; the broker ends with this process.

mod agents;
mod dangling;
mod failover;
mod harness;
mod ledger;
mod lengths;
mod listener;
mod mock;
mod routes;
mod topics;
