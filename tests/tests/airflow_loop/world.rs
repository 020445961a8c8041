//! A Kafka, an Airflow with package `dagwright-airflow`, a PostgreSQL, and a daemon between them.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use dagwright_airflow::{Airflow as _, Client, Credentials, Dag, DagVersion, Run, RunFilter, Secret, Settings, Span};
use dagwright_tests::{
    Postgres, Workspace,
    airflow::Airflow,
    bin_dir,
    daemon::Daemon,
    events,
    kafka::{self, Kafka, Record},
    line::Line,
    receiver::{Post, Receiver},
};
use serde_json::{Value, json};

/// How long anything may take, on a machine that builds meanwhile.
const PATIENCE: Duration = Duration::from_secs(240);

const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// What deploys to the Airflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deploy {
    Folder,
    Bundle,
}

/// Everything, for one version of Airflow.
pub(crate) struct World {
    pub(crate) workspace: Workspace,
    pub(crate) airflow: Airflow,
    pub(crate) client: Client,
    /// What the daemon calls Airflow through.
    pub(crate) line: Line,
    pub(crate) warehouse: String,
    /// Airflow's.
    pub(crate) version: String,
    /// Where Airflow's connection `ops` leads.
    alerts: Receiver,
    prefix: String,
    variables: Vec<(String, String)>,
    daemon: Option<Daemon>,
    kafka: kafka::Client,
    runtime: tokio::runtime::Runtime,
    /// Events in the order in which they were told.
    told: Vec<Value>,
}

// === impl World ===

impl World {
    pub(crate) fn start(version: &str, deploy: Deploy) -> Self {
        let name = version.replace('.', "_");
        let workspace = Workspace::new();
        let warehouse = Postgres::shared().database(&format!("warehouse_{name}"));
        // Known to Airflow before the daemon listens there, and the same when it starts again.
        let port = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("a port").port();
        let text = |path: PathBuf| path.to_str().expect("text").to_owned();
        let (task, staging, quarantine) = (
            text(bin_dir().join("dagwright-task")),
            text(workspace.path("staging")),
            text(workspace.path("quarantine")),
        );
        let alerts = Receiver::start(Receiver::nowhere(), |_, _| (204, ""));
        let connection = json!({ "conn_type": "http", "host": format!("http://{}", alerts.address), "extra": { "endpoint": "/ops" } });
        let connection = connection.to_string();
        let feedback = format!("http://127.0.0.1:{port}");
        let spool = text(workspace.path("spool"));
        let bundle = workspace.path("bundle");
        std::fs::create_dir_all(&bundle).expect("a folder");
        let bundles = json!([{
            "name": "dagwright", "classpath": "dagwright_airflow.bundle.DagwrightBundle",
            "kwargs": { "root": bundle, "refresh_interval": 300 },
        }]);
        let (bundles, storage) = (bundles.to_string(), text(workspace.path("bundles")));
        let mut of_airflow = vec![
            ("PYTHONPATH", Airflow::package().to_str().expect("text")),
            ("DAGWRIGHT_TASK_COMMAND", &task),
            ("DAGWRIGHT_STAGING", &staging),
            ("DAGWRIGHT_QUARANTINE", &quarantine),
            ("DAGWRIGHT_CONN_WAREHOUSE", &warehouse),
            ("DAGWRIGHT_FEEDBACK_URL", &feedback),
            ("DAGWRIGHT_URL", &feedback),
            ("AIRFLOW_CONN_OPS", &connection),
            // It tells of missed deadlines.
            ("TRIGGERER", "1"),
            ("DAGWRIGHT_FEEDBACK_SECRET", SECRET),
            ("DAGWRIGHT_FEEDBACK_SPOOL", &spool),
            // 2.11 else runs what it stored of a DAG up to 30 s before, whatever it shows of it.
            ("AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL", "1"),
            ("AIRFLOW__CORE__MIN_SERIALIZED_DAG_FETCH_INTERVAL", "1"),
        ];
        let anchored = [
            ("DAGWRIGHT__ENGINE__KIND", "airflow"),
            ("DAGWRIGHT__AIRFLOW__URL", "http://127.0.0.1:9"),
            ("DAGWRIGHT__AIRFLOW__APPROVALS", "true"),
            ("DAGWRIGHT__AIRFLOW__DEPLOY__KIND", "bundle"),
            ("DAGWRIGHT__AIRFLOW__DEPLOY__PATH", bundle.to_str().expect("text")),
        ];
        if deploy == Deploy::Bundle {
            // Airflow looks for new files every 300 s, unless it finds the anchor when it starts.
            let early = Daemon::with(&workspace, &anchored, &[]);
            let deadline = std::time::Instant::now() + PATIENCE;
            while !bundle.join("CURRENT").is_file() {
                assert!(std::time::Instant::now() < deadline, "no anchor");
                std::thread::yield_now();
            }
            drop(early);
            of_airflow.push(("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST", &bundles));
            of_airflow.push(("AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH", &storage));
        }
        let airflow = Airflow::with(version, &of_airflow);
        let client = {
            let credentials =
                Credentials::Password { username: "admin".into(), password: Secret::new(&airflow.password) };
            let settings = Settings::new(airflow.url.parse().expect("a URL"), credentials).expect("settings");
            Client::new(settings).expect("a client")
        };
        let line =
            Line::to(airflow.url.trim_start_matches("http://").trim_end_matches('/').parse().expect("an address"));
        let kafka = Kafka::shared();
        let prefix = format!("loop-{name}");
        let (kind, path) = match deploy {
            Deploy::Folder => ("folder", text(airflow.dags())),
            Deploy::Bundle => ("bundle", text(bundle)),
        };
        let variables = [
            ("DAGWRIGHT__HTTP__LISTEN", format!("127.0.0.1:{port}")),
            ("DAGWRIGHT__BUS__KIND", "kafka".into()),
            ("DAGWRIGHT__KAFKA__BROKERS", kafka.bootstrap().into()),
            ("DAGWRIGHT__KAFKA__PREFIX", prefix.clone()),
            ("DAGWRIGHT__KAFKA__GROUP", prefix.clone()),
            ("DAGWRIGHT__KAFKA__PARTITIONS", "2".into()),
            ("DAGWRIGHT__ENGINE__KIND", "airflow".into()),
            ("DAGWRIGHT__AIRFLOW__URL", format!("http://{}", line.address)),
            ("DAGWRIGHT__AIRFLOW__USERNAME", "admin".into()),
            ("DAGWRIGHT__AIRFLOW__PASSWORD_ENV", "AIRFLOW_PASSWORD".into()),
            ("AIRFLOW_PASSWORD", airflow.password.clone()),
            // Where Airflow cannot ask, a warning says so, and nothing else is different.
            ("DAGWRIGHT__AIRFLOW__APPROVALS", "true".into()),
            ("DAGWRIGHT__AIRFLOW__DEPLOY__KIND", kind.into()),
            ("DAGWRIGHT__AIRFLOW__DEPLOY__PATH", path),
            ("DAGWRIGHT__AIRFLOW__FEEDBACK__SECRET_ENV", "FEEDBACK_SECRET".into()),
            ("FEEDBACK_SECRET", SECRET.into()),
            ("DAGWRIGHT_CONN_WAREHOUSE", warehouse.clone()),
        ];
        let variables = variables.map(|(key, value)| (key.to_owned(), value)).into();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let mut world = Self {
            workspace,
            airflow,
            client,
            line,
            warehouse,
            version: version.to_owned(),
            alerts,
            prefix,
            variables,
            daemon: None,
            kafka: kafka.client(),
            runtime,
            told: Vec::new(),
        };
        world.start_daemon();
        world
    }

    /// The daemon's settings.
    pub(crate) fn variables(&self) -> Vec<(&str, &str)> {
        self.variables.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }

    pub(crate) fn start_daemon(&mut self) {
        let variables = self.variables();
        self.daemon = Some(Daemon::logged(&self.workspace, &variables, &[]));
    }

    /// Starts the daemon anew, with another layout of DAGs.
    pub(crate) fn lay_out(&mut self, layout: &str) {
        const KEY: &str = "DAGWRIGHT__AIRFLOW__DEPLOY__LAYOUT";
        self.kill_daemon();
        self.variables.retain(|(key, _)| key != KEY);
        self.variables.push((KEY.into(), layout.into()));
        self.start_daemon();
    }

    /// Kills the daemon, as a crash would.
    pub(crate) fn kill_daemon(&mut self) {
        let daemon = self.daemon.take().expect("a daemon");
        daemon.signal("KILL");
    }

    pub(crate) fn daemon(&self) -> &Daemon {
        self.daemon.as_ref().expect("a daemon")
    }

    /// Tells whether this Airflow can ask people: 3.1 was the first.
    pub(crate) fn can_ask(&self) -> bool {
        !self.version.starts_with("2.") && !self.version.starts_with("3.0.")
    }

    /// Returns where people find the daemon.
    pub(crate) fn daemon_url(&self) -> String {
        format!("http://{}", self.daemon().address)
    }

    /// Waits until Airflow's connection `ops` was told of a pipeline, and returns the first that it was told.
    #[track_caller]
    pub(crate) fn alert(&self, pipeline: &str) -> Value {
        let of_pipeline = |post: &Post| post.path == "/ops" && post.json()["pipeline"] == pipeline;
        let posts = self.alerts.until(|posts| posts.iter().any(of_pipeline));
        posts.iter().find(|post| of_pipeline(post)).expect("an alert").json()
    }

    /// Writes the rows `first..first + count` into a file of the workspace, and returns its path.
    pub(crate) fn rows(&self, file: &str, first: usize, count: usize) -> PathBuf {
        let rows: String = (first..first + count).map(|id| format!("{id},row {id}\n")).collect();
        self.workspace.write(file, format!("id,text\n{rows}"))
    }

    /// Returns the spec of a pipeline that appends a file to a table of its name.
    pub(crate) fn spec(&self, pipeline: &str, file: &Path) -> Value {
        json!({
            "version": 1, "pipeline": pipeline, "tags": ["loop"],
            "source": { "uri": file },
            "sink": { "connection": "warehouse", "table": format!("public.{pipeline}"), "mode": "append" },
            "retries": { "max": 0, "backoff": "1s" },
            // Airflow 3.1 and later make an alert of it, which must make no new version of the DAG.
            "goals": { "deadline": "30m" },
        })
    }

    /// Sends a request over Kafka.
    pub(crate) fn request(&mut self, id: &str, data: &Value) {
        let event = json!({
            "specversion": "1.0", "id": id, "source": "/tests/loop",
            "type": "dev.dagwright.pipeline.requested.v1", "datacontenttype": "application/json", "data": data,
        });
        let pipeline = data["spec"]["pipeline"].as_str().or(data["pipeline"].as_str()).expect("a pipeline").to_owned();
        let record = Record::new(pipeline, event.to_string()).header("content-type", "application/cloudevents+json");
        self.kafka.produce(&format!("{}.requests.v1", self.prefix), &[record]);
    }

    /// Waits for an event that `is_it` is true of, each held to its schema, and returns it.
    #[track_caller]
    pub(crate) fn event(&mut self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        let began = std::time::Instant::now();
        loop {
            if let Some(found) = self.told.iter().find(|event| is_it(event)) {
                return found.clone();
            }
            let topic = format!("{}.events.v1", self.prefix);
            let records = self.kafka.follow(&topic, 1, Duration::from_secs(5));
            let read = |record: Record| {
                let event: Value = serde_json::from_slice(record.value.as_deref().expect("content")).expect("JSON");
                events::check(&event);
                event
            };
            self.told.extend(records.into_iter().map(read));
            if began.elapsed() > PATIENCE {
                let seen: Vec<_> =
                    self.told.iter().map(|event| format!("{} {}", event["type"], event["data"]["pipeline"])).collect();
                panic!("waited in vain for {what}\n{seen:#?}\n{}\n{}", self.airflow.logs(), tail(&self.daemon().log()));
            }
        }
    }

    /// Waits until something of a kind was told of a request, by what its requester calls it; returns the event.
    #[track_caller]
    pub(crate) fn told(&mut self, id: &str, kind: &str) -> Value {
        let accepted = self.event(&format!("the acceptance of {id}"), |event| event["data"]["identity"]["id"] == id);
        let request = accepted["data"]["request_id"].clone();
        let name = type_of(kind);
        self.event(&format!("{kind} of {id}"), |event| event["data"]["request_id"] == request && event["type"] == name)
    }

    /// Returns how often each kind of event was told of a request so far.
    pub(crate) fn kinds(&self, request: &Value) -> BTreeMap<String, usize> {
        let mut kinds = BTreeMap::new();
        for event in self.told.iter().filter(|event| event["data"]["request_id"] == *request) {
            let kind = event["type"].as_str().expect("a type");
            let kind = kind.trim_start_matches("dev.dagwright.").trim_end_matches(".v1");
            *kinds.entry(kind.to_owned()).or_default() += 1;
        }
        kinds
    }

    pub(crate) fn query(&self, sql: &str) -> String {
        Postgres::shared().query(&self.warehouse, sql)
    }

    /// The runs that Airflow has of a DAG.
    pub(crate) fn runs(&self, dag_id: &str) -> Vec<Run> {
        let filter = RunFilter { dag_id: Some(dag_id.into()), ..RunFilter::default() };
        self.runtime.block_on(self.client.runs(&filter, Span::first())).expect("runs").items
    }

    pub(crate) fn dag(&self, dag_id: &str) -> Dag {
        self.runtime.block_on(self.client.dag(dag_id)).expect("a DAG")
    }

    /// The newest plan file of a DAG, in the folder that Airflow reads.
    pub(crate) fn plan_file(&self, dag_id: &str) -> PathBuf {
        let hash = self.dag(dag_id).tags.iter().find_map(|tag| tag.strip_prefix("plan ").map(str::to_owned));
        self.airflow.dags().join(format!("{dag_id}.{}.plan.json", hash.expect("a plan's tag")))
    }

    pub(crate) fn versions(&self, dag_id: &str) -> Vec<DagVersion> {
        self.runtime.block_on(self.client.dag_versions(dag_id, Span::first())).expect("versions").items
    }

    /// Calls Airflow until it answers as wanted.
    #[track_caller]
    pub(crate) fn until<T, F: Future<Output = dagwright_airflow::Result<Option<T>>>>(
        &self,
        what: &str,
        look: impl Fn() -> F,
    ) -> T {
        let found = self.runtime.block_on(async {
            let mut ticks = tokio::time::interval(Duration::from_millis(500));
            let looking = async {
                loop {
                    ticks.tick().await;
                    if let Ok(Some(found)) = look().await {
                        return found;
                    }
                }
            };
            tokio::time::timeout(PATIENCE, looking).await
        });
        found.unwrap_or_else(|_| panic!("waited in vain for {what}\n{}", self.airflow.logs()))
    }

    /// Calls Airflow once.
    #[track_caller]
    pub(crate) fn call<T>(&self, call: impl Future<Output = dagwright_airflow::Result<T>>) -> T {
        self.runtime.block_on(call).expect("an answer")
    }
}

pub(crate) fn type_of(kind: &str) -> String {
    format!("dev.dagwright.{kind}.v1")
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().filter(|line| !line.contains("\"level\":\"DEBUG\"")).collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
