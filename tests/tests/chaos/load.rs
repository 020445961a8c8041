//! What is asked for: small requests over many pipelines, whose rows bear the request's id, so that an effect that is missing
//! or doubled shows in the sinks.

use std::collections::BTreeMap;

use dagwright_tests::{Postgres, Workspace, duckdb, kafka::Record};
use fastrand::Rng;
use serde_json::{Value, json};

/// The kind of all requests.
const REQUESTED: &str = "dev.dagwright.pipeline.requested.v1";

/// The rows of the source.
const ROWS: usize = 3;

/// How often each pipeline is there.
const OF_EACH: usize = 2;

/// How a pipeline's sink takes rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sink {
    /// Appends to a table; a repeat would show as further rows.
    Rows,
    /// Inserts or updates by key.
    Keyed,
    /// Appends parts to a folder.
    Parts,
    /// Replaces a file.
    Whole,
}

/// A request that was submitted.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) id: String,
    pub(crate) pipeline: String,
    data: Value,
}

/// Makes requests, and knows what must have come of them.
pub(crate) struct Load {
    rng: Rng,
    workspace: std::path::PathBuf,
    database: String,
    /// Tells the requests of one load from those of another.
    prefix: String,
    pub(crate) asked: Vec<Asked>,
    /// What is to be sent again.
    again: Vec<Asked>,
}

// === impl Sink ===

impl Sink {
    const ALL: [Self; 4] = [Self::Rows, Self::Keyed, Self::Parts, Self::Whole];

    fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Keyed => "keyed",
            Self::Parts => "parts",
            Self::Whole => "whole",
        }
    }
}

// === impl Asked ===

impl Asked {
    /// Returns the request as a CloudEvent.
    pub(crate) fn event(&self) -> Value {
        json!({
            "specversion": "1.0", "type": REQUESTED, "source": "/chaos", "id": self.id,
            "datacontenttype": "application/json", "data": self.data,
        })
    }

    /// Returns the request as some producer may write it.
    fn record(&self, rng: &mut Rng, partitions: u16) -> Record {
        let mut record = if rng.bool() {
            Record::new("", self.event().to_string()).header("content-type", "application/cloudevents+json")
        } else {
            Record::new("", self.data.to_string())
                .header("ce_specversion", "1.0")
                .header("ce_type", REQUESTED)
                .header("ce_source", "/chaos")
                .header("ce_id", self.id.as_str())
                .header("content-type", "application/json")
        };
        match rng.u8(..4) {
            // Anywhere, and then it has to find home.
            0 => record.partition = Some(i32::from(rng.u16(..partitions))),
            1 => record.key = None,
            _ => record.key = Some(self.pipeline.clone().into_bytes()),
        }
        record
    }
}

// === impl Load ===

impl Load {
    /// Makes a load with a database of its own.
    pub(crate) fn new(rng: Rng, workspace: &Workspace, prefix: &str) -> Self {
        let lines: String = (0..ROWS).map(|row| format!("{row},name {row}\n")).collect();
        workspace.write("in.csv", format!("id,name\n{lines}"));
        let database = Postgres::shared().database(prefix);
        let workspace = workspace.path("");
        Self { rng, workspace, database, prefix: prefix.to_owned(), asked: Vec::new(), again: Vec::new() }
    }

    /// Returns what a daemon has to know to reach the sinks.
    pub(crate) fn variables(&self) -> Vec<(&'static str, String)> {
        vec![("DAGWRIGHT_CONN_WAREHOUSE", self.database.clone())]
    }

    /// Makes so many requests that nobody has asked for yet; each is to be sent once more, some time.
    pub(crate) fn ask(&mut self, count: usize) -> Vec<Asked> {
        let asked: Vec<_> = (0..count).map(|_| self.one()).collect();
        self.again.extend(asked.iter().cloned());
        asked
    }

    /// Takes some of what is to be sent again, or all of it.
    pub(crate) fn repeats(&mut self, all: bool) -> Vec<Asked> {
        self.rng.shuffle(&mut self.again);
        let count = if all { self.again.len() } else { self.rng.usize(..=self.again.len()) };
        self.again.split_off(self.again.len() - count)
    }

    /// Returns messages for Kafka in an order of their own.
    pub(crate) fn records(&mut self, asked: &[Asked], partitions: u16) -> Vec<Record> {
        let mut records: Vec<_> = asked.iter().map(|asked| asked.record(&mut self.rng, partitions)).collect();
        self.rng.shuffle(&mut records);
        records
    }

    fn one(&mut self) -> Asked {
        let sink = Sink::ALL[self.rng.usize(..Sink::ALL.len())];
        let pipeline = format!("{}{}", sink.name(), self.rng.usize(..OF_EACH));
        let id = format!("{}_{:05}", self.prefix, self.asked.len());
        let data = json!({ "spec": self.spec(sink, &pipeline), "run": { "params": { "tag": id } } });
        let asked = Asked { id, pipeline, data };
        self.asked.push(asked.clone());
        asked
    }

    fn spec(&self, sink: Sink, pipeline: &str) -> Value {
        let path = |name: &str| self.workspace.join(name).display().to_string();
        let table =
            |mode: &str| json!({ "connection": "warehouse", "table": format!("public.{pipeline}"), "mode": mode });
        let sink = match sink {
            Sink::Rows => table("append"),
            Sink::Keyed => {
                let mut sink = table("upsert");
                sink["key"] = json!(["id", "tag"]);
                sink
            }
            Sink::Parts => {
                json!({ "uri": path(&format!("out/{pipeline}/")), "format": "parquet", "mode": "append" })
            }
            Sink::Whole => json!({ "uri": path(&format!("out/{pipeline}.parquet")), "mode": "replace" }),
        };
        json!({
            "version": 1,
            "pipeline": pipeline,
            "params": { "tag": { "type": "string" } },
            "source": { "uri": path("in.csv") },
            "transform": [{ "name": "tagged", "sql": "SELECT id, name, $tag AS tag FROM source" }],
            "sink": sink,
            "retries": { "max": 10, "backoff": "1s" },
        })
    }

    /// Returns how many requests each pipeline has.
    pub(crate) fn by_pipeline(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for asked in &self.asked {
            *counts.entry(asked.pipeline.clone()).or_default() += 1;
        }
        counts
    }

    /// Asserts that the sinks hold every request's rows, once.
    #[track_caller]
    pub(crate) fn assert_loaded(&self) {
        for pipeline in self.by_pipeline().keys() {
            let sink = Sink::ALL.into_iter().find(|sink| pipeline.starts_with(sink.name())).expect("one of ours");
            let mut ids: Vec<_> =
                self.asked.iter().filter(|asked| asked.pipeline == *pipeline).map(|asked| asked.id.as_str()).collect();
            ids.sort_unstable();
            let wanted = |rest: &str| ids.iter().map(|id| format!("{id}|{ROWS}{rest}")).collect::<Vec<_>>();
            let folder = self.workspace.join("out");
            match sink {
                Sink::Rows => {
                    let sql = format!(
                        "select tag, count(*), count(distinct id), count(distinct _dagwright_run_id)
                         from public.{pipeline} group by tag order by tag collate \"C\""
                    );
                    let found = Postgres::shared().query(&self.database, &sql);
                    assert_eq!(found.lines().collect::<Vec<_>>(), wanted(&format!("|{ROWS}|1")), "{pipeline}");
                }
                Sink::Keyed => {
                    let sql =
                        format!("select tag, count(*) from public.{pipeline} group by tag order by tag collate \"C\"");
                    let found = Postgres::shared().query(&self.database, &sql);
                    assert_eq!(found.lines().collect::<Vec<_>>(), wanted(""), "{pipeline}");
                }
                Sink::Parts => {
                    let parts = folder.join(pipeline);
                    let found = duckdb(&format!(
                        "select string_agg(tag || '|' || n, chr(10) order by tag)
                         from (select tag, count(*) as n from '{}/*.parquet' group by tag)",
                        parts.display()
                    ));
                    assert_eq!(found[0].lines().collect::<Vec<_>>(), wanted(""), "{pipeline}");
                }
                Sink::Whole => {
                    let file = folder.join(format!("{pipeline}.parquet"));
                    let found =
                        duckdb(&format!("select count(*), count(distinct tag), min(tag) from '{}'", file.display()));
                    assert_eq!(found[..2], [ROWS.to_string(), "1".to_owned()], "{pipeline}");
                    assert!(ids.contains(&found[2].as_str()), "{pipeline}: {found:?}");
                }
            }
        }
    }
}
