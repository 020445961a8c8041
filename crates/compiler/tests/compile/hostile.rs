//! No text of a plan becomes code: proved with Python's own parser over many plans full of hostile texts.

use std::{fs, path::Path, process::Command};

use dagwright_compiler::{Target, compile};
use dagwright_model::{
    canonical,
    plan::Plan,
    spec::Locator,
    task::{Input, Work},
};
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use serde_json::json;

use crate::plans;

/// How many texts [`plan`] takes.
pub(crate) const TEXTS: usize = 18;

/// How many hostile plans are compiled for each target.
const PLANS: usize = 200;

/// Texts that have ended literals, comments, templates and Markdown before, and arbitrary ones.
pub(crate) fn text() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "\"",
        "'",
        "\"\"\"",
        "'''",
        "\\",
        "\\\"",
        "\n",
        "\r",
        "\t",
        "\0",
        "\u{1b}[2J",
        "{{ ds }}",
        "{% if 1 %}",
        "{#",
        "#}",
        "#",
        ")",
        "]",
        "}",
        ",",
        ";",
        "import os",
        "os.system('id')",
        "__import__(\"os\")",
        "\u{202e}",
        "\u{2028}",
        "\u{85}",
        "\u{feff}",
        "é",
        "e\u{301}",
        "🛫",
        "\u{10ffff}",
        "`",
        "```",
        "|",
        "---",
        "===",
        "- ",
        "1. ",
        "> ",
        "# ",
        "<b>",
        "&amp;",
        "<!--",
        "](x)",
        "[a]:",
        "![",
        "**",
        "__",
        "~~",
        "$",
        "://",
        ".md",
        ".sql",
        ".sh",
        "\u{7f}",
        " ",
        "N{DASH}",
        "x00",
        "u0041",
        "[^1]",
        "{.a}",
        "\\\n",
        "+++",
        ":::",
        "==",
        "^",
    ]);
    let piece =
        prop_oneof![4 => known.prop_map(String::from), 1 => any::<char>().prop_map(String::from), 1 => "[a-z]{1,4}"];
    // Never empty, as an empty text leaves its place out.
    prop::collection::vec(piece, 1..8).prop_map(|pieces| format!("{}.", pieces.concat()))
}

/// Texts that nothing could mistake, none like another.
pub(crate) fn benign() -> Vec<String> {
    (0..TEXTS).map(|index| format!("Benign text {index}")).collect()
}

/// A plan with a hostile text in every place that has free text, task ids included.
pub(crate) fn plan(texts: &[String]) -> Plan {
    let mut texts = texts.iter().cloned();
    let mut next = || texts.next().unwrap();
    let mut plan = plans::staged();
    plan.dag_id = next();
    plan.owner = Some(next());
    plan.description = Some(next());
    plan.tags = vec![next()];
    plan.airflow.pool = next();
    plan.spec_hash = next();
    plan.alerts.on_failure = vec![next()];
    plan.alerts.on_deadline = vec![next()];
    let region = plan.params.get_mut("region").unwrap();
    region.default = Some(json!({ "a": next() }));
    region.allowed = Some(vec![json!([next()])]);
    let choice = &mut plan.choices[0];
    (choice.subject, choice.chosen, choice.rationale) = (next(), next(), next());
    (choice.rejected[0].alternative, choice.rejected[0].why) = (next(), next());
    let Work::Move(transform) = &mut plan.tasks[2].spec.work else { unreachable!() };
    transform.steps[0].sql = next();
    let Work::Move(extract) = &mut plan.tasks[0].spec.work else { unreachable!() };
    let Some(Input::Source(read)) = extract.inputs.get_mut("flights") else { unreachable!() };
    read.locator = Locator::Uri(next());
    // In capitals, so that it is no identifier in the benign plan either.
    plans::rename(&mut plan, 1, &format!("T {}", next()));
    plan
}

#[test]
fn texts_stay_texts() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, plan: &Plan| {
        for target in Target::ALL {
            let [dag, sealed] = compile(plan, *target).try_into().unwrap();
            fs::write(folder.path().join(format!("{name}.{target}.py")), dag.bytes).unwrap();
            let shown = |text: &str| text.replace(char::is_control, " ");
            let values = json!({
                "dag_id": plan.dag_id, "owner": shown(plan.owner.as_ref().unwrap()),
                "description": shown(plan.description.as_ref().unwrap()), "pool": plan.airflow.pool,
                "tag": shown(&plan.tags[0]).chars().take(100).collect::<String>(),
                "default": plan.params["region"].default, "enum": plan.params["region"].allowed,
                "task_ids": plan.tasks.iter().map(|task| &task.spec.id).collect::<Vec<_>>(),
                "plan_file": sealed.name,
                "on_failure": [shown(&plan.alerts.on_failure[0])], "on_deadline": [shown(&plan.alerts.on_deadline[0])],
            });
            fs::write(folder.path().join(format!("{name}.{target}.expected")), canonical::to_pretty(&values)).unwrap();
            fs::write(folder.path().join(&sealed.name), sealed.bytes).unwrap();
        }
    };
    write("benign", &plan(&benign()));
    let mut runner = TestRunner::deterministic();
    let strategy = prop::collection::vec(text(), TEXTS);
    for index in 0..PLANS {
        write(&format!("hostile{index}"), &plan(&strategy.new_tree(&mut runner).unwrap().current()));
    }
    check(folder.path());
}

/// Runs `shape.py`, which says what it checks, over a folder.
#[track_caller]
fn check(folder: &Path) {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var("PYTHON").unwrap_or_else(|_| "python3.11".into());
    let output = Command::new(&python)
        .arg("-B")
        .arg(here.join("tests/compile/shape.py"))
        .arg(folder)
        .arg(here.join("../../deploy/airflow/src/dagwright_airflow/plan.py"))
        .output()
        .unwrap_or_else(|error| panic!("{python} is needed for this test (or PYTHON=…): {error}"));
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), format!("{} files", (PLANS + 1) * Target::ALL.len()));
}
