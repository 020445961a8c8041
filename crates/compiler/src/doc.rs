//! What was negotiated, as Markdown for Airflow's `doc_md`.
//!
//! Texts of a plan stand in it in two ways only: [`code`], as a code span that nothing in the text can end, and
//! [`prose`], on one line with every character escaped that means something to Markdown. So the document has the
//! structure written here whatever the texts hold, which `tests/hostile.rs` proves with a Markdown parser.

use dagwright_model::{
    id::{Name, PlanHash},
    message::Cost,
    plan::{Choice, Plan, PlannedTask},
    spec::{SchemaChange, SinkMode},
    task::{Input, Move, Output, Work},
};

use crate::emit::python::is_printable;

/// Writes the document; its last line is ours, so that it never ends in `.md`, which Airflow would open as a file.
pub(crate) fn markdown(plan: &Plan, hash: &PlanHash) -> String {
    let mut text = format!("# {}\n\n", prose(&plan.dag_id));
    if let Some(description) = plan.description.as_deref().filter(|text| !text.trim().is_empty()) {
        text.push_str(&format!("{}\n\n", prose(description)));
    }
    text.push_str(&format!("Plan {}, sealed for spec {}.\n\n", code(&hash.0), code(&plan.spec_hash)));
    text.push_str("## Tasks\n\n");
    for task in &plan.tasks {
        text.push_str(&task_item(task));
    }
    text.push_str("\n## Choices\n\n");
    if plan.choices.is_empty() {
        text.push_str("There was nothing to choose between.\n\n");
    }
    for choice in &plan.choices {
        text.push_str(&choice_section(choice));
    }
    text.push_str(&format!("## Expected and allowed\n\n{}", bounds(plan)));
    text.push_str("\nNegotiated and compiled by Dagwright.\n");
    text
}

// === parts ===

fn task_item(task: &PlannedTask) -> String {
    let mut item = format!("- {}: {}", code(&task.spec.id.0), work(&task.spec.work));
    if task.mapped_over.is_some() {
        item.push_str(", once for each partition");
    }
    if !task.after.is_empty() {
        item.push_str(&format!("; after {}", list(task.after.iter().map(|id| code(&id.0)))));
    }
    item.push_str(&format!("; at most {} and {} a try\n", task.timeout, task.spec.memory_max));
    item
}

fn work(work: &Work) -> String {
    match work {
        Work::Split(split) => {
            format!("finds at most {} partitions of {}", split.partitions_max, code(split.source.as_str()))
        }
        Work::Move(work) => moves(work),
        Work::Publish(publish) => {
            format!("makes the staged rows of {} visible in one instant", code(publish.sink.name.as_str()))
        }
        Work::Cleanup => "removes what the run staged, whatever became of it".into(),
    }
}

fn moves(work: &Move) -> String {
    let names = |names: Vec<&Name>| list(names.into_iter().map(|name| code(name.as_str())));
    let sources = work.inputs.iter().filter_map(|(name, input)| match input {
        Input::Source(read) => Some(format!("{} from {}", code(name.as_str()), code(&read.locator.to_string()))),
        Input::Staged { .. } => None,
    });
    let staged = work.inputs.iter().filter(|(_, input)| matches!(input, Input::Staged { .. }));
    let staged: Vec<_> = staged.map(|(name, _)| name).collect();
    let sources: Vec<_> = sources.collect();
    let mut parts = Vec::new();
    if !sources.is_empty() {
        parts.push(format!("reads {}", list(sources.into_iter())));
    }
    if !staged.is_empty() {
        parts.push(format!("takes {} from staging", names(staged)));
    }
    if !work.steps.is_empty() {
        parts.push(format!("computes {}", names(work.steps.iter().map(|step| &step.name).collect())));
    }
    if !work.gates.is_empty() {
        parts.push(format!("judges {}", names(work.gates.iter().map(|gate| &gate.name).collect())));
    }
    for output in &work.outputs {
        parts.push(match output {
            Output::Staged { relation } => format!("stages {}", code(relation.as_str())),
            Output::Sink(sink) => {
                let verb = match sink.mode {
                    SinkMode::Append => "appends to",
                    SinkMode::Replace => "replaces",
                    SinkMode::Upsert => "upserts into",
                    SinkMode::OverwritePartitions => "overwrites partitions of",
                    SinkMode::Scd2 => "keeps the history of",
                };
                format!("{verb} {} at {}", code(sink.name.as_str()), code(&sink.locator.to_string()))
            }
        });
    }
    if parts.is_empty() { "does nothing".into() } else { list(parts.into_iter()) }
}

fn choice_section(choice: &Choice) -> String {
    let role = match choice.role {
        dagwright_model::message::Role::Orchestrator => "Orchestration",
        dagwright_model::message::Role::Extraction => "Extraction",
        dagwright_model::message::Role::Transformation => "Transformation",
        dagwright_model::message::Role::Loading => "Loading",
    };
    let mut text = format!("### {role} of {}: {}\n\n", code(&choice.subject), code(&choice.chosen));
    text.push_str(&format!("{}\n\nExpected: {}.\n\n", prose(&choice.rationale), cost(&choice.cost)));
    for rejected in &choice.rejected {
        let why = prose(&rejected.why);
        text.push_str(&format!("- not {}: {why} Expected: {}.\n", code(&rejected.alternative), cost(&rejected.cost)));
    }
    if !choice.rejected.is_empty() {
        text.push('\n');
    }
    text
}

fn bounds(plan: &Plan) -> String {
    let mut text = format!("- expected of a run: {}\n", cost(&plan.cost));
    if let Some(deadline) = plan.deadline {
        text.push_str(&format!("- deadline of a run: {deadline}\n"));
    }
    let told = [("failed", &plan.alerts.on_failure), ("missed its deadline", &plan.alerts.on_deadline)];
    for (what, connections) in told.into_iter().filter(|(_, connections)| !connections.is_empty()) {
        text.push_str(&format!("- told of a run that {what}: {}\n", list(connections.iter().map(|it| code(it)))));
    }
    text.push_str(&format!("- retries of a task: {}, the first after {}\n", plan.retries.max, plan.retries.backoff));
    let change = match plan.schema_change {
        SchemaChange::None => "none",
        SchemaChange::Additive => "new columns",
        SchemaChange::Widening => "wider columns",
    };
    text.push_str(&format!("- schema changes of sinks: {change}\n"));
    text
}

// === quantities ===

fn cost(cost: &Cost) -> String {
    let parts = [
        format!("{} rows", grouped(cost.rows)),
        bytes(cost.bytes),
        format!("{} of CPU", duration(cost.cpu_ms)),
        format!("{} on the clock", duration(cost.wall_ms)),
        format!("{} of memory", bytes(cost.memory_bytes)),
    ];
    format!("{} ({} % certain)", parts.join(", "), cost.confidence)
}

/// Writes `1234567` as `1,234,567`.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Writes a size in the largest binary unit below it, to a tenth.
fn bytes(bytes: u64) -> String {
    let units = [("TiB", 1_u128 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, factor)| u128::from(bytes) >= *factor) {
        Some((unit, factor)) => {
            let tenths = u128::from(bytes) * 10 / factor;
            format!("{}.{} {unit}", tenths / 10, tenths % 10)
        }
        None => format!("{bytes} B"),
    }
}

/// Writes milliseconds as seconds to a tenth, or as whole minutes and seconds.
fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        _ => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1_000),
    }
}

// === texts ===

/// Joins with commas and a last "and".
fn list(items: impl Iterator<Item = String>) -> String {
    let mut items: Vec<_> = items.collect();
    match items.pop() {
        None => String::new(),
        Some(last) if items.is_empty() => last,
        Some(last) => format!("{} and {last}", items.join(", ")),
    }
}

/// Writes a text as a code span: between more backticks than it has in a row.
fn code(text: &str) -> String {
    let text = one_line(text);
    // A span cannot be empty.
    let text = if text.is_empty() { "-".into() } else { text };
    let longest = text.split(|c| c != '`').map(str::len).max().unwrap_or(0);
    let fence = "`".repeat(longest + 1);
    // Next to a backtick the fence needs a space, which the reader takes away again.
    let pad = if text.starts_with('`') || text.ends_with('`') { " " } else { "" };
    format!("{fence}{pad}{text}{pad}{fence}")
}

/// Writes a text as one line of a paragraph in which nothing is markup.
fn prose(text: &str) -> String {
    let text = one_line(text);
    let mut escaped = String::with_capacity(text.len() + 8);
    let mut digits_only = true;
    for (index, c) in text.char_indices() {
        let active = match c {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '&' | '#' | '|' | '~' | '!' | '$' | '+' | '=' | '^'
            | '{' | '}' => true,
            // A list, a rule, a heading, a definition or a container, where a line starts with it.
            '-' | ':' => index == 0,
            // A numbered list.
            '.' | ')' => index > 0 && digits_only,
            _ => false,
        };
        digits_only &= c.is_ascii_digit();
        if active {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    // A paragraph cannot be empty.
    if escaped.is_empty() { "-".into() } else { escaped }
}

/// Joins lines, and shows what is invisible as U+FFFD.
fn one_line(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    text.chars().map(|c| if is_printable(c) { c } else { '\u{fffd}' }).collect()
}

#[cfg(test)]
mod tests {
    use super::{bytes, code, duration, grouped, prose};

    #[test]
    fn code_spans_hold_any_text() {
        assert_eq!(code("flights"), "`flights`");
        assert_eq!(code("a`b``c"), "```a`b``c```");
        assert_eq!(code("`"), "`` ` ``");
        assert_eq!(code("a\n\n# b\u{202e}"), "`a # b\u{fffd}`");
        assert_eq!(code(" \n"), "`-`");
    }

    #[test]
    fn prose_holds_no_markup() {
        assert_eq!(prose("one scan, 2.5 MiB (fits)"), "one scan, 2.5 MiB (fits)");
        assert_eq!(prose("# a\n* b"), "\\# a \\* b");
        assert_eq!(prose("1. x"), "1\\. x");
        assert_eq!(prose("- x - y"), "\\- x - y");
        assert_eq!(prose("<script>[a](b)"), "\\<script\\>\\[a\\](b)");
    }

    #[test]
    fn quantities_are_for_people() {
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(123), "123");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(2_621_440), "2.5 MiB");
        assert_eq!(duration(250), "250 ms");
        assert_eq!(duration(1_250), "1.2 s");
        assert_eq!(duration(125_000), "2 min 5 s");
    }
}
