//! Shows a run while it runs: a line a task on a terminal, a line an event elsewhere.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use dagwright_engine::RunEvent;
use dagwright_model::{
    record::TaskInstance,
    task::{Outcome, Status},
};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use tokio::sync::mpsc::Receiver;

use crate::{
    output::Output,
    render::{BAD, DIM, GOOD, WARN, number, problem, safe, styled},
};

/// How often a line that waits moves its spinner.
const TICK: Duration = Duration::from_millis(120);

/// How many lines are shown at most; further tasks only count.
const LINES_MAX: usize = 24;

/// Shows events until the run ended.
pub(crate) async fn show(mut events: Receiver<RunEvent>, output: Output) {
    let target = if output.is_watched() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
    let mut display = Display { lines: MultiProgress::with_draw_target(target), bars: BTreeMap::new(), output };
    while let Some(event) = events.recv().await {
        display.show(event);
    }
}

struct Display {
    lines: MultiProgress,
    bars: BTreeMap<TaskInstance, ProgressBar>,
    output: Output,
}

// === impl Display ===

impl Display {
    fn show(&mut self, event: RunEvent) {
        match event {
            RunEvent::RunStarted { plan_hash, resumed } => {
                tracing::info!(plan = plan_hash.short(), resumed, "run started");
                if resumed {
                    self.say(&styled(WARN, "continuing an unfinished run"));
                }
            }
            RunEvent::TaskStarted { instance, role, attempt } => {
                tracing::info!(task = %instance, %role, attempt, "task started");
                if self.bars.len() < LINES_MAX {
                    self.add(instance, attempt);
                }
            }
            RunEvent::TaskProgress {
                instance,
                rows_read,
                rows_expected: _,
                bytes_read,
                bytes_expected,
                rows_written,
            } => {
                tracing::debug!(task = %instance, rows_read, bytes_read, rows_written, "task progress");
                if let Some(bar) = self.bars.get(&instance) {
                    progress(bar, rows_read, bytes_read, bytes_expected);
                }
            }
            RunEvent::TaskWarned { instance, problem } => {
                let what = format!("{instance}: {} {}", problem.code, safe(&problem.message));
                self.say(&format!("{} {what}", styled(WARN, "warning:")));
            }
            RunEvent::TaskRetrying { instance, attempt, delay_ms } => {
                tracing::warn!(task = %instance, attempt, delay_ms, "task will be tried again");
                self.say(&format!("  {instance}: try {attempt} in {}", number::elapsed_ms(delay_ms)));
            }
            RunEvent::TaskEnded { instance, role: _, attempt: _, outcome } => {
                tracing::info!(task = %instance, status = ?outcome.status, elapsed_ms = outcome.elapsed_ms, "task ended");
                if let Some(bar) = self.bars.remove(&instance) {
                    bar.finish_and_clear();
                }
                self.say(&ended(&instance, &outcome));
            }
            RunEvent::RunCancelling => self.say(&styled(WARN, "stopping; once more to stop at once")),
            RunEvent::RunEnded { status, problem: _ } => tracing::info!(?status, "run ended"),
        }
    }

    fn add(&mut self, instance: TaskInstance, attempt: u32) {
        let bar = self.lines.add(ProgressBar::new_spinner());
        let again = if attempt > 1 { format!(" (try {attempt})") } else { String::new() };
        bar.set_style(style());
        bar.set_prefix(format!("{instance}{again}"));
        bar.enable_steady_tick(TICK);
        self.bars.insert(instance, bar);
    }

    fn say(&self, line: &str) {
        if self.output.is_watched() {
            // Above the moving lines. An error means that the terminal has gone.
            let _ = self.lines.println(line);
        } else {
            self.output.remark(line);
        }
    }
}

fn progress(bar: &ProgressBar, rows_read: u64, bytes_read: u64, bytes_expected: Option<u64>) {
    if let Some(expected) = bytes_expected {
        bar.set_length(expected.max(bytes_read));
    }
    bar.set_position(bytes_read);
    bar.set_message(number::counted(rows_read, "row"));
}

/// Rows, rate, bytes, and the time left where the size is known.
fn style() -> ProgressStyle {
    let left = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        if state.len().is_some_and(|expected| expected > 0) && state.pos() > 0 {
            let _ = write!(text, "{} left", number::elapsed(state.eta()));
        }
    };
    let rate = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        let _ = write!(text, "{}/s", number::bytes(state.per_sec() as u64));
    };
    let read = |state: &ProgressState, text: &mut dyn std::fmt::Write| {
        let _ = write!(text, "{}", number::bytes(state.pos()));
    };
    ProgressStyle::with_template("  {spinner} {prefix:<20} {msg:>16}  {read:>9}  {rate:>11}  {left}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner())
        .with_key("left", left)
        .with_key("rate", rate)
        .with_key("read", read)
}

fn ended(instance: &TaskInstance, outcome: &Outcome) -> String {
    let (style, mark) = match outcome.status {
        Status::Succeeded => (GOOD, "✓"),
        Status::Failed => (BAD, "✗"),
        Status::Cancelled => (WARN, "■"),
    };
    let mut line = format!("  {} {instance:<20}", styled(style, mark), instance = instance.to_string());
    let _ = write!(line, " {:>8}", number::elapsed_ms(outcome.elapsed_ms));
    let read: u64 = outcome.counts.sources.values().map(|seen| seen.read).sum();
    let loaded: u64 = outcome.counts.sinks.values().map(|seen| seen.loaded).sum();
    if read > 0 {
        let _ = write!(line, "  {} read", number::counted(read, "row"));
    }
    if loaded > 0 {
        let _ = write!(line, "  {} loaded", number::counted(loaded, "row"));
    }
    if outcome.repeated {
        line.push_str(&styled(DIM, "  its effect was there already"));
    }
    if outcome.memory_peak_bytes > 0 {
        line.push_str(&styled(DIM, format_args!("  {} of memory", number::bytes(outcome.memory_peak_bytes))));
    }
    if let Some(why) = &outcome.problem {
        line.push('\n');
        line.push_str(problem::problem(why).trim_end());
    }
    line
}
