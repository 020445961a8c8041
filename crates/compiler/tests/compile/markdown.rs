//! `doc_md` has the same structure whatever its texts hold: proved with a Markdown parser that knows tables, HTML and the rest.

use dagwright_compiler::{Target, compile};
use proptest::prelude::*;
use pulldown_cmark::{Event, Options, Parser};

use crate::{hostile, plans};

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn texts_cannot_become_markup(texts in prop::collection::vec(hostile::text(), hostile::TEXTS)) {
        prop_assert_eq!(structure(&document(&texts)), structure(&document(&hostile::benign())));
    }
}

#[test]
fn a_document_never_names_a_file() {
    let mut plan = plans::carriers();
    plan.description = Some("/etc/passwd.md".into());
    plan.dag_id = "x.md".into();
    let [dag, _] = compile(&plan, Target::Airflow2).try_into().unwrap();
    let text = String::from_utf8(dag.bytes).unwrap();
    assert!(text.contains("Negotiated and compiled by Dagwright.\n\"\"\""), "{text}");
}

/// The doc_md of a plan full of `texts`, taken from its DAG file; escapes of Python's literal are undone.
fn document(texts: &[String]) -> String {
    let [dag, _] = compile(&hostile::plan(texts), Target::Airflow3).try_into().unwrap();
    let source = String::from_utf8(dag.bytes).unwrap();
    let (_, literal) = source.split_once("DOC = \"\"\"\\\n").unwrap();
    let (literal, _) = literal.split_once("by Dagwright.\n\"\"\"").unwrap();
    let mut text = String::new();
    let mut chars = literal.chars();
    while let Some(c) = chars.next() {
        // The document has no invisible characters, so only quotes and backslashes are escaped.
        text.push(if c == '\\' { chars.next().unwrap() } else { c });
    }
    text
}

/// The tags of a document, in order, without its texts.
fn structure(markdown: &str) -> Vec<String> {
    let mut structure = Vec::new();
    for event in Parser::new_ext(markdown, Options::all()) {
        let part = match event {
            Event::Text(_) => "text".into(),
            Event::Code(_) => "code".into(),
            other => format!("{other:?}"),
        };
        // A text may come in several pieces.
        if part != "text" || structure.last() != Some(&part) {
            structure.push(part);
        }
    }
    structure
}
