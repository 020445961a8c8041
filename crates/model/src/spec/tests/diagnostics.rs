//! The table of bad specs: for each, every diagnostic's code, path and line.

use crate::spec::Spec;

const HEAD: &str = "version: 1\npipeline: p\n";
const SOURCE: &str = "source: { uri: x.csv }\n";
const SINK: &str = "sink: { uri: y.csv, mode: replace }\n";
const TABLE: &str = "sink: { connection: db, table: t, mode: append }\n";

/// Checks a whole text.
#[track_caller]
fn check(text: &str, wanted: &[(&str, &str, u32)]) {
    let diagnostics = match Spec::parse(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(diagnostics) => diagnostics,
    };
    let found: Vec<_> =
        diagnostics.0.iter().map(|one| (one.code.to_string(), one.path.clone(), one.line.unwrap_or(0))).collect();
    let found: Vec<_> = found.iter().map(|(code, path, line)| (code.as_str(), path.as_str(), *line)).collect();
    assert_eq!(found, wanted, "\n{text}\n{diagnostics}");
}

/// Checks lines put after a good start, which is the lines 1 to 4.
#[track_caller]
fn after_base(text: &str, wanted: &[(&str, &str, u32)]) {
    check(&format!("{HEAD}{SOURCE}{SINK}{text}"), wanted);
}

/// Checks a source (line 3) that goes into a table.
#[track_caller]
fn source(text: &str, wanted: &[(&str, &str, u32)]) {
    check(&format!("{HEAD}source: {text}\n{TABLE}"), wanted);
}

/// Checks a sink (line 4).
#[track_caller]
fn sink(text: &str, wanted: &[(&str, &str, u32)]) {
    check(&format!("{HEAD}{SOURCE}sink: {text}\n"), wanted);
}

#[test]
fn structure() {
    check("just text", &[("DW0103", "", 1)]);
    check("[1, 2]", &[("DW0103", "", 1)]);
    check(
        "version: 2\npipeline: p\nsource: { uri: x.csv }\nsink: { uri: y.csv, mode: replace }",
        &[("DW0103", "version", 1)],
    );
    check(
        "{}",
        &[("DW0104", "pipeline", 1), ("DW0104", "sinks", 1), ("DW0104", "sources", 1), ("DW0104", "version", 1)],
    );
    check(HEAD, &[("DW0104", "sinks", 1), ("DW0104", "sources", 1)]);
    after_base("sorces: {}\n", &[("DW0102", "sorces", 5)]);
    after_base(
        "namespace: Avi-ation\nowner: 12\ntags: x\n",
        &[("DW0105", "namespace", 5), ("DW0103", "owner", 6), ("DW0103", "tags", 7)],
    );
    after_base("tags:\n- a\n- 2013\n- ''\n", &[("DW0103", "tags[1]", 7), ("DW0103", "tags[2]", 8)]);
    after_base("transform:\n", &[("DW0103", "transform", 5)]);
    after_base(
        "goals: { memory_max: lots, deadline: 30, optimize: speed }\n",
        &[("DW0103", "goals.deadline", 5), ("DW0103", "goals.memory_max", 5), ("DW0103", "goals.optimize", 5)],
    );
    after_base("retries: { max: 101, backof: 1s }\n", &[("DW0102", "retries.backof", 5), ("DW0103", "retries.max", 5)]);
    after_base("airflow: { max_active_runs: 0 }\n", &[("DW0103", "airflow.max_active_runs", 5)]);
    after_base("airflow: { pool: \"{{ 1 }}\" }\n", &[("DW0103", "airflow.pool", 5)]);
    after_base("policy: { lossy_cast: null }\n", &[("DW0103", "policy.lossy_cast", 5)]);
    after_base("policy: { schema_change: breaking }\n", &[("DW0103", "policy.schema_change", 5)]);
    check(
        &format!("{HEAD}{SINK}sources:\n  Bad-Name: {{ uri: x.csv }}\n  good: {{ url: x.csv, format: xls }}\n"),
        &[("DW0105", "sources.Bad-Name", 5), ("DW0103", "sources.good.format", 6), ("DW0102", "sources.good.url", 6)],
    );
    source(
        "{ uri: x.csv, columns: { \"e mail\": { type: varchar, mask: null } } }",
        &[("DW0103", "source.columns.\"e mail\".mask", 3), ("DW0103", "source.columns.\"e mail\".type", 3)],
    );
}

#[test]
fn faults_of_all_kinds_come_at_once() {
    check(
        &format!(
            "{HEAD}ownr: me\nsource: {{ uri: ftp://x/y.csv }}\ntransform:\n- {{ name: a, sql: SELECT $x FROM sorce }}\n\
             sink: {{ uri: y.csv, mode: append }}\nschedule: '@sometimes'\n"
        ),
        &[
            ("DW0102", "ownr", 3),
            ("DW0111", "source.uri", 4),
            ("DW0107", "transform[0].sql", 6),
            ("DW0107", "transform[0].sql", 6),
            ("DW0106", "sink.mode", 7),
            ("DW0103", "schedule", 8),
        ],
    );
    // Even where required keys are missing or wrong.
    check(
        "version: 3\npipline: p\nsources:\n  a: { url: x.csv }\n  b: { connection: db, table: t, query: SELECT 1 }\ntransform:\n\
         - { name: s, sql: SELECT * FROM c }\nsink: { uri: y.csv, mode: upsrt, key: k }\nquality:\n- { name: G, check: $x > 1, \
         on_fail: warn }\n- { name: h, on_fail: warn }\nschedule: { cron: 0 25 * * *, timezone: Mars }\n",
        &[
            ("DW0104", "pipeline", 1),
            ("DW0103", "version", 1),
            ("DW0102", "pipline", 2),
            ("DW0102", "sources.a.url", 4),
            ("DW0106", "sources.b", 5),
            ("DW0107", "transform[0].sql", 7),
            ("DW0103", "sink.key", 8),
            ("DW0103", "sink.mode", 8),
            ("DW0105", "quality[0].name", 10),
            ("DW0104", "quality[1]", 11),
            ("DW0103", "schedule.cron", 12),
            ("DW0103", "schedule.timezone", 12),
        ],
    );
    // What may only follow from a fault is not said as well.
    check(&format!("{HEAD}source: {{ uri: 5 }}\n{SINK}"), &[("DW0103", "source.uri", 3)]);
    after_base("quality: [{ name: g, check: 5, on_fail: warn }]\n", &[("DW0103", "quality[0].check", 5)]);
}

#[test]
fn sources() {
    check(&format!("{HEAD}{SINK}{SOURCE}sources: {{ a: {{ uri: a.csv }} }}\n"), &[("DW0106", "source", 4)]);
    source("{}", &[("DW0104", "source", 3)]);
    source("{ uri: x.csv, connection: db }", &[("DW0106", "source", 3)]);
    source("{ connection: db }", &[("DW0104", "source", 3)]);
    source("{ table: t }", &[("DW0104", "source.connection", 3)]);
    source("{ connection: db, table: t, query: SELECT 1 }", &[("DW0106", "source", 3)]);
    source("{ connection: db, table: a.b.c }", &[("DW0105", "source.table", 3)]);
    source("{ connection: db, query: DELETE FROM t }", &[("DW0501", "source.query", 3)]);
    source("{ connection: db, query: SELECT 1; SELECT 2 }", &[("DW0501", "source.query", 3)]);
    source("{ connection: db, query: SELECT * FROM t WHERE d = $region }", &[("DW0107", "source.query", 3)]);
    source(
        "{ connection: db, table: t, format: csv, csv: {} }",
        &[("DW0106", "source.csv", 3), ("DW0106", "source.format", 3)],
    );
    source("{ uri: x.parquet, format: parquet, csv: { header: true } }", &[("DW0106", "source.csv", 3)]);
    source("{ uri: x.csv, csv: { delimiter: ä } }", &[("DW0103", "source.csv.delimiter", 3)]);
    source("{ uri: x.csv, csv: { delimiter: ';', quote: ';' } }", &[("DW0106", "source.csv.quote", 3)]);
    source("{ uri: x.csv, on_missing: skip }", &[("DW0106", "source.on_missing", 3)]);
    source(
        "{ uri: x.csv, on_missing: skip, columns: { a: { classification: pii } } }",
        &[("DW0106", "source.on_missing", 3)],
    );
    source("{ uri: x.csv, columns: { a: { type: int32, mask: hmac } } }", &[("DW0106", "source.columns.a.mask", 3)]);
    source(
        "{ uri: x.csv, incremental: { cursor: a }, columns: { a: { classification: pii } } }",
        &[("DW0106", "source.incremental.cursor", 3)],
    );
    source(
        "{ uri: x.csv, incremental: { cursor: a }, columns: { a: { type: boolean } } }",
        &[("DW0106", "source.incremental.cursor", 3)],
    );
    source(
        "{ uri: x.csv, incremental: { cursor: a, initial_value: [1] } }",
        &[("DW0103", "source.incremental.initial_value", 3)],
    );
    source(
        "{ uri: x.csv, incremental: { cursor: a, initial_value: 2013-02-30 }, columns: { a: { type: date } } }",
        &[("DW0103", "source.incremental.initial_value", 3)],
    );
    source("{ uri: x.csv, incremental: { cursor: '' } }", &[("DW0105", "source.incremental.cursor", 3)]);
    check(
        &format!(
            "{HEAD}source: {{ uri: x.csv, incremental: {{ cursor: a, lag: 5 }}, columns: {{ a: {{ type: date }} }} }}\n\
             sink: {{ connection: db, table: t, mode: upsert, key: [k] }}\n"
        ),
        &[("DW0106", "source.incremental.lag", 3)],
    );
}

#[test]
fn uris_and_credentials() {
    source("{ uri: postgresql://db/x }", &[("DW0111", "source.uri", 3)]);
    source("{ uri: 'x-{data_interval_start:%Q}.csv' }", &[("DW0111", "source.uri", 3)]);
    source("{ uri: 's3://me:pw@b/x.csv' }", &[("DW0109", "source.uri", 3)]);
    source("{ uri: 'https://e.org/x.csv?X-Amz-Signature=0f' }", &[("DW0109", "source.uri", 3)]);
    source(
        "{ connection: db, query: \"SELECT * FROM dblink('host=h password=pw', 'SELECT 1') t(x int)\" }",
        &[("DW0109", "source.query", 3)],
    );
    source(
        "{ connection: db, table: t, password: pw }",
        &[("DW0102", "source.password", 3), ("DW0109", "source.password", 3)],
    );
    after_base("description: see postgresql://u:pw@db/x\n", &[("DW0109", "description", 5)]);
    after_base("owner: \"a\\u0000b\"\n", &[("DW0103", "owner", 5)]);
    let diagnostics = Spec::parse(&format!("{HEAD}{SINK}source: {{ uri: 'pg://me:hunter2@b/x' }}\n")).unwrap_err();
    assert!(!diagnostics.to_string().contains("hunter2"), "{diagnostics}");
}

#[test]
fn sinks() {
    check(&format!("{HEAD}{SOURCE}{SINK}sinks: {{ a: {{ uri: a.csv, mode: replace }} }}\n"), &[("DW0106", "sink", 4)]);
    sink("{ mode: append }", &[("DW0104", "sink", 4)]);
    sink("{ uri: y.csv }", &[("DW0104", "sink.mode", 4)]);
    sink("{ connection: db, mode: append }", &[("DW0104", "sink.table", 4)]);
    sink("{ table: t, mode: append }", &[("DW0104", "sink.connection", 4)]);
    sink("{ uri: y.csv, table: t, mode: replace }", &[("DW0106", "sink", 4)]);
    sink("{ connection: db, query: SELECT 1, mode: append }", &[("DW0102", "sink.query", 4)]);
    sink("{ uri: https://e.org/y.csv, mode: replace }", &[("DW0111", "sink.uri", 4)]);
    sink("{ uri: 'y-*.csv', mode: replace }", &[("DW0111", "sink.uri", 4)]);
    sink("{ uri: y.csv, mode: append }", &[("DW0106", "sink.mode", 4)]);
    sink("{ uri: out/, format: parquet, mode: upsert, key: [a] }", &[("DW0106", "sink.mode", 4)]);
    sink("{ connection: db, table: t, mode: scd2, key: [a] }", &[("DW0110", "sink.mode", 4)]);
    sink("{ uri: out/, format: csv, mode: overwrite_partitions }", &[("DW0110", "sink.mode", 4)]);
    sink("{ connection: db, table: t, mode: upsert }", &[("DW0104", "sink.key", 4)]);
    sink(
        "{ connection: db, table: t, mode: upsert, key: [a, a, ' '] }",
        &[("DW0106", "sink.key[1]", 4), ("DW0105", "sink.key[2]", 4)],
    );
    sink("{ connection: db, table: t, mode: append, key: [a] }", &[("DW0106", "sink.key", 4)]);
    sink("{ connection: db, table: t, mode: append, dedupe: { order_by: [a] } }", &[("DW0106", "sink.dedupe", 4)]);
    sink(
        "{ connection: db, table: t, mode: upsert, key: [a], dedupe: { order_by: [] } }",
        &[("DW0103", "sink.dedupe.order_by", 4)],
    );
    sink(
        "{ connection: db, table: t, mode: append, format: csv, write: { header: true } }",
        &[("DW0106", "sink.format", 4), ("DW0106", "sink.write", 4)],
    );
    sink("{ uri: out/, mode: append }", &[("DW0104", "sink.format", 4)]);
    sink("{ uri: y.csv, format: parquet, mode: replace }", &[("DW0106", "sink.format", 4)]);
    sink("{ uri: y.parquet, mode: replace, write: { compression: gzip } }", &[("DW0106", "sink.write.compression", 4)]);
    sink("{ uri: y.csv, mode: replace, write: { compression: snappy } }", &[("DW0106", "sink.write.compression", 4)]);
    sink("{ uri: y.csv.gz, mode: replace, write: { compression: zstd } }", &[("DW0106", "sink.write.compression", 4)]);
    sink("{ uri: y.ndjson, mode: replace, write: { delimiter: ';' } }", &[("DW0106", "sink.write.delimiter", 4)]);
    sink("{ uri: y.csv, mode: replace, meta_columns: false }", &[("DW0106", "sink.meta_columns", 4)]);
    sink("{ uri: x.csv, mode: replace }", &[("DW0106", "sink.uri", 4)]);
    sink("{ uri: y.csv, mode: replace, from: sorce }", &[("DW0107", "sink.from", 4)]);
    check(
        &format!(
            "{HEAD}{SOURCE}sinks:\n  a: {{ uri: out/, format: csv, mode: append }}\n  b: {{ uri: out/b.csv, mode: replace }}\n"
        ),
        &[("DW0106", "sinks.b.uri", 6)],
    );
    check(
        &format!("{HEAD}sources: {{ a: {{ uri: a.csv }}, b: {{ uri: b.csv }} }}\n{SINK}"),
        &[("DW0104", "sink.from", 4)],
    );
}

#[test]
fn incremental_sources_need_a_sink_that_keeps_what_is_there() {
    let text = |incremental: &str, sink: &str| {
        format!(
            "{HEAD}source: {{ uri: x.csv, incremental: {incremental} }}\ntransform:\n- {{ name: a, sql: SELECT * FROM source }}\n\
             - {{ name: b, sql: SELECT * FROM a }}\nsink: {{ connection: db, table: t, {sink} }}\n"
        )
    };
    check(&text("{ cursor: at }", "mode: replace"), &[("DW0106", "sink.mode", 7)]);
    check(&text("{ cursor: at, lag: 1d }", "mode: append"), &[("DW0106", "sink.mode", 7)]);
    assert!(Spec::parse(&text("{ cursor: at }", "mode: append")).is_ok());
    assert!(Spec::parse(&text("{ cursor: at, lag: 1d }", "mode: upsert, key: [k]")).is_ok());
}

#[test]
fn steps_and_params() {
    after_base(
        "transform:\n- { name: a, sql: SELECT * FROM source }\n- { name: a, sql: SELECT 1 }\n",
        &[("DW0106", "transform[1].name", 7)],
    );
    after_base("transform:\n- { name: source, sql: SELECT 1 }\n", &[("DW0106", "transform[0].name", 6)]);
    after_base("transform:\n- { name: a, sql: DROP TABLE x }\n", &[("DW0501", "transform[0].sql", 6)]);
    after_base("transform:\n- { name: a, sql: SELECT (1 FROM source }\n", &[("DW0501", "transform[0].sql", 6)]);
    after_base(
        "transform:\n- name: a\n  sql: |\n    SELECT *\n    FROM sources\n",
        &[("DW0107", "transform[0].sql", 7)],
    );
    after_base(
        "transform:\n- { name: a, sql: SELECT * FROM b }\n- { name: b, sql: SELECT * FROM c }\n- { name: c, sql: SELECT * FROM a }\n\
         - { name: d, sql: SELECT * FROM d }\n",
        &[("DW0108", "transform[0]", 6), ("DW0108", "transform[3]", 9)],
    );
    after_base(
        "params:\n  data_interval_end: { type: date }\n  a: { type: integer, default: x }\n  b: { type: string, enum: [eu, 1], \
         default: us }\n  c: { type: date, default: 2013-02-30 }\n  d: { type: boolean, enum: [] }\n",
        &[
            ("DW0105", "params.data_interval_end", 6),
            ("DW0103", "params.a.default", 7),
            ("DW0106", "params.b.default", 8),
            ("DW0103", "params.b.enum[1]", 8),
            ("DW0103", "params.c.default", 9),
            ("DW0103", "params.d.enum", 10),
        ],
    );
    after_base(
        "params: { region: { type: string } }\ntransform:\n- { name: a, sql: SELECT $regoin FROM source }\n",
        &[("DW0107", "transform[0].sql", 7)],
    );
}

#[test]
fn quality() {
    let gate = |gate: &str, wanted: &[(&str, &str, u32)]| after_base(&format!("quality:\n- {gate}\n"), wanted);
    gate("{ name: g, on_fail: fail }", &[("DW0104", "quality[0]", 6)]);
    gate("{ name: g, on_fail: fail, check: a, unique: [a] }", &[("DW0106", "quality[0]", 6)]);
    gate("{ name: g, on_fail: quarantine, unique: [a] }", &[("DW0106", "quality[0].on_fail", 6)]);
    gate("{ name: g, on_fail: warn, check: a > 1, max_rejected: 1% }", &[("DW0106", "quality[0].max_rejected", 6)]);
    gate(
        "{ name: g, on_fail: quarantine, check: a > 1, max_rejected: 1 }",
        &[("DW0103", "quality[0].max_rejected", 6)],
    );
    gate("{ name: g, on_fail: fail, not_null: [] }", &[("DW0103", "quality[0].not_null", 6)]);
    gate("{ name: g, on_fail: fail, check: 'a > (1' }", &[("DW0501", "quality[0].check", 6)]);
    gate("{ name: g, on_fail: fail, check: a > $b }", &[("DW0107", "quality[0].check", 6)]);
    gate("{ name: g, on_fail: fail, check: a, on: souce }", &[("DW0107", "quality[0].on", 6)]);
    after_base(
        "quality:\n- { name: g, on_fail: fail, check: a }\n- { name: g, on_fail: fail, check: b }\n",
        &[("DW0106", "quality[1].name", 7)],
    );
}

#[test]
fn schedules_and_goals() {
    after_base("schedule: 0 3 * *\n", &[("DW0103", "schedule", 5)]);
    after_base("schedule: '@once'\n", &[("DW0110", "schedule", 5)]);
    after_base(
        "schedule:\n  cron: 61 * * * *\n  timezone: Europe/Berln\n  start_date: 2013-02-29\n  catchup: true\n",
        &[("DW0103", "schedule.cron", 6), ("DW0103", "schedule.timezone", 7), ("DW0103", "schedule.start_date", 8)],
    );
    after_base("schedule: { cron: '@daily', catchup: true }\n", &[("DW0106", "schedule.catchup", 5)]);
    after_base("schedule: { cron: 5 }\n", &[("DW0103", "schedule.cron", 5)]);
    after_base("schedule: [1]\n", &[("DW0103", "schedule", 5)]);
    after_base("schedule: { timezone: UTC }\n", &[("DW0104", "schedule.cron", 5)]);
    after_base("schedule: { assets: [] }\n", &[("DW0103", "schedule.assets", 5)]);
    after_base("schedule: { assets: s3://b/x }\n", &[("DW0103", "schedule.assets", 5)]);
    after_base(
        "schedule:\n  assets: [s3://b/x, flights, 's3://b/x', 'db://me@host/x']\n  cron: '@daily'\n  catchup: true\n",
        &[
            ("DW0111", "schedule.assets[1]", 6),
            ("DW0106", "schedule.assets[2]", 6),
            ("DW0109", "schedule.assets[3]", 6),
            ("DW0106", "schedule.cron", 7),
            ("DW0106", "schedule.catchup", 8),
        ],
    );
    after_base(
        "goals: { memory_max: 1MiB, deadline: 0s }\nretries: { backoff: 2d }\n",
        &[("DW0103", "goals.deadline", 5), ("DW0103", "goals.memory_max", 5), ("DW0103", "retries.backoff", 6)],
    );
    after_base(
        "alerts:\n  on_failure: [ops, 'a b', ops]\n  on_deadline: [ops]\n",
        &[("DW0103", "alerts.on_failure[1]", 6)],
    );
    after_base(
        "alerts:\n  on_failure: [ops, slack-ops, ops]\n  on_deadline: [ops]\n",
        &[("DW0106", "alerts.on_failure[2]", 6), ("DW0106", "alerts.on_deadline", 7)],
    );
    let long = "n".repeat(128);
    check(&format!("version: 1\npipeline: {long}\nnamespace: {long}\n{SOURCE}{SINK}"), &[("DW0105", "pipeline", 2)]);
}

#[test]
fn a_spec_that_is_not_valid_still_says_whose_it_is() {
    for (text, wanted) in [
        ("pipeline: p\nnamespace: n\nsource: 3\nno_such: key", Some("n.p")),
        ("{pipeline: p, sink: [}", None),
        ("{\"pipeline\": \"p\"}", Some("p")),
        ("pipeline: P", None),
        ("pipeline: 3", None),
        ("pipeline: p\nnamespace: 3", None),
        ("pipeline: p\nnamespace: a.b", None),
        ("namespace: n", None),
        ("[p]", None),
        ("", None),
    ] {
        assert_eq!(Spec::dag_id_in(text).as_deref(), wanted, "{text}");
    }
    let long = "n".repeat(128);
    assert_eq!(Spec::dag_id_in(&format!("pipeline: {long}\nnamespace: {long}")), None);
}
