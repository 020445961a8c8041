//! The binary `dagwright-task`: one task in a process of its own.
//!
//! It reads a spec, writes JSON lines on standard output and logs on standard error, and exits with a code that says
//! whether to try again. Whoever started it may end it: by a signal, by closing a pipe, or by dying.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
