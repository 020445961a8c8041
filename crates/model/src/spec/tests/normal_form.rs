//! What a valid spec is in normal form.

use crate::spec::{Compression, FileFormat, GateRule, Lag, Locator, ParamType, QueryBind, Schedule, Spec};

#[track_caller]
fn parse(text: &str) -> Spec {
    Spec::parse(text).unwrap_or_else(|diagnostics| panic!("{diagnostics}"))
}

#[test]
fn the_smallest_spec_gets_every_default() {
    let spec = parse("version: 1\npipeline: p\nsource: { uri: x.csv }\nsink: { uri: y.parquet, mode: replace }\n");
    assert_eq!(spec.dag_id(), "p");
    assert_eq!(spec.sources.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["source"]);
    let sink = &spec.sinks["sink"];
    assert_eq!((sink.from.as_str(), sink.min_rows, sink.format), ("source", 1, Some(FileFormat::Parquet)));
    assert_eq!(sink.write.compression, Some(Compression::Zstd));
    assert!(!sink.meta_columns && spec.schedule.is_none());
    assert_eq!(spec.goals.memory_max.to_string(), "512MiB");
    assert_eq!((spec.retries.max, spec.retries.backoff.to_string().as_str()), (3, "30s"));
}

#[test]
fn the_order_of_keys_is_the_one_written() {
    let spec = parse(
        "version: 1\npipeline: p\nsources: { z: { uri: z.csv }, a: { uri: a.csv } }\n\
         transform: [{ name: s, sql: SELECT * FROM z JOIN a USING (k) }]\n\
         sinks:\n  z_out: { uri: out/, format: csv, mode: append }\n  a_out: { uri: a.ndjson.gz, from: z, mode: replace }\n\
         quality: [{ name: g, unique: [k], on_fail: warn }]\n",
    );
    assert_eq!(spec.sources.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["z", "a"]);
    assert_eq!(spec.sinks.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["z_out", "a_out"]);
    let first = &spec.sinks["z_out"];
    assert_eq!(
        (first.from.as_str(), first.write.delimiter.as_deref(), first.write.header),
        ("s", Some(","), Some(true))
    );
    assert_eq!(spec.sinks["a_out"].write.compression, Some(Compression::Gzip));
    assert_eq!(spec.quality[0].on.as_str(), "s", "what the first sink writes");
    assert_eq!(spec.quality[0].rule, GateRule::Unique(vec!["k".into()]));
    let read_back: Spec = serde_json::from_str(&serde_json::to_string(&spec).unwrap()).unwrap();
    assert_eq!(read_back, spec);
}

#[test]
fn steps_are_ordered_by_what_they_read_and_else_as_written() {
    let spec = parse(
        "version: 1\npipeline: p\nsource: { uri: x.csv }\nsink: { uri: y.csv, mode: replace, from: d }\ntransform:\n\
         - { name: d, sql: SELECT * FROM c }\n- { name: b, sql: SELECT * FROM source }\n\
         - { name: c, sql: 'SELECT * FROM a, b' }\n- { name: a, sql: SELECT * FROM source }\n",
    );
    assert_eq!(spec.transform.iter().map(|step| step.name.as_str()).collect::<Vec<_>>(), ["b", "a", "c", "d"]);
}

#[test]
fn schedules_presets_and_unquoted_dates_are_spelled_out() {
    let base = "version: 1\npipeline: p\nnamespace: n\nsource: { uri: 'x-{data_interval_start:%Y-%m-%d}.csv', \
                incremental: { cursor: at, initial_value: 2013-01-01, lag: 1d } }\n\
                sink: { connection: db, table: s.t, mode: upsert, key: [id], dedupe: { order_by: [at desc] } }\n";
    let spec = parse(&format!("{base}schedule: '@weekly'\n"));
    let schedule = spec.schedule.as_ref().and_then(Schedule::cron).expect("a schedule");
    assert_eq!((schedule.cron.as_str(), schedule.timezone.as_str(), schedule.catchup), ("0 0 * * 0", "UTC", false));
    let parts =
        "schedule: { cron: ' 0  3 * * mon ', timezone: Europe/Berlin, start_date: 2013-01-01, catchup: true }\n";
    let spec = parse(&format!("{base}{parts}"));
    let schedule = spec.schedule.as_ref().and_then(Schedule::cron).expect("a schedule");
    assert_eq!((schedule.cron.as_str(), schedule.start_date.as_deref()), ("0 3 * * mon", Some("2013-01-01")));
    let incremental = spec.sources["source"].incremental.as_ref().expect("incremental");
    assert_eq!(incremental.initial_value.as_deref(), Some("2013-01-01"));
    assert_eq!(incremental.lag, Some(Lag::Time("1d".parse().unwrap())));
    assert!(matches!(spec.sinks["sink"].locator, Locator::Table { .. }) && spec.sinks["sink"].dedupe[0].descending);
    assert_eq!(spec.dag_id(), "n.p");
}

#[test]
fn schedules_by_assets_are_no_schedules_by_the_clock() {
    let base = "version: 1\npipeline: p\nsource: { uri: x.csv }\nsink: { uri: y.csv, mode: replace }\n";
    let spec = parse(&format!("{base}schedule: {{ assets: ['dagwright://n.q/sink', 's3://bucket/x'] }}\n"));
    let schedule = spec.schedule.expect("a schedule");
    assert_eq!(schedule.cron(), None);
    let written = serde_json::to_value(&schedule).unwrap();
    assert_eq!(written, serde_json::json!({ "assets": ["dagwright://n.q/sink", "s3://bucket/x"] }));
    assert_eq!(serde_json::from_value::<Schedule>(written).unwrap(), schedule);
    // As plans that were sealed before there were assets have it.
    let sealed = serde_json::json!({ "cron": "0 3 * * *", "timezone": "UTC", "start_date": null, "catchup": false });
    let read: Schedule = serde_json::from_value(sealed.clone()).unwrap();
    assert!(read.cron().is_some() && serde_json::to_value(&read).unwrap() == sealed);
}

#[test]
fn yaml_and_json_of_one_spec_are_one_spec() {
    let yaml = "version: 1\npipeline: p\nsource: { uri: x.csv, csv: { delimiter: ';', null_values: [NA, \"\"] } }\n\
                sink: { uri: out/, format: parquet, mode: append }\nquality: \
                [{ name: g, check: x > 1, on_fail: quarantine, max_rejected: 0.5% }]\n";
    let spec = parse(yaml);
    let json = serde_json::to_string_pretty(&super::json(yaml)).unwrap();
    assert_eq!(parse(&json), spec);
    assert_eq!(parse(&json.replace("  ", "\t")).hash(), spec.hash());
}

#[test]
fn binds_of_a_query_have_types_and_samples() {
    let spec = parse(
        "version: 1\npipeline: p\nparams:\n  plain: { type: string }\n  most: { type: integer, default: 7 }\n\
         \x20 region: { type: string, enum: [eu, us] }\n  unused: { type: date }\n\
         source:\n  connection: db\n  query: SELECT '$unused' FROM t WHERE a < $most AND b IN ($plain, $region) AND c >= $data_interval_start\n\
         sink: { uri: out.csv, mode: replace }\n",
    );
    let Locator::Query { binds, .. } = &spec.sources["source"].locator else { panic!("not a query") };
    let bind = |name: &str, param_type, sample: Option<&str>| {
        (name.to_owned(), QueryBind { param_type, sample: sample.map(Into::into) })
    };
    let wanted = [
        bind("data_interval_start", ParamType::Timestamp, Some("1900-01-01T00:00:00Z")),
        bind("most", ParamType::Integer, Some("7")),
        bind("plain", ParamType::String, None),
        bind("region", ParamType::String, Some("eu")),
    ];
    assert_eq!(*binds, wanted.into());
}
