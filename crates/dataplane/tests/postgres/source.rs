//! What is read of tables and queries.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use dagwright_dataplane::{
    connectors::{ReadContext, Source, postgres::PostgresSource},
    tally::{Rejects, SourceTally},
};
use dagwright_model::{
    spec::{Incremental, Interval, Locator, LossyCast, Mask, OnMissing, ParamType, QueryBind},
    task::{IncrementalRead, Partition, PartitionRange, RunContext, SourceRead, Split, SplitBy},
};
use proptest::{
    prop_oneof,
    strategy::{Strategy, ValueTree},
    string::string_regex,
    test_runner::TestRunner,
};
use tokio_util::sync::CancellationToken;

use crate::harness::{CONNECTION, Db, Fetched, columns, id_note, name, partition_run, refused, run, server};

fn query(text: &str) -> Locator {
    Locator::Query { connection: name(CONNECTION), query: text.into(), binds: BTreeMap::new() }
}

/// A query with binds, which no probe has looked at.
fn bound(text: &str, binds: &[(&str, ParamType)]) -> Locator {
    let binds = binds
        .iter()
        .map(|(name, param_type)| ((*name).to_owned(), QueryBind { param_type: *param_type, sample: None }));
    Locator::Query { connection: name(CONNECTION), query: text.into(), binds: binds.collect() }
}

/// A run with these parameters.
fn run_with(params: serde_json::Value) -> RunContext {
    RunContext { params: serde_json::from_value(params).unwrap(), ..run("r") }
}

fn ids(fetched: &Fetched) -> Vec<i64> {
    let column = fetched.rows.column(0).as_primitive::<arrow::datatypes::Int64Type>();
    let mut ids: Vec<i64> = column.values().to_vec();
    ids.sort_unstable();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_and_queries_are_read_with_only_the_columns_asked_for() {
    let db = Db::new("reading").await;
    db.run("CREATE TABLE t AS SELECT i::int8 AS id, 'n' || i AS note, repeat('x', 100) AS wide FROM generate_series(1, 2500) i").await;
    let fetched = db.fetch(&db.read(db.locator("t"), &id_note()), run("r")).await.unwrap();
    assert_eq!((fetched.rows.num_rows(), fetched.counts.read, fetched.counts.passed), (2500, 2500, 2500));
    assert!(fetched.counts.bytes < 2500 * 60);
    for text in [
        "SELECT id, note FROM reading.t WHERE id <= 10;",
        "TABLE reading.t -- all of it",
        "WITH x AS (SELECT 1::int8 AS id, 'a' AS note) SELECT * FROM x;\n",
    ] {
        let fetched = db.fetch(&db.read(query(text), &id_note()), run("r")).await.unwrap();
        assert!([10, 2500, 1].contains(&fetched.rows.num_rows()), "{text}");
    }
    let nothing = db.read(db.locator("t"), &[]);
    assert_eq!(db.fetch(&nothing, run("r")).await.unwrap().counts.passed, 2500);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_can_neither_write_nor_leave_its_parentheses() {
    let db = Db::new("injection").await;
    db.run("CREATE TABLE t (id int8, note text)").await;
    for (text, code) in [
        ("SELECT 1 AS id) AS x) TO PROGRAM 'touch /tmp/owned' --", "DW0305"),
        ("SELECT 1 AS id; DROP TABLE injection.t", "DW0305"),
        ("SELECT 1 AS id, 'a' AS note /*", "DW0305"),
        ("DELETE FROM injection.t RETURNING id, note", "DW0305"),
        ("WITH gone AS (DELETE FROM injection.t RETURNING *) SELECT * FROM gone", "DW0305"),
        ("SELECT id, note FROM injection.missing", "DW0301"),
        ("SELECT setval('injection.s', 1) AS id, 'a' AS note", "DW0301"),
    ] {
        let result = db.fetch(&db.read(query(text), &id_note()), run("r")).await;
        refused(result, code, &[]);
    }
    db.run("CREATE SEQUENCE s").await;
    let writes = query("SELECT nextval('injection.s') AS id, 'a' AS note");
    refused(db.fetch(&db.read(writes, &id_note()), run("r")).await, "DW0303", &[]);
    let fails = query("SELECT 'secret'::text::int8 AS id, 'a'::text AS note");
    refused(db.fetch(&db.read(fails, &id_note()), run("r")).await, "DW0306", &["secret"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn binds_of_a_query_are_typed_values_of_the_run() {
    let db = Db::new("binds").await;
    db.run("CREATE TABLE t AS SELECT i::int8 AS id, date '2024-01-01' + i AS day FROM generate_series(1, 100) i").await;
    let locator = bound(
        "SELECT id, concat_ws(' ', $word, $whole + 1, $half * 2, NOT $is, $day + 1, '$word', pg_typeof($none)) AS note
         FROM binds.t -- $word
         WHERE day >= $data_interval_start::date AND day < $data_interval_end::date AND $none IS NULL;",
        &[
            ("word", ParamType::String),
            ("whole", ParamType::Integer),
            ("half", ParamType::Number),
            ("is", ParamType::Boolean),
            ("day", ParamType::Date),
            ("none", ParamType::Date),
            ("data_interval_start", ParamType::Timestamp),
            ("data_interval_end", ParamType::Timestamp),
        ],
    );
    let params = serde_json::json!(
        { "word": "it's", "whole": -3, "half": 0.5, "is": true, "day": "2024-02-28", "none": null }
    );
    let interval = Interval { start: "2024-01-03T00:00:00+00:00".into(), end: "2024-01-05T00:00:00Z".into() };
    let context = RunContext { interval: Some(interval), ..run_with(params) };
    let read = db.read(locator, &id_note());
    let fetched = db.fetch(&read, context.clone()).await.unwrap();
    assert_eq!(ids(&fetched), [2, 3]);
    assert_eq!(fetched.rows.column(1).as_string::<i32>().value(0), "it's -2 1 f 2024-02-29 $word date");
    // What the run does not say, or says in another type, is told before anything is read.
    let no_interval = RunContext { interval: None, ..context.clone() };
    refused(db.fetch(&read, no_interval).await, "DW0120", &["it's"]);
    for (bind, value) in [("whole", "secret".into()), ("word", 5.into()), ("word", "sec\0ret".into())] {
        let mut context = context.clone();
        context.params.insert(bind.into(), value);
        refused(db.fetch(&read, context).await, "DW0120", &["secret", "ret"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_bind_holds_it_stays_a_value() {
    let db = Db::new("hostile").await;
    db.run("CREATE TABLE t AS SELECT 7::int8 AS id").await;
    let locator = bound("SELECT id, $v AS note FROM hostile.t WHERE $v = $v", &[("v", ParamType::String)]);
    let read = db.read(locator, &id_note());
    let known = [
        "",
        "'",
        "''",
        r"\'",
        r"\",
        "$v",
        "$$",
        "') TO PROGRAM 'touch /tmp/owned' --",
        "'; DROP TABLE hostile.t; --",
        "%s\n\t\u{1}",
        "ü\u{1f980}\u{202e}",
    ];
    let mut hostile: Vec<String> = known.map(Into::into).to_vec();
    let pieces = prop_oneof![string_regex(r#"['"\\$;()/*-]{1,4}"#).unwrap(), string_regex("[^\\x00]{0,8}").unwrap()];
    let texts = proptest::collection::vec(pieces, 0..6);
    let mut runner = TestRunner::deterministic();
    hostile.extend((0..100).map(|_| texts.new_tree(&mut runner).unwrap().current().concat()));
    for value in hostile {
        let fetched = db.fetch(&read, run_with(serde_json::json!({ "v": value.clone() }))).await;
        let fetched = fetched.unwrap_or_else(|error| panic!("{value:?}: {error}"));
        assert_eq!(fetched.rows.num_rows(), 1, "{value:?}");
        assert_eq!(fetched.rows.column(1).as_string::<i32>().value(0), value);
    }
    assert_eq!(db.count("t").await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_that_is_gone_or_changed_is_told() {
    let db = Db::new("gone").await;
    let read = db.read(db.locator("t"), &id_note());
    refused(db.fetch(&read, run("r")).await, "DW0301", &[]);
    let skip = SourceRead { on_missing: OnMissing::Skip, ..read.clone() };
    assert_eq!(db.fetch(&skip, run("r")).await.unwrap().rows.num_rows(), 0);
    db.run("CREATE TABLE t (id int8)").await;
    refused(db.fetch(&read, run("r")).await, "DW0305", &[]);
    db.run("ALTER TABLE t ADD note bytea").await;
    let bytes = db.read(db.locator("t"), &columns(&[("id", "int64"), ("note", "date")]));
    refused(db.fetch(&bytes, run("r")).await, "DW0305", &[]);
}

fn after(
    db: &Db,
    value: Option<&str>,
    initial: Option<&str>,
) -> (SourceRead, ReadContext, tokio::sync::mpsc::Receiver<dagwright_dataplane::tally::Reject>) {
    let mut read = db.read(db.locator("t"), &columns(&[("id", "int64"), ("at", "timestamptz")]));
    read.incremental = Some(IncrementalRead {
        incremental: Incremental { cursor: "at".into(), initial_value: initial.map(Into::into), lag: None },
        data_type: "timestamptz".parse().unwrap(),
        committed_in: Vec::new(),
    });
    let (rejects, rejected) = Rejects::channel();
    let context = ReadContext {
        name: name("source"),
        run: std::sync::Arc::new(run("r")),
        environment: db.environment.clone(),
        sealed: std::sync::Arc::default(),
        after_cursor: value.map(Into::into),
        streams: 1,
        batch_rows: 3,
        tally: SourceTally::shared(),
        rejects,
        cancel: CancellationToken::new(),
    };
    (read, context, rejected)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_bounds_the_read_on_the_server() {
    let db = Db::new("incremental").await;
    db.run("CREATE TABLE t AS SELECT i::int8 AS id, timestamptz '2024-01-01 00:00Z' + i * interval '1 hour' AS at FROM generate_series(1, 10) i").await;
    let fetch = async |value: Option<&str>, initial: Option<&str>| {
        let (read, context, mut rejected) = after(&db, value, initial);
        db.fetch_with(&read, context, &mut rejected).await.unwrap()
    };
    assert_eq!(fetch(None, None).await.rows.num_rows(), 10);
    let some = fetch(Some("2024-01-01T08:00:00Z"), None).await;
    assert_eq!((ids(&some), some.counts.read, some.counts.skipped), (vec![9, 10], 2, 0));
    assert_eq!(ids(&fetch(None, Some("2024-01-01T09:00:00Z")).await), [10]);
    let (read, context, mut rejected) = after(&db, Some("2024-01-01T08:00:00Z"), None);
    let interval = Interval { start: "2024-01-01T02:00:00Z".into(), end: "2024-01-01T04:00:00Z".into() };
    let backfill = RunContext { backfill: true, interval: Some(interval), ..run("r") };
    let context = ReadContext { run: std::sync::Arc::new(backfill), ..context };
    assert_eq!(ids(&db.fetch_with(&read, context, &mut rejected).await.unwrap()), [2, 3]);
    // A row without a cursor would never be loaded.
    db.run("INSERT INTO t VALUES (11, NULL)").await;
    let (read, context, mut rejected) = after(&db, Some("2024-01-01T08:00:00Z"), None);
    refused(db.fetch_with(&read, context, &mut rejected).await, "DW0309", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_cover_every_row_once() {
    let db = Db::new("partitions").await;
    db.run(
        "CREATE TABLE t AS SELECT (i * i)::int8 AS id, 'n' AS note FROM generate_series(1, 1000) i;
        INSERT INTO t VALUES (NULL, 'null'); CREATE INDEX ON t (id)",
    )
    .await;
    for analysed in [false, true] {
        let read = SourceRead { partitioned: true, ..db.read(db.locator("t"), &id_note()) };
        let split =
            Split { source: name("source"), read: read.clone(), by: SplitBy::KeyRange("id".into()), partitions_max: 4 };
        let (_, context, _rejected) = after(&db, None, None);
        let parts = PostgresSource::new().split(&split, &context).await.unwrap();
        assert_eq!(parts.len(), 4);
        let mut sizes = Vec::new();
        for part in parts {
            sizes.push(db.fetch(&read, partition_run("r", part)).await.unwrap().rows.num_rows());
        }
        assert_eq!(sizes.iter().sum::<usize>(), 1001, "{sizes:?}");
        // Even in rows by the histogram, in values without.
        assert_eq!(sizes.iter().all(|size| (200..300).contains(size)), analysed, "{sizes:?}");
        db.run("ANALYZE t").await;
    }
    for (key, max) in [
        ("date '2024-01-01' + i", "date"),
        ("timestamp '2024-01-01' + i * interval '1 s'", "timestamp"),
        ("timestamptz '2024-01-01Z' + i * interval '1 s'", "timestamptz"),
    ] {
        db.run(&format!(
            "DROP TABLE t; CREATE TABLE t AS SELECT i::int8 AS id, {key} AS key FROM generate_series(1, 100) i"
        ))
        .await;
        let read =
            SourceRead { partitioned: true, ..db.read(db.locator("t"), &columns(&[("id", "int64"), ("key", max)])) };
        let split = Split {
            source: name("source"),
            read: read.clone(),
            by: SplitBy::KeyRange("key".into()),
            partitions_max: 3,
        };
        let (_, context, _rejected) = after(&db, None, None);
        let mut all = Vec::new();
        for part in PostgresSource::new().split(&split, &context).await.unwrap() {
            let fetched = db.fetch(&read, partition_run("r", part)).await.unwrap();
            assert!(fetched.rows.num_rows() > 20, "{max}");
            all.extend(ids(&fetched));
        }
        all.sort_unstable();
        assert_eq!(all, (1..=100).collect::<Vec<_>>());
    }
    let files = Partition { index: 0, count: 1, range: PartitionRange::Files(Vec::new()) };
    let read = SourceRead { partitioned: true, ..db.read(db.locator("t"), &columns(&[("id", "int64")])) };
    refused(db.fetch(&read, partition_run("r", files)).await, "DW0120", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn masks_apply_and_filters_too() {
    let db = Db::new("masks").await;
    db.run("CREATE TABLE t AS SELECT i::int8 AS id, 'same' AS a, 'secret' AS b, i AS c FROM generate_series(1, 3) i; UPDATE t SET a = NULL, b = NULL WHERE id = 3").await;
    let mut read =
        db.read(db.locator("t"), &columns(&[("id", "int64"), ("a", "string"), ("b", "string"), ("c", "int32")]));
    read.masks = BTreeMap::from([("a".into(), Mask::Hmac), ("b".into(), Mask::Redact), ("c".into(), Mask::Null)]);
    read.filters = vec!["id >= 2".into()];
    let fetched = db.fetch(&read, run("r")).await.unwrap();
    assert_eq!((ids(&fetched), fetched.counts.read, fetched.counts.skipped), (vec![2, 3], 2, 1));
    let (a, b) = (fetched.rows.column(1).as_string::<i32>(), fetched.rows.column(2).as_string::<i32>());
    assert_eq!((a.value(0).len(), b.value(0)), (64, "***"));
    assert!(a.is_null(1) && b.is_null(1));
    assert_eq!(fetched.rows.column(3).null_count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_arrow_cannot_hold_follow_the_policy() {
    let db = Db::new("misfits").await;
    db.run("CREATE TABLE t AS SELECT * FROM (VALUES (1::int8, timestamp 'infinity', 'NaN'::numeric, '{{1,2},{3,4}}'::int[]),
        (2, timestamp '2024-01-01', 1.5, '{1,NULL}'), (3, '2024-01-01', 1.25, NULL)) AS v (id, at, n, list)").await;
    let all = [("id", "int64"), ("at", "timestamp"), ("n", "decimal(10,1)"), ("list", "list<int32>")];
    let read = db.read(db.locator("t"), &columns(&all));
    refused(db.fetch(&read, run("r")).await, "DW0503", &["NaN", "1.25"]);
    let null = SourceRead { lossy: LossyCast::Null, ..read.clone() };
    let fetched = db.fetch(&null, run("r")).await.unwrap();
    assert_eq!((fetched.counts.nulled, fetched.rows.num_rows()), (4, 3));
    let mut quarantine = SourceRead { lossy: LossyCast::Quarantine, ..read };
    quarantine.classified = vec!["at".into()];
    let fetched = db.fetch(&quarantine, run("r")).await.unwrap();
    assert_eq!((fetched.counts.read, fetched.counts.passed, fetched.counts.quarantined), (3, 1, 2));
    assert_eq!(ids(&fetched), [2]);
    let rejected: Vec<_> = fetched.rejects.iter().map(|reject| reject.values["id"].clone()).collect();
    assert_eq!(rejected, [1, 3]);
    assert!(fetched.rejects.iter().all(|reject| !reject.values.contains_key("at") && reject.reason.contains("column")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_read_ends_its_statement() {
    let db = Db::new("cancelled_read").await;
    let (_, context, _rejected) = after(&db, None, None);
    let read =
        db.read(query("SELECT generate_series(1, 1000000000)::int8 AS id, 'cancelled_read' AS note"), &id_note());
    let (_, mut streams) = PostgresSource::new().open(&read, &context).await.unwrap();
    let mut stream = streams.remove(0);
    use futures::StreamExt;
    stream.next().await.unwrap().unwrap();
    context.cancel.cancel();
    let error = loop {
        match stream.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => break error,
            None => panic!("a cancelled stream looked complete"),
        }
    };
    assert_eq!(error.code().to_string(), "DW0605");
    let client = crate::harness::connect(server()).await;
    let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'COPY%cancelled_read%'";
    while client.query_one(running, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::task::yield_now().await;
    }
}
