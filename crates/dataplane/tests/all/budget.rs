//! Memory: what does not fit spills, and what cannot spill says so.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use dagwright_dataplane::types::arrow_schema;
use dagwright_model::code::Code;

use crate::memory::{Bench, columns};

const WIDE: &str = "id:int64 payload:string";

/// About 43 MB in one stream, against a pool of half of 48 MiB.
fn wide(rows: i64) -> Vec<Vec<RecordBatch>> {
    let batch = |start: i64| {
        // A fixed permutation, so that sorting has work to do.
        let ids: Int64Array = (start..start + 4096).map(|id| (id * 7_919) % rows).collect();
        let payload: StringArray = (start..start + 4096).map(|id| Some(format!("{id:0>200}"))).collect();
        RecordBatch::try_new(arrow_schema(&columns(WIDE)), vec![Arc::new(ids), Arc::new(payload)]).unwrap()
    };
    vec![(0..rows / 4096).map(|number| batch(number * 4096)).collect()]
}

#[track_caller]
fn check(sql: &str, takes: &str, rows: u64) {
    let mut bench = Bench::new();
    bench.task.task.memory_max = "48MiB".parse().unwrap();
    bench.source("a", WIDE, wide(4096 * 48));
    bench.source("b", WIDE, wide(4096 * 48));
    bench.step("big", sql);
    bench.sink("out", "big", takes);
    let outcome = bench.done();
    assert_eq!(outcome.counts.sinks["out"].loaded, rows);
    assert!(bench.staged_files().is_empty(), "spilled files are gone");
}

#[test]
fn a_sort_larger_than_the_budget_spills() {
    check("SELECT id, payload FROM a ORDER BY payload DESC", WIDE, 4096 * 48);
}

#[test]
fn groups_larger_than_the_budget_spill() {
    check("SELECT payload, max(id) AS id FROM a GROUP BY payload", "payload:string id:int64?", 4096 * 48);
}

#[test]
fn a_relation_larger_than_the_budget_is_kept_on_disk() {
    let mut bench = Bench::new();
    bench.task.task.memory_max = "48MiB".parse().unwrap();
    bench.source("a", WIDE, wide(4096 * 48));
    bench.step("narrow", "SELECT id FROM a");
    bench.sink("out", "a", WIDE);
    bench.sink("ids", "narrow", "id:int64");
    let outcome = bench.done();
    assert_eq!(outcome.counts.sinks["ids"].loaded, 4096 * 48);
    assert_eq!(outcome.counts.sinks["out"].loaded, 4096 * 48);
    assert!(bench.staged_files().is_empty());
}

#[test]
fn what_cannot_spill_says_that_memory_is_short() {
    let mut bench = Bench::new();
    bench.task.task.memory_max = "48MiB".parse().unwrap();
    bench.source("a", WIDE, wide(4096 * 48));
    bench.step("one", "SELECT array_agg(payload) AS all_of_it FROM a");
    bench.sink("out", "one", "all_of_it:list<string>?");
    assert_eq!(bench.code(), Code::MemoryExhausted);
    assert!(bench.staged_files().is_empty());
}
