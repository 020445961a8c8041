//! Who may connect, to what, and what is said when not.

use std::{collections::BTreeMap, net::TcpListener, sync::Arc};

use dagwright_dataplane::connectors::{
    Sink, Source, WriteContext,
    postgres::{PostgresSink, PostgresSource},
};
use dagwright_model::{
    facts::Identity,
    spec::{CsvOptions, Locator, OnMissing, ParamType, QueryBind, SinkMode, Source as SourceSpec},
};

use crate::harness::{Db, connect, environment, id_note, name, refused, rows, run, server};

fn spec(locator: Locator) -> SourceSpec {
    SourceSpec {
        locator,
        format: None,
        csv: CsvOptions::default(),
        incremental: None,
        columns: BTreeMap::new(),
        on_missing: OnMissing::Fail,
    }
}

/// The server's URL with another user.
fn url_as(user: &str, password: &str) -> String {
    let rest = server().split_once('@').unwrap().1;
    format!("postgresql://{user}:{password}@{rest}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_a_matter_of_permission() {
    let mut db = Db::new("wrong_password").await;
    db.environment = environment(&url_as("dagwright", "hunter2"));
    let write = db.write("target", SinkMode::Append, &id_note());
    let error = refused(db.load(&write, run("r1"), &[]).await, "DW0402", &["hunter2"]);
    assert!(!error.code().exit().is_retryable());
    let read = db.read(db.locator("target"), &id_note());
    refused(db.fetch(&read, run("r1")).await, "DW0303", &["hunter2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_is_worth_a_retry() {
    let mut db = Db::new("unreachable").await;
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    db.environment = environment(&format!("postgresql://u:hunter2@127.0.0.1:{port}/postgres"));
    let write = db.write("target", SinkMode::Append, &id_note());
    let error = refused(db.load(&write, run("r1"), &[]).await, "DW0401", &["hunter2"]);
    assert!(error.code().exit().is_retryable());
    let read = db.read(db.locator("target"), &id_note());
    refused(db.fetch(&read, run("r1")).await, "DW0302", &["hunter2"]);
    db.environment = environment("postgresql://u:hunter2@no.such.host.invalid/postgres");
    refused(db.fetch(&read, run("r1")).await, "DW0302", &["hunter2"]);
    db.environment = environment(&server().replace("/postgres", "/postgres?sslmode=require"));
    refused(db.fetch(&read, run("r1")).await, "DW0302", &[]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_system_than_the_sealed_one_is_refused_before_any_write() {
    let db = Db::new("other_system").await;
    let write = db.write("target", SinkMode::Append, &id_note());
    let elsewhere = Identity {
        scheme: "postgresql".into(),
        host: Some("elsewhere".into()),
        port: Some(5432),
        database: Some("db".into()),
    };
    let sealed = Arc::new(BTreeMap::from([(name(crate::harness::CONNECTION), elsewhere)]));
    let context = WriteContext { sealed, ..db.write_context(run("r1")) };
    let begun = PostgresSink::new().begin(&write, &context).await;
    refused(begun.map(|_| ()), "DW0602", &[]);
    assert_eq!(db.one("SELECT to_regclass('other_system._dagwright_effects')").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_privileges_are_named() {
    let mut db = Db::new("denied").await;
    db.run(
        "CREATE ROLE guest LOGIN PASSWORD 'guest'; CREATE TABLE target (id bigint, note text);
        INSERT INTO target VALUES (1, 'a')",
    )
    .await;
    db.environment = environment(&url_as("guest", "guest"));
    let read = db.read(db.locator("target"), &id_note());
    let write = db.write("target", SinkMode::Append, &id_note());
    refused(db.fetch(&read, run("r")).await, "DW0303", &[]);
    refused(db.load(&write, run("r"), &[rows(&[(1, "a")])]).await, "DW0402", &[]);
    db.run("GRANT USAGE ON SCHEMA denied TO guest").await;
    refused(db.fetch(&read, run("r")).await, "DW0303", &[]);
    refused(db.load(&write, run("r"), &[rows(&[(1, "a")])]).await, "DW0402", &[]);
    let sink = PostgresSink::new();
    let inspect = async || {
        let found =
            sink.inspect(&name("sink"), &write.locator, None, SinkMode::Append, &run("r"), &db.environment).await;
        let found = found.unwrap().privileges;
        (found.create, found.insert, found.alter)
    };
    assert_eq!(inspect().await, (false, false, false));
    db.run("GRANT CREATE ON SCHEMA denied TO guest; GRANT SELECT, INSERT ON target TO guest").await;
    assert_eq!(inspect().await, (true, true, false));
    assert_eq!(db.fetch(&read, run("r")).await.unwrap().rows.num_rows(), 1);
    // Only the owner can add the column of run ids.
    refused(db.load(&write, run("r"), &[rows(&[(1, "a")])]).await, "DW0402", &[]);
    let plain = dagwright_model::task::SinkWrite { meta_columns: false, ..write.clone() };
    db.load(&plain, run("r"), &[rows(&[(2, "b")])]).await.unwrap();
    assert_eq!(db.count("target").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sink_is_inspected() {
    let db = Db::new("inspected").await;
    let locator = db.locator("target");
    let inspect = async || {
        let sink = PostgresSink::new();
        sink.inspect(&name("sink"), &locator, None, SinkMode::Upsert, &run("r"), &db.environment).await.unwrap()
    };
    let found = inspect().await;
    assert!(!found.exists && found.privileges.create);
    db.run("CREATE TABLE target (id bigint PRIMARY KEY, code varchar(3) NOT NULL UNIQUE, n int GENERATED ALWAYS AS IDENTITY,
          made timestamptz NOT NULL DEFAULT now(), price numeric(9,2), _dagwright_run_id uuid);
        CREATE UNIQUE INDEX ON target (price) WHERE price > 0; CREATE TABLE child (id bigint REFERENCES target);
        INSERT INTO target (id, code) VALUES (1, 'a'), (2, 'b')")
        .await;
    let found = inspect().await;
    let seen: Vec<String> = found
        .columns
        .iter()
        .map(|c| {
            format!("{} {} {} {} {}", c.column.name, c.column.data_type, c.column.nullable, c.has_default, c.generated)
        })
        .collect();
    assert_eq!(
        seen,
        [
            "id int64 false false false",
            "code string(3) false false false",
            "n int32 false true true",
            "made timestamptz false true false",
            "price decimal(9,2) true false false",
        ]
    );
    assert_eq!(found.unique_keys, [["id"], ["code"]]);
    assert_eq!((found.rows, found.referenced_by), (Some(2), vec!["inspected.child".to_owned()]));
    assert_eq!(found.identity.database.as_deref(), Some("postgres"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_profiled() {
    let db = Db::new("profiled").await;
    db.run(
        "CREATE TABLE events (id bigint PRIMARY KEY, at timestamptz NOT NULL, who text, amount numeric, mail text);
        CREATE INDEX ON events (at);
        INSERT INTO events SELECT i, timestamptz '2024-01-01' + i * interval '1 min', 'u' || i % 10,
          CASE WHEN i % 4 = 0 THEN NULL ELSE i / 8.0 END, 'm' || i FROM generate_series(1, 1000) i; ANALYZE events",
    )
    .await;
    let mut source = spec(db.locator("events"));
    source.columns.entry("mail".into()).or_default().classification = Some("pii".into());
    let keys = [vec!["id".to_owned()], vec!["who".to_owned()]];
    let profile = async || {
        PostgresSource::new().profile(&name("events"), &source, &keys, &run("r"), &db.environment).await.unwrap()
    };
    let found = profile().await;
    let text = serde_json::to_string(&found).unwrap();
    assert!(!text.contains("\"m1\"") && !text.contains("\"m999\""), "{text}");
    assert_eq!((found.rows.value, found.rows.exact, found.rows_sampled), (1000, true, 1000));
    assert_eq!(found.columns[3].column.data_type.to_string(), "decimal(38,20)");
    assert_eq!((found.columns[3].nulls, found.columns[2].distinct), (250, Some(10)));
    assert_eq!(found.columns[0].min.as_deref(), Some("1"));
    assert_eq!(found.candidate_keys, [["id"]]);
    assert_eq!(found.key_checks[1].duplicates.value, 990);
    let watermarks: Vec<_> = found.watermarks.iter().map(|w| (w.column.as_str(), w.indexed, w.regressions)).collect();
    assert_eq!(watermarks, [("at", true, 0), ("id", true, 0)]);
    assert_eq!(found.splits.len(), 2);
    assert_eq!(profile().await, found);
    assert_eq!(found.fingerprint.len(), 64);

    let missing = spec(db.locator("nothing"));
    let found = PostgresSource::new().profile(&name("n"), &missing, &[], &run("r"), &db.environment).await.unwrap();
    assert!(!found.exists);
    let query = Locator::Query {
        connection: name(crate::harness::CONNECTION),
        query: "SELECT who, count(*) n FROM profiled.events GROUP BY 1 -- x".into(),
        binds: BTreeMap::new(),
    };
    let found = PostgresSource::new().profile(&name("q"), &spec(query), &[], &run("r"), &db.environment).await.unwrap();
    assert_eq!((found.rows.value, found.columns.len()), (10, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_sees_a_query_with_samples() {
    let db = Db::new("samples").await;
    db.run("CREATE TABLE t AS SELECT i::int8 AS id, now() AS at FROM generate_series(1, 100) i").await;
    let bind = |name: &str, param_type, sample: Option<&str>| {
        (name.to_owned(), QueryBind { param_type, sample: sample.map(Into::into) })
    };
    let query = Locator::Query {
        connection: name(crate::harness::CONNECTION),
        query: "SELECT id, $tag AS tag, $none AS none FROM samples.t
            WHERE at >= $data_interval_start AND at < $data_interval_end AND id <= $most"
            .into(),
        binds: BTreeMap::from([
            bind("tag", ParamType::String, Some("'")),
            bind("none", ParamType::Integer, None),
            bind("most", ParamType::Integer, Some("40")),
            bind("data_interval_start", ParamType::Timestamp, Some("1900-01-01T00:00:00Z")),
            bind("data_interval_end", ParamType::Timestamp, Some("2100-01-01T00:00:00Z")),
        ]),
    };
    let found = PostgresSource::new().profile(&name("q"), &spec(query), &[], &run("r"), &db.environment).await.unwrap();
    assert_eq!((found.rows.value, found.rows.exact), (40, true));
    let types: Vec<String> = found.columns.iter().map(|seen| seen.column.data_type.to_string()).collect();
    assert_eq!(types, ["int64", "string", "int64"]);
    assert_eq!(found.columns[1].min.as_deref(), Some("'"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_table_is_sampled() {
    let db = Db::new("sampled").await;
    db.run("CREATE TABLE big AS SELECT i AS id, i % 7 AS day FROM generate_series(1, 150000) i; ANALYZE big").await;
    let source = spec(db.locator("big"));
    let keys = [vec!["id".to_owned()]];
    let found = PostgresSource::new().profile(&name("big"), &source, &keys, &run("r"), &db.environment).await.unwrap();
    assert!(!found.rows.exact && !found.key_checks[0].duplicates.exact && found.candidate_keys.is_empty());
    assert!(found.rows_sampled > 1000 && found.rows_sampled < 100_000, "{}", found.rows_sampled);
    // A connection that closes leaves no transaction open.
    let client = connect(server()).await;
    let open = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'dagwright' AND query LIKE '%sampled%'
        AND state LIKE 'idle in transaction%'";
    while client.query_one(open, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        tokio::task::yield_now().await;
    }
}
