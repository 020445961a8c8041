//! What becomes of rows that are there already, and of tasks that run again.

use std::collections::BTreeMap;

use dagwright_dataplane::connectors::{Begin, Commit, Sink, postgres::PostgresSink};
use dagwright_model::{
    spec::SinkMode,
    task::{CursorCommit, RunContext, SinkRef},
};

use crate::harness::{Db, columns, id_note, many_rows, name, refused, rows, run};

#[tokio::test(flavor = "multi_thread")]
async fn append_keeps_old_rows_and_repeats_do_nothing() {
    let db = Db::new("append").await;
    let write = db.write("target", SinkMode::Append, &id_note());
    let first = db.load(&write, run("r1"), &[rows(&[(1, "a"), (2, "b")])]).await.unwrap();
    assert_eq!((first.produced, first.loaded), (2, 2));
    assert!(first.bytes > 0);
    // The same effect again, with other rows: there is no second effect.
    let again = db.load(&write, run("r1"), &[rows(&[(9, "z")])]).await.unwrap();
    assert_eq!(again, first);
    db.load(&write, run("r2"), &[rows(&[(3, "c")])]).await.unwrap();
    assert_eq!(db.one("SELECT string_agg(id || note, ',' ORDER BY id) FROM target").await.unwrap(), "1a,2b,3c");
    let joined = "SELECT string_agg(e.effect, ',' ORDER BY t.id) FROM target t \
        JOIN _dagwright_effects e ON e.run_id = t._dagwright_run_id";
    assert_eq!(db.one(joined).await.unwrap(), "r1/sink,r1/sink,r2/sink");
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_swaps_all_rows_in_one_instant() {
    let db = Db::new("replace").await;
    let write = db.write("target", SinkMode::Replace, &id_note());
    db.load(&write, run("r1"), &[rows(&[(1, "a"), (2, "b")])]).await.unwrap();
    // A reader whose snapshot is older than the replacement must not find an empty table after it.
    let reader = crate::harness::connect(crate::harness::server()).await;
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1").await.unwrap();
    db.load(&write, run("r2"), &[rows(&[(7, "x")])]).await.unwrap();
    let seen: i64 = reader.query_one("SELECT count(*) FROM replace.target", &[]).await.unwrap().get(0);
    assert_eq!(seen, 1);
    assert_eq!(db.one("SELECT string_agg(id || note, ',') FROM target").await.unwrap(), "7x");
    // Nothing to write still replaces.
    db.load(&write, run("r3"), &[]).await.unwrap();
    assert_eq!(db.count("target").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn replace_deletes_where_truncating_would_wait_or_break() {
    let db = Db::new("replace_busy").await;
    db.run("CREATE TABLE target (id bigint PRIMARY KEY, note text); INSERT INTO target VALUES (1, 'a')").await;
    let write = db.write("target", SinkMode::Replace, &id_note());
    // Somebody reads it: also a task that replaces what it reads.
    let reader = crate::harness::connect(crate::harness::server()).await;
    reader.batch_execute("BEGIN; SELECT * FROM replace_busy.target").await.unwrap();
    db.load(&write, run("r1"), &[rows(&[(2, "b")])]).await.unwrap();
    reader.batch_execute("COMMIT").await.unwrap();
    // A foreign key points at it, and nothing refers to the rows that go.
    db.run("CREATE TABLE child (id bigint REFERENCES target)").await;
    db.load(&write, run("r2"), &[rows(&[(3, "c")])]).await.unwrap();
    assert_eq!(db.one("SELECT string_agg(id || note, ',') FROM target").await.unwrap(), "3c");
    // Now something does, and the old rows stay.
    db.run("INSERT INTO child VALUES (3)").await;
    refused(db.load(&write, run("r3"), &[rows(&[(4, "d")])]).await, "DW0404", &[]);
    assert_eq!(db.one("SELECT string_agg(id || note, ',') FROM target").await.unwrap(), "3c");
}

#[tokio::test(flavor = "multi_thread")]
async fn upsert_replaces_rows_of_the_same_key() {
    let db = Db::new("upsert").await;
    let write = db.write("target", SinkMode::Upsert, &id_note());
    db.load(&write, run("r1"), &[rows(&[(1, "a"), (2, "b")])]).await.unwrap();
    let counts = db.load(&write, run("r2"), &[rows(&[(2, "B"), (3, "C")])]).await.unwrap();
    assert_eq!(counts.loaded, 2);
    assert_eq!(db.one("SELECT string_agg(id || note, ',' ORDER BY id) FROM target").await.unwrap(), "1a,2B,3C");
    refused(db.load(&write, run("r3"), &[rows(&[(5, "e"), (5, "f")])]).await, "DW0407", &[]);
    let leftovers = "SELECT count(*) FROM pg_class WHERE relname LIKE '\\_dagwright\\_stg%' \
        AND relnamespace = 'upsert'::regnamespace";
    assert_eq!(db.one(leftovers).await.unwrap(), "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_higher_generation_replaces_what_the_run_wrote() {
    let db = Db::new("generations").await;
    let generation = |effect: &str, generation: u32| RunContext { generation, ..run(effect) };
    let write = db.write("target", SinkMode::Append, &id_note());
    db.load(&write, run("r1"), &[rows(&[(1, "a"), (2, "b")])]).await.unwrap();
    db.load(&write, run("r2"), &[rows(&[(3, "c")])]).await.unwrap();
    db.load(&write, generation("r1", 1), &[rows(&[(4, "d")])]).await.unwrap();
    assert_eq!(db.one("SELECT string_agg(id || note, ',' ORDER BY id) FROM target").await.unwrap(), "3c,4d");
    // A straggler of the lower generation changes nothing.
    db.load(&write, run("r1"), &[rows(&[(5, "e")])]).await.unwrap();
    assert_eq!(db.count("target").await, 2);

    let mut plain = db.write("plain", SinkMode::Append, &id_note());
    plain.meta_columns = false;
    plain.name = name("plain");
    db.load(&plain, run("r1"), &[rows(&[(1, "a")])]).await.unwrap();
    refused(db.load(&plain, generation("r1", 1), &[rows(&[(2, "b")])]).await, "DW0408", &[]);
    assert_eq!(db.count("plain").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_concurrent_duplicate_waits_and_finds_the_effect() {
    let db = Db::new("duplicate").await;
    let write = db.write("target", SinkMode::Append, &id_note());
    let sink = PostgresSink::new();
    let Begin::Write(mut first) = sink.begin(&write, &db.write_context(run("r1"))).await.unwrap() else { panic!() };
    let (copy, context) = (write.clone(), db.write_context(run("r1")));
    let second = tokio::spawn(async move { PostgresSink::new().begin(&copy, &context).await });
    // The second one waits in the server for the first one's transaction.
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%duplicate%'";
    while db.one(waiting).await.unwrap() == "0" {
        tokio::task::yield_now().await;
    }
    first.write(rows(&[(1, "a")])).await.unwrap();
    let counts = first.commit(Commit::default()).await.unwrap();
    match second.await.unwrap().unwrap() {
        Begin::Repeated(found) => assert_eq!(found, counts),
        Begin::Write(_) => panic!("written twice"),
    }
    assert_eq!(db.count("target").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_writer_leaves_nothing_and_can_be_repeated() {
    let db = Db::new("killed").await;
    let write = db.write("target", SinkMode::Replace, &id_note());
    db.load(&write, run("r0"), &[rows(&[(1, "old")])]).await.unwrap();
    // Dropped in the middle of its copy, as when the process dies.
    let begun = PostgresSink::new().begin(&write, &db.write_context(run("r1"))).await.unwrap();
    let Begin::Write(mut writer) = begun else { panic!() };
    writer.write(many_rows(10, 5000)).await.unwrap();
    drop(writer);
    assert_eq!(db.one("SELECT string_agg(note, ',') FROM target").await.unwrap(), "old");
    // Its session ended by the server.
    let begun = PostgresSink::new().begin(&write, &db.write_context(run("r1"))).await.unwrap();
    let Begin::Write(mut writer) = begun else { panic!() };
    writer.write(many_rows(10, 5000)).await.unwrap();
    db.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE 'COPY \"killed\"%'").await;
    refused(writer.commit(Commit::default()).await, "DW0401", &["note 10"]);
    assert_eq!(db.one("SELECT string_agg(note, ',') FROM target").await.unwrap(), "old");
    db.load(&write, run("r1"), &[many_rows(10, 5000)]).await.unwrap();
    assert_eq!(db.count("target").await, 5000);
}

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_leaves_nothing() {
    let db = Db::new("cancelled").await;
    let write = db.write("target", SinkMode::Append, &id_note());
    let context = db.write_context(run("r1"));
    let Begin::Write(mut writer) = PostgresSink::new().begin(&write, &context).await.unwrap() else { panic!() };
    writer.write(rows(&[(1, "a")])).await.unwrap();
    context.cancel.cancel();
    refused(writer.write(rows(&[(2, "b")])).await, "DW0605", &[]);
    refused(writer.commit(Commit::default()).await, "DW0605", &[]);
    assert_eq!(db.one("SELECT to_regclass('cancelled.target')").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_move_with_the_rows_and_never_back() {
    let db = Db::new("cursors").await;
    let mut write = db.write("target", SinkMode::Append, &columns(&[("id", "int64"), ("note", "string")]));
    let cursor = CursorCommit { source: name("flights"), column: "id".into(), data_type: "int64".parse().unwrap() };
    write.cursors = vec![cursor];
    let sink = SinkRef { name: write.name.clone(), locator: write.locator.clone() };
    let committed = async || {
        let context = db.write_context(run("any"));
        PostgresSink::new().committed_cursor(&sink, "tests.pipeline", &name("flights"), &context).await.unwrap()
    };
    let commit =
        |value: &str| Commit { cursors: BTreeMap::from([(name("flights"), value.into())]), ..Commit::default() };
    assert_eq!(committed().await, None);
    db.load_with(&write, run("r1"), &[rows(&[(9, "a")])], commit("9")).await.unwrap();
    assert_eq!(committed().await.as_deref(), Some("9"));
    // As numbers, not as text.
    db.load_with(&write, run("r2"), &[rows(&[(10, "b")])], commit("10")).await.unwrap();
    assert_eq!(committed().await.as_deref(), Some("10"));
    db.load_with(&write, run("r3"), &[rows(&[(2, "c")])], commit("2")).await.unwrap();
    assert_eq!(committed().await.as_deref(), Some("10"));
    let backfill = RunContext { backfill: true, ..run("r4") };
    db.load_with(&write, backfill, &[rows(&[(99, "d")])], commit("99")).await.unwrap();
    assert_eq!(committed().await.as_deref(), Some("10"));
}
