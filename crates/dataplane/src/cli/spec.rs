//! Reads a spec: from a file, or from standard input.

use dagwright_dataplane::{
    error::{Error, Result},
    run::cancelled,
};
use dagwright_model::code::Code;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio_util::sync::CancellationToken;

use super::stop;

/// The largest spec read; a plan's task is a small part of this.
const SPEC_BYTES_MAX: u64 = 64 << 20;

/// Where a spec comes from.
pub(super) struct SpecSource;

// === impl SpecSource ===

impl SpecSource {
    /// Reads the spec's text and, with a lease, starts to watch standard input for its end.
    ///
    /// With `-` and a lease the spec is the first line of standard input; the lease lasts until the input ends.
    pub(super) async fn open(spec: &str, lease: bool, cancel: &CancellationToken) -> Result<String> {
        let mut stdin = BufReader::new(tokio::io::stdin());
        let read = async {
            match (spec, lease) {
                ("-", true) => read(&mut stdin, true).await,
                ("-", false) => read(&mut stdin, false).await,
                (path, _) => {
                    let file = tokio::fs::File::open(path).await;
                    read(&mut BufReader::new(file.map_err(|error| unreadable(&error))?), false).await
                }
            }
        };
        let text = tokio::select! {
            text = read => text?,
            () = cancel.cancelled() => return Err(cancelled("spec")),
        };
        if lease {
            stop::on_end_of(stdin, cancel);
        }
        Ok(text)
    }
}

async fn read(input: &mut (impl AsyncBufRead + Unpin), line: bool) -> Result<String> {
    let mut text = String::new();
    let mut bounded = input.take(SPEC_BYTES_MAX + 1);
    let read = if line { bounded.read_line(&mut text).await } else { bounded.read_to_string(&mut text).await };
    read.map_err(|error| unreadable(&error))?;
    if text.len() as u64 > SPEC_BYTES_MAX {
        return Err(Error::new(
            Code::TaskSpecInvalid,
            "spec",
            format!("the spec is longer than {SPEC_BYTES_MAX} bytes"),
            "give the spec of one task",
        ));
    }
    Ok(text)
}

fn unreadable(error: &std::io::Error) -> Error {
    Error::new(
        Code::TaskSpecInvalid,
        "spec",
        format!("the spec could not be read: {error}"),
        "give a readable file, or - for standard input",
    )
}
