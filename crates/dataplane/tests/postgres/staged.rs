//! Partitions that become visible together.

use std::collections::BTreeMap;

use dagwright_dataplane::connectors::{Commit, Sink, postgres::PostgresSink};
use dagwright_model::{
    spec::{OrderBy, SinkMode},
    task::{CursorCommit, Partition, PartitionRange, RunContext, SinkCounts, SinkRef, SinkWrite, WriteStrategy},
};

use crate::harness::{Db, id_note, name, partition_run, refused, rows, run};

fn partitioned(db: &Db, mode: SinkMode) -> SinkWrite {
    SinkWrite { strategy: WriteStrategy::PartitionStaging, ..db.write("target", mode, &id_note()) }
}

fn part(index: u32, count: u32) -> Partition {
    Partition { index, count, range: PartitionRange::Files(Vec::new()) }
}

async fn stage(db: &Db, write: &SinkWrite, effect: &str, index: u32, count: u32, values: &[(i64, &str)]) -> SinkCounts {
    db.load(write, partition_run(effect, part(index, count)), &[rows(values)]).await.unwrap()
}

async fn publish(
    db: &Db,
    write: &SinkWrite,
    effect: &str,
    partitions: u32,
) -> dagwright_dataplane::error::Result<SinkCounts> {
    PostgresSink::new().publish(write, partitions, &db.write_context(run(effect))).await
}

async fn staging_tables(db: &Db) -> String {
    let sql = format!(
        "SELECT count(*) FROM pg_class WHERE relname LIKE '\\_dagwright\\_stg%' AND relkind = 'r'
         AND relnamespace = '{}'::regnamespace",
        db.schema
    );
    db.one(&sql).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_visible_before_all_partitions_are_published() {
    let db = Db::new("staged").await;
    db.run("CREATE TABLE target (id bigint, note text); INSERT INTO target VALUES (0, 'old')").await;
    let write = partitioned(&db, SinkMode::Replace);
    stage(&db, &write, "r1", 0, 3, &[(1, "a")]).await;
    stage(&db, &write, "r1", 2, 3, &[(3, "c")]).await;
    refused(publish(&db, &write, "r1", 3).await, "DW0606", &[]);
    assert_eq!(db.one("SELECT string_agg(note, ',') FROM target").await.unwrap(), "old");
    // A repeated partition overwrites itself.
    stage(&db, &write, "r1", 1, 3, &[(8, "x"), (9, "y")]).await;
    stage(&db, &write, "r1", 1, 3, &[(2, "b")]).await;
    let counts = publish(&db, &write, "r1", 3).await.unwrap();
    assert_eq!(counts.loaded, 3);
    assert_eq!(db.one("SELECT string_agg(id || note, ',' ORDER BY id) FROM target").await.unwrap(), "1a,2b,3c");
    assert_eq!(staging_tables(&db).await, "0");
    // Repeats of both find their effect.
    assert_eq!(publish(&db, &write, "r1", 3).await.unwrap(), counts);
    assert_eq!(stage(&db, &write, "r1", 1, 3, &[(7, "z")]).await.loaded, 1);
    assert_eq!(db.count("target").await, 3);
    assert_eq!(staging_tables(&db).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upsert_over_partitions_keeps_the_row_that_wins() {
    let db = Db::new("staged_upsert").await;
    let mut write = partitioned(&db, SinkMode::Upsert);
    stage(&db, &write, "r1", 0, 2, &[(1, "a"), (2, "b")]).await;
    stage(&db, &write, "r1", 1, 2, &[(2, "c")]).await;
    refused(publish(&db, &write, "r1", 2).await, "DW0407", &[]);
    write.dedupe = vec![OrderBy { column: "note".into(), descending: true }];
    let counts = publish(&db, &write, "r1", 2).await.unwrap();
    assert_eq!((counts.produced, counts.loaded, counts.superseded), (3, 2, 1));
    assert_eq!(db.one("SELECT string_agg(id || note, ',' ORDER BY id) FROM target").await.unwrap(), "1a,2c");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_that_emptied_a_staging_table_is_noticed() {
    let db = Db::new("staged_crash").await;
    let write = partitioned(&db, SinkMode::Append);
    stage(&db, &write, "r1", 0, 1, &[(1, "a"), (2, "b")]).await;
    let table = db.one("SELECT staging FROM _dagwright_staged").await.unwrap();
    db.run(&format!("TRUNCATE {table}")).await;
    refused(publish(&db, &write, "r1", 1).await, "DW0606", &[]);
    stage(&db, &write, "r1", 0, 1, &[(1, "a"), (2, "b")]).await;
    assert_eq!(publish(&db, &write, "r1", 1).await.unwrap().loaded, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn cleanup_removes_what_a_run_staged_and_nothing_else() {
    let db = Db::new("staged_cleanup").await;
    let write = partitioned(&db, SinkMode::Append);
    stage(&db, &write, "gone", 0, 2, &[(1, "a")]).await;
    stage(&db, &write, "kept", 0, 1, &[(2, "b")]).await;
    let connection = name(crate::harness::CONNECTION);
    for _ in 0..2 {
        PostgresSink::new().cleanup(&connection, &db.write_context(run("gone"))).await.unwrap();
        assert_eq!(staging_tables(&db).await, "1");
    }
    assert_eq!(publish(&db, &write, "kept", 1).await.unwrap().loaded, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_furthest_cursor_of_all_partitions_is_committed() {
    let db = Db::new("staged_cursor").await;
    let mut write = partitioned(&db, SinkMode::Append);
    let cursor = CursorCommit { source: name("events"), column: "id".into(), data_type: "int64".parse().unwrap() };
    write.cursors = vec![cursor];
    for (index, value) in ["9", "10"].into_iter().enumerate() {
        let run = partition_run("r1", part(u32::try_from(index).unwrap(), 2));
        let cursors = BTreeMap::from([(name("events"), value.to_owned())]);
        db.load_with(&write, run, &[rows(&[(1, "a")])], Commit { cursors, ..Commit::default() }).await.unwrap();
    }
    publish(&db, &write, "r1", 2).await.unwrap();
    let sink = SinkRef { name: write.name.clone(), locator: write.locator.clone() };
    let context = db.write_context(run("any"));
    let found = PostgresSink::new().committed_cursor(&sink, "tests.pipeline", &name("events"), &context).await;
    assert_eq!(found.unwrap().as_deref(), Some("10"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cleared_run_stages_and_publishes_anew() {
    let db = Db::new("staged_generation").await;
    let write = partitioned(&db, SinkMode::Append);
    stage(&db, &write, "r1", 0, 1, &[(1, "a")]).await;
    publish(&db, &write, "r1", 1).await.unwrap();
    let again = |partition| RunContext { generation: 1, partition, ..run("r1") };
    db.load(&write, again(Some(part(0, 1))), &[rows(&[(2, "b"), (3, "c")])]).await.unwrap();
    let context = db.write_context(again(None));
    let counts = PostgresSink::new().publish(&write, 1, &context).await.unwrap();
    assert_eq!(counts.loaded, 2);
    assert_eq!(db.one("SELECT string_agg(id || note, ',' ORDER BY id) FROM target").await.unwrap(), "2b,3c");
}
