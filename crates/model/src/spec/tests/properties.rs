//! What holds for any text: no panic, and verdicts that agree with the JSON Schema's.

use proptest::prelude::*;

use super::{json, validator};
use crate::{code::Code, spec::Spec};

const SEEDS: [&str; 4] = [
    include_str!("../../../../../examples/flights.yaml"),
    include_str!("../../../../../examples/flights_conflict.yaml"),
    include_str!("../../../../../examples/flights_deadlock.yaml"),
    include_str!("../../../../../examples/flights_postgres.yaml"),
];

/// Words that mean something to a spec, and some that should not.
const WORDS: [&str; 34] = [
    "null",
    "~",
    "true",
    "1",
    "-1",
    "0.5",
    "1%",
    "30s",
    "[]",
    "{}",
    "[1]",
    "{a: b}",
    "\"\"",
    "'x'",
    "x",
    "X-1",
    "a.b",
    "mode",
    "append",
    "replace",
    "upsert",
    "scd2",
    "flights",
    "cleaned",
    "sql",
    "uri",
    "out/",
    "s3://b/k/",
    "*",
    "{",
    "\"\\0\"",
    "é",
    "2013-02-30",
    "99999999999999999999",
];

/// A seed with some of its words replaced, and some of its lines removed or doubled.
fn mutated() -> impl Strategy<Value = String> {
    let edits = proptest::collection::vec((any::<prop::sample::Index>(), 0..3_u8, 0..WORDS.len()), 1..4);
    (0..SEEDS.len(), edits).prop_map(|(seed, edits)| {
        let mut lines: Vec<String> = SEEDS[seed].lines().map(Into::into).collect();
        for (at, kind, word) in edits {
            let at = at.index(lines.len());
            match kind {
                0 => drop(lines.remove(at)),
                1 => lines.insert(at, lines[at].clone()),
                _ => {
                    if let Some((key, _)) = lines[at].split_once(": ") {
                        lines[at] = format!("{key}: {}", WORDS[word]);
                    }
                }
            }
        }
        lines.join("\n")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_gives_a_verdict(text in any::<String>()) {
        drop(Spec::parse(&text));
    }

    #[test]
    fn any_yaml_like_text_gives_a_verdict(text in "([a-z]{1,6}: |- |  |\n|\\{|\\}|\\[|\\]|,|\"|'|&a |\\*a|\\||>|#|!|[a-z0-9]{1,4}){0,60}") {
        drop(Spec::parse(&text));
    }

    #[test]
    fn any_bytes_give_a_verdict(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(Spec::parse(&String::from_utf8_lossy(&bytes)));
    }

    #[test]
    fn mutated_specs_give_diagnostics_that_help(text in mutated()) {
        if let Err(diagnostics) = Spec::parse(&text) {
            prop_assert!(!diagnostics.0.is_empty());
            let lines = text.lines().count();
            for found in &diagnostics.0 {
                prop_assert!(!found.message.is_empty());
                prop_assert!(found.line.is_none_or(|line| (1..=lines + 1).contains(&(line as usize))), "{found}");
            }
            prop_assert!(diagnostics.0.windows(2).all(|pair| pair[0].line <= pair[1].line));
        }
    }

    /// The structural check stands in for a general validator: neither may accept what the other refuses.
    #[test]
    fn structure_agrees_with_the_json_schema(text in mutated()) {
        let verdict = Spec::parse(&text);
        let found: Vec<_> = verdict.as_ref().err().into_iter().flat_map(|all| &all.0).collect();
        let unreadable = |code| matches!(code, Code::SpecUnreadable | Code::SpecTooLarge);
        let repeated = found.iter().any(|found| found.code == Code::SpecConflict && found.message.contains("here again"));
        if found.iter().any(|found| unreadable(found.code)) || repeated {
            return Ok(());
        }
        let faults: Vec<_> = validator().iter_errors(&json(&text)).map(|fault| fault.to_string()).collect();
        prop_assert!(faults.is_empty() || verdict.is_err(), "accepted, though {faults:?}");
        let structural = found.iter().find(|found| matches!(found.code, Code::SpecUnknownKey));
        prop_assert!(structural.is_none() || !faults.is_empty(), "refused alone: {structural:?}");
    }
}

/// Texts of the largest size that once made, or could make, the work grow with its square. They must come to an end
/// before the test runner's patience does; what they cost is printed, not judged.
#[test]
fn large_hostile_texts_come_to_an_end() {
    let head = "version: 1\npipeline: p\nsink: { connection: db, table: t, mode: append }\n";
    let lines = |line: fn(usize) -> String| (0..90_000).map(line).collect::<String>();
    let mut texts = vec![
        ("keys", lines(|i| format!("k{i}: 1\n"))),
        ("same keys", lines(|_| "key: 1\n".into())),
        (
            "columns",
            format!(
                "{head}source:\n  uri: x\n  columns:\n{}",
                lines(|i| format!("    '{i}': {{}}\n"))
                    .get(..900_000)
                    .unwrap_or_default()
                    .rsplit_once('\n')
                    .unwrap_or_default()
                    .0
            ),
        ),
        ("urls", format!("{head}description: '{}'", "://".repeat(300_000))),
        ("users", format!("{head}description: '{}'", "a://b@".repeat(150_000))),
        (
            "relations",
            format!(
                "{head}source: {{ uri: x }}\ntransform: [{{ name: a, sql: 'SELECT * FROM {}' }}]\n",
                (0..13_000).map(|i| format!("t{i},")).collect::<String>()
            ),
        ),
        ("plain", format!("a: {}", "b ".repeat(500_000))),
        ("folded", format!("a: >\n{}", " b\n\n".repeat(200_000))),
        ("comments", "#\n".repeat(500_000)),
        ("quotes", format!("a: \"{}", "\\n".repeat(500_000))),
        ("flow", format!("[{}", "{a: [".repeat(200_000))),
        ("keys without values", "a:\n".repeat(300_000)),
        ("items", "-\n".repeat(500_000)),
    ];
    let glob = |i: usize| format!("  s{i}: {{ uri: '{}x{i}' }}\n", "*a".repeat(2_000));
    let file = |i: usize| format!("  t{i}: {{ uri: '{}x{i}.csv', mode: replace, from: s1 }}\n", "a".repeat(4_000));
    let many = |one: &dyn Fn(usize) -> String| (0..100).map(one).collect::<String>();
    texts.push(("patterns", format!("version: 1\npipeline: p\nsources:\n{}sinks:\n{}", many(&glob), many(&file))));
    for (name, text) in texts {
        assert!(text.len() <= crate::spec::SPEC_BYTES_MAX, "{name} has {} bytes", text.len());
        let start = std::time::Instant::now();
        let count = Spec::parse(&text).map_or_else(|diagnostics| diagnostics.0.len(), |_| 0);
        println!("{name}: {count} diagnostics in {:?}", start.elapsed());
    }
}
