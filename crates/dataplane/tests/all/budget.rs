//! Memory: what does not fit spills, and what cannot spill says so.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use dagwright_dataplane::types::arrow_schema;
use dagwright_model::code::Code;

use crate::memory::{Bench, block_on, columns};

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
    check_within("48MiB", 4096 * 48, sql, takes, rows);
}

#[track_caller]
fn check_within(memory_max: &str, each: i64, sql: &str, takes: &str, rows: u64) {
    let mut bench = Bench::new();
    bench.task.task.memory_max = memory_max.parse().unwrap();
    bench.source("a", WIDE, wide(each));
    bench.source("b", WIDE, wide(each));
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
fn joins_of_sides_larger_than_the_budget_spill() {
    // About 21 MB each, against a pool of 12 MiB.
    const ROWS: u64 = 4096 * 24;
    let check = |sql, takes, rows| check_within("24MiB", 4096 * 24, sql, takes, rows);
    let both = "id:int64 payload:string other:string";
    check("SELECT a.id, a.payload, b.payload AS other FROM a JOIN b ON a.id = b.id", both, ROWS);
    let outer = "id:int64? payload:string? other:string?";
    check("SELECT a.id, a.payload, b.payload AS other FROM a FULL JOIN b ON a.id = b.id + 10", outer, ROWS + 10);
    check("SELECT id, payload FROM a WHERE payload IN (SELECT payload FROM b WHERE id % 2 = 0)", WIDE, ROWS / 2);
    check(
        "SELECT id, payload FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.payload = a.payload AND b.id % 2 = 0)",
        WIDE,
        ROWS / 2,
    );
    // One after the other, and groups of what they give.
    check(
        "SELECT a.payload, max(c.payload) AS other, count(*) AS n FROM a JOIN b ON a.id = b.id
         LEFT JOIN b AS c ON c.payload = b.payload GROUP BY a.payload",
        "payload:string other:string? n:int64",
        ROWS,
    );
}

/// Few rows of much text, about 6 MB in two streams, for what compares each with each.
fn fat() -> Vec<Vec<RecordBatch>> {
    let batch = |start: i64| {
        let ids: Int64Array = (start..start + 4).collect::<Vec<_>>().into();
        let payload: StringArray = (start..start + 4).map(|id| Some(format!("{id}{}", "x".repeat(100_000)))).collect();
        RecordBatch::try_new(arrow_schema(&columns(WIDE)), vec![Arc::new(ids), Arc::new(payload)]).unwrap()
    };
    (0..2).map(|half| (0..8).map(|number| batch((number * 2 + half) * 4)).collect()).collect()
}

#[track_caller]
fn check_fat(sql: &str, takes: &str, wanted: Result<u64, Code>) {
    let mut bench = Bench::new();
    bench.task.task.memory_max = "8MiB".parse().unwrap();
    bench.source("a", WIDE, fat());
    bench.source("b", WIDE, fat());
    bench.step("big", sql);
    bench.sink("out", "big", takes);
    let outcome = block_on(bench.run());
    let ended = outcome.problem.map_or(Ok(outcome.counts.sinks["out"].loaded), |problem| Err(problem.code));
    assert_eq!(ended, wanted, "{sql}");
    assert!(bench.staged_files().is_empty(), "spilled files are gone");
}

#[test]
fn joins_without_an_equality_spill_and_stay_right() {
    // Each row of `a` meets those of `b` that are larger by less than three.
    let on = "a.id < b.id AND a.id + 3 > b.id AND a.payload <> b.payload";
    let pairs = 64 * 2 - 3;
    let pair = format!("SELECT a.id, b.id AS other FROM a JOIN b ON {on}");
    check_fat(&pair, "id:int64? other:int64?", Ok(pairs));
    // What it does not get right it does not try.
    for sql in [
        format!("SELECT a.id, b.id AS other FROM a LEFT JOIN b ON {on}"),
        format!("SELECT a.id, b.id AS other FROM a RIGHT JOIN b ON {on}"),
        format!("SELECT a.id, b.id AS other FROM a FULL JOIN b ON {on}"),
        format!("SELECT id, id AS other FROM a WHERE EXISTS (SELECT 1 FROM b WHERE {on})"),
        format!("SELECT id, id AS other FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE {on})"),
    ] {
        check_fat(&sql, "id:int64? other:int64?", Err(Code::MemoryExhausted));
    }
    let product = "SELECT length(a.payload) AS id, length(b.payload) AS other FROM a CROSS JOIN b";
    check_fat(product, "id:int32? other:int32?", Ok(64 * 64));
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
