//! Sealed plans as negotiation would have made them, one for each shape of DAG.
//!
//! `carriers` and `parts` are complete: given the files they name, `dagwright-task` can run them.

use std::collections::BTreeMap;

use dagwright_model::{
    facts::{Identity, TextCompression, TextProfile},
    id::{Name, TaskId},
    message::{Cost, Role},
    plan::{Choice, PLAN_VERSION, Plan, PlannedTask, Rejected},
    schema::{Column, DataType},
    spec::{
        Airflow, Alerts, AssetSchedule, CronSchedule, Encoding, FileFormat, GateRule, Locator, LossyCast, OnFail,
        OnMissing, OrderBy, Param, ParamType, Policy, QualityGate, Ragged, Retries, Schedule, SchemaChange, SinkMode,
        Step, TableName, WriteOptions,
    },
    task::{
        Input, Move, Output, Publish, SchemaEdit, SinkWrite, SourceRead, Split, SplitBy, TASK_VERSION, TaskSpec, Work,
        WriteStrategy,
    },
    units::{ByteSize, Ratio, Span},
};
use serde_json::json;

/// Every plan that has a golden.
pub(crate) fn all() -> Vec<Plan> {
    vec![carriers(), staged(), parts(), scheduled(), chained(), hostile()]
}

/// One task does it all: two files joined and counted into a third.
pub(crate) fn carriers() -> Plan {
    let counted = step(
        "counted",
        "SELECT a.carrier, a.name, COUNT(*) AS flights FROM flights f JOIN airlines a ON a.carrier = f.carrier \
         GROUP BY a.carrier, a.name ORDER BY a.carrier",
    );
    let columns = [("carrier", "string"), ("name", "string"), ("flights", "int64")];
    let work = Work::Move(Move {
        inputs: BTreeMap::from([
            (name("flights"), Input::Source(csv("data/flights.csv", &[("carrier", "string")]))),
            (name("airlines"), Input::Source(csv("data/airlines.csv", &columns[..2]))),
        ]),
        steps: vec![counted],
        outputs: vec![Output::Sink(file("sink", "counted", "out/carriers.csv", FileFormat::Csv, &columns))],
        ..no_work()
    });
    Plan {
        description: Some("Flights by carrier.".into()),
        tasks: vec![task("load_sink", Role::Loading, work, &[])],
        choices: vec![
            choice(Role::Extraction, "flights", "one_stream", "One file of 2.5 MiB is read in one stream.", &[]),
            choice(
                Role::Transformation,
                "counted",
                "fused",
                "Both inputs fit the memory budget, so nothing needs staging.",
                &[("staged", "It would write and read 2.5 MiB more for a task that is quick to repeat.")],
            ),
        ],
        ..plan("carriers")
    }
}

/// Two extracts, a transform and a load that pass data through the staging area, with parameters.
pub(crate) fn staged() -> Plan {
    let flights = [("carrier", "string"), ("dep_delay", "float64"), ("time_hour", "timestamptz")];
    let airlines = [("carrier", "string"), ("name", "string")];
    let late = [("carrier_name", "string"), ("late", "int64")];
    let extract = |source: &str, columns: &[(&str, &str)]| {
        Work::Move(Move {
            inputs: BTreeMap::from([(name(source), Input::Source(csv(&format!("data/{source}.csv"), columns)))]),
            outputs: vec![Output::Staged { relation: name(source) }],
            ..no_work()
        })
    };
    let transform = Work::Move(Move {
        inputs: BTreeMap::from([
            (name("flights"), Input::Staged { columns: to_columns(&flights) }),
            (name("airlines"), Input::Staged { columns: to_columns(&airlines) }),
        ]),
        steps: vec![step(
            "late",
            "SELECT a.name AS carrier_name, COUNT(*) AS late FROM flights f JOIN airlines a ON a.carrier = f.carrier \
             WHERE f.dep_delay > $late_after GROUP BY a.name",
        )],
        binds: BTreeMap::from([("late_after".into(), ParamType::Number)]),
        gates: vec![QualityGate {
            name: name("has_name"),
            on: name("late"),
            rule: GateRule::NotNull(vec!["carrier_name".into()]),
            on_fail: OnFail::Fail,
            max_rejected: Ratio(10_000),
        }],
        outputs: vec![Output::Staged { relation: name("late") }],
        ..no_work()
    });
    let load = Work::Move(Move {
        inputs: BTreeMap::from([(name("late"), Input::Staged { columns: to_columns(&late) })]),
        outputs: vec![Output::Sink(file("sink", "late", "out/late.parquet", FileFormat::Parquet, &late))],
        ..no_work()
    });
    Plan {
        description: Some("How many departures were late, by carrier.".into()),
        params: BTreeMap::from([
            (name("late_after"), param(ParamType::Number, json!(15.5), None)),
            (name("region"), param(ParamType::String, json!("eu"), Some(vec![json!("eu"), json!("us")]))),
            (name("full"), param(ParamType::Boolean, json!(false), None)),
            (name("limit"), param(ParamType::Integer, json!(-1), None)),
            (name("since"), param(ParamType::Date, json!("2013-01-01"), None)),
            (name("until"), param(ParamType::Timestamp, json!("2013-02-01T00:00:00Z"), None)),
            (name("batch"), Param { param_type: ParamType::String, default: None, allowed: None }),
        ]),
        deadline: Some(Span(1_800_000)),
        tasks: vec![
            task("extract_flights", Role::Extraction, extract("flights", &flights), &[]),
            task("extract_airlines", Role::Extraction, extract("airlines", &airlines), &[]),
            task("transform", Role::Transformation, transform, &["extract_flights", "extract_airlines"]),
            task("load_sink", Role::Loading, load, &["transform"]),
            cleanup(&["extract_flights", "extract_airlines", "transform", "load_sink"]),
        ],
        choices: vec![choice(
            Role::Transformation,
            "late",
            "staged",
            "The join may need 700 MiB, more than the budget leaves beside the load.",
            &[("fused", "It needs 1.1 GiB, the budget is 512 MiB.")],
        )],
        ..plan("late_departures")
    }
}

/// Files read in parallel by mapped tasks, made visible by one publish.
pub(crate) fn parts() -> Plan {
    let columns = [("carrier", "string"), ("flight", "int64"), ("origin", "string"), ("dest", "string")];
    let read = SourceRead { partitioned: true, ..csv("data/parts/*.csv", &columns) };
    let sink = SinkWrite {
        strategy: WriteStrategy::PartitionStaging,
        ..file("sink", "source", "out/flights/", FileFormat::Parquet, &columns)
    };
    let split = Work::Split(Split {
        source: name("source"),
        read: SourceRead { partitioned: false, ..read.clone() },
        by: SplitBy::Files,
        partitions_max: 8,
    });
    let load = Work::Move(Move {
        inputs: BTreeMap::from([(name("source"), Input::Source(read))]),
        outputs: vec![Output::Sink(sink.clone())],
        ..no_work()
    });
    let publish = Work::Publish(Publish { sink, staged_by: id("load_sink") });
    Plan {
        description: Some("Flights, a part for each file.".into()),
        tasks: vec![
            task("split_source", Role::Extraction, split, &[]),
            PlannedTask {
                mapped_over: Some(id("split_source")),
                ..task("load_sink", Role::Loading, load, &["split_source"])
            },
            task("publish_sink", Role::Loading, publish, &["load_sink"]),
            cleanup(&["split_source", "load_sink", "publish_sink"]),
        ],
        ..plan("parts")
    }
}

/// A nightly upsert from one database into another, with everything a schedule can say.
pub(crate) fn scheduled() -> Plan {
    let columns = [("year", "int32"), ("carrier", "string(2)"), ("flight", "int32"), ("arr_delay", "decimal(6,1)")];
    let table = |connection: &str, table: &str| Locator::Table {
        connection: name(connection),
        table: TableName { schema: Some("public".into()), table: table.into() },
    };
    let database = |host: &str| Identity {
        scheme: "postgresql".into(),
        host: Some(host.into()),
        port: Some(5432),
        database: Some("flights".into()),
    };
    let connections = BTreeMap::from([
        (name("ops_db"), database("ops.example.org")),
        (name("warehouse"), database("warehouse.example.org")),
    ]);
    let source = SourceRead { locator: table("ops_db", "flights"), format: None, text: None, ..csv("", &columns) };
    let sink = SinkWrite {
        locator: table("warehouse", "flights"),
        format: None,
        mode: SinkMode::Upsert,
        strategy: WriteStrategy::StagingTable,
        key: vec!["year".into(), "carrier".into(), "flight".into()],
        dedupe: vec![OrderBy { column: "arr_delay".into(), descending: true }],
        changes: vec![SchemaEdit::CreateTable],
        ..file("sink", "flights", "", FileFormat::Parquet, &columns)
    };
    let work = Work::Move(Move {
        inputs: BTreeMap::from([(name("flights"), Input::Source(source))]),
        outputs: vec![Output::Sink(sink)],
        ..no_work()
    });
    let mut load = task("load_sink", Role::Loading, work, &[]);
    load.spec.connections = connections.clone();
    Plan {
        dag_id: "aviation.flights_daily".into(),
        description: Some("Flights with carrier names, cleaned.".into()),
        owner: Some("data-platform".into()),
        tags: vec!["aviation".into(), "nightly".into()],
        schedule: Some(Schedule::Cron(CronSchedule {
            cron: "0 3 * * *".into(),
            timezone: "Europe/Berlin".into(),
            start_date: Some("2025-01-01".into()),
            catchup: true,
        })),
        deadline: Some(Span(5_400_000)),
        retries: Retries { max: 5, backoff: Span(90_000) },
        airflow: Airflow { pool: "warehouse".into(), priority_weight: -2, max_active_runs: 3 },
        alerts: Alerts {
            on_failure: vec!["ops_slack".into(), "ops-mail".into()],
            on_deadline: vec!["ops-mail".into()],
        },
        connections,
        tasks: vec![load],
        choices: vec![choice(
            Role::Loading,
            "sink",
            "staging_table",
            "An upsert needs its rows in a table of the same database.",
            &[("direct", "A COPY cannot upsert.")],
        )],
        schema_change: SchemaChange::Additive,
        ..plan("flights_daily")
    }
}

/// Two sinks of one task, written when what two other pipelines write has changed.
pub(crate) fn chained() -> Plan {
    let columns = [("carrier", "string"), ("late", "int64")];
    let work = Work::Move(Move {
        inputs: BTreeMap::from([(name("late"), Input::Source(csv("out/late.csv", &columns)))]),
        outputs: vec![
            Output::Sink(file("by_carrier", "late", "out/by_carrier.parquet", FileFormat::Parquet, &columns)),
            Output::Sink(file("copy", "late", "out/copy.csv", FileFormat::Csv, &columns)),
        ],
        ..no_work()
    });
    Plan {
        dag_id: "aviation.chained".into(),
        schedule: Some(Schedule::Assets(AssetSchedule {
            assets: vec!["dagwright://aviation.flights_daily/sink".into(), "s3://bucket/carriers%20(new).csv".into()],
        })),
        tasks: vec![task("load", Role::Loading, work, &[])],
        ..plan("chained")
    }
}

/// Texts that would be code, markup or a template, were they not kept as texts.
pub(crate) fn hostile() -> Plan {
    let evil = |what: &str| {
        format!(
            "\"\"\"{what}'''\\\"'); import os; os.system('id') #{{{{ ds }}}}{{% raw %}}\r\n\t`|<b>&\u{202e}\0\u{2028}🛫.md"
        )
    };
    let mut plan = staged();
    plan.pipeline = name("hostile");
    plan.dag_id = "hostile".into();
    plan.owner = Some(evil("owner"));
    plan.description = Some("/etc/passwd.md".into());
    plan.tags = vec![evil("tag"), "a,b".into(), "x.sh".into(), String::new(), "dagwright".into(), "a".repeat(150)];
    plan.params = BTreeMap::from([(
        name("region"),
        param(ParamType::String, json!(evil("default")), Some(vec![json!(evil("default")), json!("{{ ds }}")])),
    )]);
    plan.airflow.pool = "no.pool-name_42".into();
    plan.deadline = Some(Span(u64::MAX));
    plan.alerts = Alerts { on_failure: vec![evil("connection")], on_deadline: vec![] };
    plan.retries = Retries { max: u32::MAX, backoff: Span(u64::MAX) };
    for choice in &mut plan.choices {
        choice.subject = evil("subject");
        choice.chosen = evil("chosen");
        choice.rationale = evil("rationale");
        choice.rejected[0].alternative = evil("alternative");
        choice.rejected[0].why = evil("why");
    }
    for task in &mut plan.tasks {
        if let Work::Move(work) = &mut task.spec.work {
            for step in &mut work.steps {
                step.sql = evil("sql");
            }
            for input in work.inputs.values_mut() {
                if let Input::Source(read) = input {
                    read.locator = Locator::Uri(evil("uri"));
                    read.columns[0].name = evil("column");
                }
            }
        }
    }
    // Python's keyword, a name the DAG file uses, and one that a numbered variable could be mistaken for.
    for (index, strange) in ["import", "timedelta", "task_5"].into_iter().enumerate() {
        rename(&mut plan, index, strange);
    }
    plan
}

// === parts ===

pub(crate) fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

pub(crate) fn id(text: &str) -> TaskId {
    TaskId(text.into())
}

/// Gives the task at `index` another id, wherever it is named.
pub(crate) fn rename(plan: &mut Plan, index: usize, new: &str) {
    let old = std::mem::replace(&mut plan.tasks[index].spec.id, id(new));
    for task in &mut plan.tasks {
        for after in task.after.iter_mut().chain(&mut task.mapped_over).filter(|after| **after == old) {
            *after = id(new);
        }
    }
}

fn plan(pipeline: &str) -> Plan {
    Plan {
        version: PLAN_VERSION,
        pipeline: name(pipeline),
        dag_id: pipeline.into(),
        spec_hash: "5c".repeat(32),
        owner: None,
        description: None,
        tags: Vec::new(),
        params: BTreeMap::new(),
        schedule: None,
        deadline: None,
        policy: Policy::default(),
        retries: Retries::default(),
        airflow: Airflow::default(),
        alerts: Alerts::default(),
        connections: BTreeMap::new(),
        tasks: Vec::new(),
        choices: Vec::new(),
        schema_change: SchemaChange::None,
        cost: cost(),
    }
}

fn task(task_id: &str, role: Role, work: Work, after: &[&str]) -> PlannedTask {
    PlannedTask {
        role,
        spec: TaskSpec {
            version: TASK_VERSION,
            pipeline: "pipeline".into(),
            id: id(task_id),
            work,
            connections: BTreeMap::new(),
            memory_max: ByteSize(512 << 20),
        },
        after: after.iter().map(|after| id(after)).collect(),
        mapped_over: None,
        teardown: false,
        timeout: Span(3_600_000),
        provides: BTreeMap::new(),
        cost: cost(),
    }
}

fn cleanup(after: &[&str]) -> PlannedTask {
    PlannedTask { teardown: true, ..task("cleanup", Role::Orchestrator, Work::Cleanup, after) }
}

fn no_work() -> Move {
    Move {
        inputs: BTreeMap::new(),
        steps: Vec::new(),
        binds: BTreeMap::new(),
        gates: Vec::new(),
        max_rejected: Ratio(10_000),
        outputs: Vec::new(),
    }
}

fn step(step: &str, sql: &str) -> Step {
    Step { name: name(step), sql: sql.into() }
}

fn param(param_type: ParamType, default: serde_json::Value, allowed: Option<Vec<serde_json::Value>>) -> Param {
    Param { param_type, default: Some(default), allowed }
}

fn to_columns(columns: &[(&str, &str)]) -> Vec<Column> {
    let column = |(name, data_type): &(&str, &str)| Column {
        name: (*name).into(),
        data_type: data_type.parse::<DataType>().unwrap(),
        nullable: true,
    };
    columns.iter().map(column).collect()
}

fn csv(uri: &str, columns: &[(&str, &str)]) -> SourceRead {
    SourceRead {
        locator: Locator::Uri(uri.into()),
        format: Some(FileFormat::Csv),
        text: Some(TextProfile {
            encoding: Encoding::Utf8,
            compression: TextCompression::None,
            delimiter: Some(','),
            quote: Some('"'),
            escape: None,
            header: true,
            ragged: 0,
        }),
        null_values: vec![String::new()],
        ragged: Ragged::Fail,
        columns: to_columns(columns),
        positions: Vec::new(),
        masks: BTreeMap::new(),
        classified: Vec::new(),
        filters: Vec::new(),
        incremental: None,
        on_missing: OnMissing::Fail,
        lossy: LossyCast::Reject,
        partitioned: false,
    }
}

fn file(sink: &str, relation: &str, uri: &str, format: FileFormat, columns: &[(&str, &str)]) -> SinkWrite {
    SinkWrite {
        name: name(sink),
        relation: name(relation),
        locator: Locator::Uri(uri.into()),
        format: Some(format),
        write: WriteOptions::default(),
        mode: SinkMode::Replace,
        strategy: WriteStrategy::Direct,
        columns: to_columns(columns),
        lossy: LossyCast::Reject,
        key: Vec::new(),
        dedupe: Vec::new(),
        min_rows: 1,
        meta_columns: true,
        changes: Vec::new(),
        cursors: Vec::new(),
    }
}

fn choice(role: Role, subject: &str, chosen: &str, rationale: &str, rejected: &[(&str, &str)]) -> Choice {
    let lost = |(alternative, why): &(&str, &str)| Rejected {
        alternative: (*alternative).into(),
        cost: cost(),
        why: (*why).into(),
    };
    Choice {
        role,
        subject: subject.into(),
        chosen: chosen.into(),
        rationale: rationale.into(),
        cost: cost(),
        rejected: rejected.iter().map(lost).collect(),
    }
}

fn cost() -> Cost {
    Cost { rows: 27_004, bytes: 2_621_440, cpu_ms: 180, wall_ms: 1_250, memory_bytes: 96 << 20, confidence: 80 }
}
