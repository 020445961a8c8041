//! How metrics are defined, how a trace goes on, where both are sent, and how a log tells of errors.
//!
//! | module | what it holds |
//! |---|---|
//! | [`chain`] | an error with what caused it |
//! | [`metric`] | what a metric is: a row of a table, from which its instrument and `docs/metrics.md` are made |
//! | [`trace`] | W3C trace contexts: taken from a request, handed to a process |
//! | [`export`] | the SDK, and OTLP over HTTP (feature `export`, for programs) |
//!
//! Libraries measure through OpenTelemetry's API, which does nothing until a program installs a provider. A program does
//! so before anything else, since instruments belong to the provider that was there when they were made.

pub mod chain;
#[cfg(feature = "export")]
pub mod export;
pub mod metric;
pub mod trace;
