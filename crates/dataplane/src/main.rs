//! The binary `dagwright-task`: one task in a process of its own.
//!
//! It reads a spec, writes JSON lines on standard output and logs on standard error, and exits with a code that says
//! whether to try again. In its environment it finds connections (`DAGWRIGHT_CONN_<NAME>`), the folder that relative paths
//! start from (`DAGWRIGHT_BASE`), the trace that it goes on with (`TRACEPARENT`) and where spans go
//! (`OTEL_EXPORTER_OTLP_ENDPOINT`); all but the connections of its task are optional. Whoever started it may end it: by a signal, by closing a pipe, or by dying.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
