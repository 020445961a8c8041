//! The PostgreSQL connector against a real server, which is started once for this binary and ends with it.

mod harness;
mod sink_faults;
mod sink_modes;
mod source;
mod staged;
mod systems;
mod tls;
mod types;
