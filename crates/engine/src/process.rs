//! One try of a task as a child process on a lease.
//!
//! The child's standard input is its lease: the first line is the task, and its end tells the child to stop, also
//! when this process is killed. A child that does not stop within the grace period is killed. Children stand in
//! process groups of their own, so a Ctrl-C on the terminal reaches the engine alone, which then ends the leases.
//!
//! Nothing a child says or does can take more than bounded memory here.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    io,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use dagwright_model::task::Outcome;
use dagwright_telemetry::trace;
use dagwright_wire::jsonl::Decoder;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, Command},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::{
    event::Voice,
    launch::{Finished, Launch, Order},
    verdict::{self, Exit},
};

/// What follows the task command.
const ARGUMENTS: [&str; 4] = ["run", "--spec", "-", "--lease-stdin"];

/// How much of a task's log is kept: a few hundred lines.
const TAIL_BYTES_MAX: usize = 16 << 10;

/// How long the pipes of an ended process are read; only a grandchild can keep them open.
const DRAIN: Duration = Duration::from_secs(2);

const CHUNK_BYTES: usize = 64 << 10;

/// Starts `dagwright-task` processes.
#[derive(Debug)]
pub(crate) struct Processes {
    pub(crate) program: PathBuf,
    pub(crate) arguments: Vec<OsString>,
    pub(crate) environment: BTreeMap<OsString, OsString>,
    pub(crate) grace: Duration,
}

/// The last bytes of a log.
#[derive(Debug, Default)]
struct Tail {
    bytes: VecDeque<u8>,
    cut: bool,
}

// === impl Processes ===

#[async_trait]
impl Launch for Processes {
    async fn launch(&self, order: Order, stop: CancellationToken, mut voice: Voice) -> Finished {
        let began = Instant::now();
        let task = order.task.task.id.clone();
        let mut child = match self.spawn(&order) {
            Ok(child) => child,
            Err(error) => {
                let outcome = verdict::unstarted(&task, &self.program, &error);
                return Finished::without_process(outcome);
            }
        };
        let mut line = serde_json::to_vec(&order.task).unwrap_or_default();
        line.push(b'\n');
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (mut said, mut tail) = (None, Tail::default());
        let gone = CancellationToken::new();

        let streams = async { tokio::join!(listen(stdout, &mut voice, &mut said), keep(stderr, &mut tail)) };
        let drained = async {
            tokio::select! {
                ((), ()) = streams => {}
                () = async { gone.cancelled().await; sleep(DRAIN).await } => {}
            }
        };
        let life = async {
            let exit = self.outlive(&mut child, hold(stdin, line, stop)).await;
            gone.cancel();
            exit
        };
        let (exit, ()) = tokio::join!(life, drained);

        let elapsed_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let outcome = verdict::judge(&task, said, exit, elapsed_ms);
        Finished { outcome, warnings: voice.into_warnings(), log_tail: tail.into_text() }
    }
}

impl Processes {
    fn spawn(&self, order: &Order) -> io::Result<Child> {
        Command::new(&self.program)
            .args(&self.arguments)
            .args(ARGUMENTS)
            .env_clear()
            .envs(&self.environment)
            .envs(order.connections.iter().map(|(variable, url)| (variable, url)))
            .envs(trace::of(&Span::current()).map(|context| (trace::VARIABLE, context)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Waits for the child's end; once the lease is over, only for the grace period.
    async fn outlive(&self, child: &mut Child, lease: impl Future<Output = ()>) -> Exit {
        let ended = tokio::select! {
            status = child.wait() => Some(status),
            () = lease => None,
        };
        if let Some(status) = ended {
            return status.into();
        }
        if let Ok(status) = timeout(self.grace, child.wait()).await {
            return status.into();
        }
        // The child was not waited for yet, so its id still is its own.
        if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
            let _ = killpg(Pid::from_raw(id), Signal::SIGKILL);
        }
        child.wait().await.into()
    }
}

/// Hands over the task, and holds the lease until `stop`. A child that does not read is noticed by its end.
async fn hold(stdin: Option<ChildStdin>, line: Vec<u8>, stop: CancellationToken) {
    let Some(mut stdin) = stdin else { return };
    tokio::select! {
        _ = stdin.write_all(&line) => {}
        () = stop.cancelled() => return,
    }
    stop.cancelled().await;
}

/// Reads what the child says, until it says no more.
async fn listen(stdout: Option<impl AsyncRead + Unpin>, voice: &mut Voice, said: &mut Option<Outcome>) {
    let Some(mut stdout) = stdout else { return };
    let mut decoder = Decoder::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let events = match stdout.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(count) => decoder.push(&chunk[..count]),
        };
        for event in events {
            *said = voice.hear(event).await.or(said.take());
        }
    }
    if let Some(event) = decoder.finish() {
        *said = voice.hear(event).await.or(said.take());
    }
    if decoder.strays() > 0 {
        tracing::debug!(lines = decoder.strays(), "a task wrote lines to its output that are no events");
    }
}

/// Reads the child's log to its end, and keeps the last of it.
async fn keep(stderr: Option<impl AsyncRead + Unpin>, tail: &mut Tail) {
    let Some(mut stderr) = stderr else { return };
    let mut chunk = vec![0; TAIL_BYTES_MAX];
    while let Ok(count @ 1..) = stderr.read(&mut chunk).await {
        tail.push(&chunk[..count]);
    }
}

// === impl Tail ===

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
        let excess = self.bytes.len().saturating_sub(TAIL_BYTES_MAX);
        self.cut |= excess > 0;
        self.bytes.drain(..excess);
    }

    /// Returns whole lines, fit for a terminal: a log may quote what an attacker named.
    fn into_text(mut self) -> String {
        let bytes: &[u8] = self.bytes.make_contiguous();
        let first_line = bytes.iter().position(|byte| *byte == b'\n').filter(|_| self.cut);
        let text = String::from_utf8_lossy(&bytes[first_line.map_or(0, |end| end + 1)..]);
        let printable = |letter: char| matches!(letter, '\n' | '\t') || !letter.is_control();
        text.chars().map(|letter| if printable(letter) { letter } else { char::REPLACEMENT_CHARACTER }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{TAIL_BYTES_MAX, Tail};

    #[test]
    fn the_tail_is_bounded_whole_lines_and_harmless() {
        let mut tail = Tail::default();
        tail.push(b"one\ntwo \x1b[31m\xff\n");
        assert_eq!(tail.into_text(), "one\ntwo \u{fffd}[31m\u{fffd}\n");

        let mut tail = Tail::default();
        for line in 0..10_000 {
            tail.push(format!("line {line}\n").as_bytes());
        }
        assert!(tail.bytes.len() <= TAIL_BYTES_MAX);
        let text = tail.into_text();
        assert!(text.starts_with("line ") && text.ends_with("line 9999\n"), "{text}");

        let mut tail = Tail::default();
        tail.push(&vec![b'x'; 3 * TAIL_BYTES_MAX]);
        assert_eq!(tail.into_text().len(), TAIL_BYTES_MAX);
    }
}
