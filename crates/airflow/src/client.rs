//! The trait over HTTP: what each call sends, and what it makes of the answer.

use std::{
    fmt,
    sync::{PoisonError, RwLock},
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

use crate::{
    Airflow, Result,
    asset::{Asset, AssetEvent, AssetEventFilter},
    backfill::{Backfill, BackfillAction, BackfillRequest},
    dag::{Dag, DagAnswer, DagFilter, DagVersion, Deleted, ImportError},
    error::{Error, Subject},
    http::{Call, Http},
    log::Tail,
    page::{Page, Span},
    path::Path,
    run::{Run, RunFilter, RunMark, Trigger, Triggered},
    service::{Connection, ConnectionTest, Health, Pool, PoolSet},
    settings::Settings,
    task::{Answer, Clear, ClearedTask, Log, TaskInstance, TaskKey, TaskMark},
    v1, v2,
    version::{Api, Version},
};

/// How many pages of assets are looked through for one URI: both APIs find parts of URIs only.
const ASSET_PAGES_MAX: u32 = 10;

/// Why Airflow 2 has no backfills.
const NO_BACKFILLS: &str = "backfills are started by its command line only";

/// Calls one Airflow, whichever version it is.
///
/// Which one answers is asked at the first call, and again once an endpoint is missing that should be there: after an upgrade,
/// that call is [`Error::Unavailable`], and the next one goes to the other API. One that is away at the start is no error of
/// [`Client::new`].
pub struct Client {
    http: Http,
    /// Not locked while it is asked for: those that ask at once hear the same.
    known: RwLock<Option<Known>>,
}

/// The version that answered, with its API.
#[derive(Clone)]
struct Known {
    api: Api,
    version: Version,
}

#[derive(Deserialize)]
struct VersionAnswer {
    version: String,
}

/// A task instance that is, or would be, cleared.
#[derive(Deserialize)]
struct ClearAnswer {
    dag_run_id: Option<String>,
    #[serde(flatten)]
    task: ClearedTask,
}

#[derive(Deserialize)]
struct XComAnswer {
    value: Value,
}

#[derive(Deserialize)]
struct BackfillDate {
    logical_date: Option<DateTime<Utc>>,
}

// === impl Client ===

impl Client {
    /// Makes a client; connects to nothing yet.
    ///
    /// # Errors
    /// [`Error::NoClient`] when the authorities are no certificates.
    pub fn new(settings: Settings) -> Result<Self> {
        Ok(Self { http: Http::new(settings)?, known: RwLock::default() })
    }

    /// Returns the API of the version that answers.
    async fn api(&self) -> Result<Api> {
        Ok(self.known().await?.api)
    }

    async fn known(&self) -> Result<Known> {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let found = self.discover().await?;
        self.remember(Some(found.clone()));
        Ok(found)
    }

    fn remember(&self, known: Option<Known>) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Asks for the version: by v2, which every 3.x has, and then by v1.
    async fn discover(&self) -> Result<Known> {
        let mut last = None;
        for api in [Api::V2, Api::V1] {
            let call = Call::get(Subject::bare("ask for Airflow's version"), Path::new("version"));
            let answer = self.http.ask(api, &call).await;
            match answer.and_then(|body| self.http.read::<VersionAnswer>(&call.subject, &body)) {
                Ok(answer) => {
                    let version = Version::parse(&answer.version).filter(|version| version.api() == Some(api));
                    let Some(version) = version else {
                        let found = format!("version {}", Subject::of("called", &answer.version));
                        return Err(Error::Unsupported { found });
                    };
                    tracing::info!(%version, "found Airflow");
                    return Ok(Known { api, version });
                }
                Err(error) if error.is_retryable() => return Err(error),
                Err(error) => last = Some(error),
            }
        }
        Err(match last {
            Some(error @ (Error::Unauthenticated { .. } | Error::Denied { .. })) => error,
            Some(error) => Error::Unsupported { found: error.to_string() },
            None => Error::Unsupported { found: "nothing".into() },
        })
    }

    /// Sends a call, and returns the body of its answer.
    async fn send(&self, api: Api, call: &Call) -> Result<Vec<u8>> {
        let answer = self.http.send(api, call).await;
        let answer = match answer {
            Err(Error::Denied { call, detail }) if api == Api::V1 => Err(self.denied_by_v1(call, detail).await),
            answer => answer,
        };
        self.notice(api, call, answer).await
    }

    /// Tells somebody who may not from somebody whom v1 does not know, who may nothing and hears the same: everybody that it
    /// knows may list DAGs, be it none.
    async fn denied_by_v1(&self, call: Subject, detail: String) -> Error {
        let list = Call::get(Subject::bare("list DAGs"), Path::new("dags")).query([("limit", "1".into())]);
        match self.http.send(Api::V1, &list).await {
            Err(Error::Denied { .. }) => Error::Unauthenticated { call, status: 403, detail },
            _ => Error::Denied { call, detail },
        }
    }

    /// Looks who answers when an endpoint is missing: after an upgrade the same call may succeed, in the other API's words.
    async fn notice(&self, api: Api, call: &Call, answer: Result<Vec<u8>>) -> Result<Vec<u8>> {
        if !matches!(answer, Err(Error::Unsupported { .. })) {
            return answer;
        }
        self.remember(None);
        match self.discover().await {
            Ok(found) if found.api != api => {
                let detail = format!("Airflow {} answers by now", found.version);
                self.remember(Some(found));
                Err(Error::Unavailable { call: call.subject.clone(), status: 404, detail })
            }
            _ => answer,
        }
    }

    async fn json<T: DeserializeOwned>(&self, api: Api, call: Call) -> Result<T> {
        let body = self.send(api, &call).await?;
        self.http.read(&call.subject, &body)
    }

    /// Reads a list: `key` has its items.
    async fn page<T: DeserializeOwned>(&self, api: Api, call: Call, span: Span, key: &str) -> Result<Page<T>> {
        let call = call.query(span.query());
        let body = self.send(api, &call).await?;
        self.read_page(&call.subject, body, key)
    }

    fn read_page<T: DeserializeOwned>(&self, subject: &Subject, body: Vec<u8>, key: &str) -> Result<Page<T>> {
        let unreadable = |reason: String| Error::Unreadable { call: subject.clone(), reason };
        let mut answer: Map<String, Value> = self.http.read(subject, &body)?;
        let items = answer.remove(key).ok_or_else(|| unreadable(format!("it has no {key}")))?;
        let items: Vec<T> =
            serde_json::from_value(items).map_err(|error| unreadable(self.http.tidy(&error.to_string())))?;
        let counted = items.len() as u64;
        Ok(Page { items, total: answer.get("total_entries").and_then(Value::as_u64).unwrap_or(counted) })
    }

    /// Returns [`Error::NotOffered`] unless Airflow is this 3.x or newer.
    async fn since_3(&self, minor: u32, subject: impl Fn() -> Subject, reason: &'static str) -> Result<Api> {
        let api = self.v2(&subject, reason).await?;
        let version = self.known().await?.version;
        if (version.major, version.minor) < (3, minor) {
            return Err(Error::NotOffered { call: subject(), version, reason });
        }
        Ok(api)
    }

    /// Returns [`Error::NotOffered`] unless Airflow has v2.
    async fn v2(&self, subject: impl Fn() -> Subject, reason: &'static str) -> Result<Api> {
        let known = self.known().await?;
        match known.api {
            Api::V2 => Ok(Api::V2),
            Api::V1 => Err(Error::NotOffered { call: subject(), version: known.version, reason }),
        }
    }

    async fn cleared(&self, clear: &Clear, dry_run: bool) -> Result<Vec<ClearedTask>> {
        let subject =
            Subject::of(if dry_run { "preview clearing tasks of run" } else { "clear tasks of run" }, &clear.run_id);
        if clear.tasks.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::BadCall { call: subject, reason: "no task is named" });
        }
        let of_one = |task: &ClearedTask| task.map_index.is_some();
        let api = if clear.tasks.iter().flatten().any(of_one) {
            self.v2(|| subject.clone(), "single instances of a mapped task cannot be cleared").await?
        } else {
            self.api().await?
        };
        let body = match api {
            Api::V1 => v1::clear(clear, dry_run),
            Api::V2 => v2::clear(clear, dry_run),
        };
        let mut call = Call::post(subject, Path::new("dags").name(&clear.dag_id).then("clearTaskInstances"), body);
        if dry_run {
            call = call.repeatable();
        }
        let subject = call.subject.clone();
        let answer = self.send(api, &call).await?;
        let answers = self.read_page::<ClearAnswer>(&subject, answer, "task_instances")?.items;
        if answers.iter().any(|answer| answer.dag_run_id.as_ref() != Some(&clear.run_id)) {
            let detail = "Airflow takes task instances of other runs for those of this one".to_owned();
            return Err(Error::Conflict { call: subject, detail });
        }
        let mut tasks: Vec<_> = answers.into_iter().map(|answer| answer.task).collect();
        tasks.sort();
        Ok(tasks)
    }

    fn runs_of(dag_id: &str) -> Path {
        Path::new("dags").name(dag_id).then("dagRuns")
    }

    fn tasks_of(dag_id: &str, run_id: &str) -> Path {
        Self::runs_of(dag_id).name(run_id).then("taskInstances")
    }

    fn task(key: &TaskKey) -> Path {
        let path = Self::tasks_of(&key.dag_id, &key.run_id).name(&key.task_id);
        match key.map_index {
            Some(index) => path.index(index),
            None => path,
        }
    }

    /// The query by which logs and XComs know a mapped instance.
    fn map_index(key: &TaskKey) -> Option<(&'static str, String)> {
        key.map_index.map(|index| ("map_index", index.to_string()))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("url", &self.http.url_shown()).finish_non_exhaustive()
    }
}

#[async_trait]
impl Airflow for Client {
    async fn health(&self) -> Result<Health> {
        let api = self.api().await?;
        let path = match api {
            Api::V1 => Path::new("health"),
            Api::V2 => Path::new("monitor").then("health"),
        };
        let call = Call::get(Subject::bare("ask for Airflow's health"), path);
        let answer = self.http.ask(api, &call).await;
        self.http.read(&call.subject, &self.notice(api, &call, answer).await?)
    }

    async fn version(&self) -> Result<Version> {
        let found = self.discover().await?;
        let version = found.version.clone();
        self.remember(Some(found));
        Ok(version)
    }

    async fn dag(&self, dag_id: &str) -> Result<Dag> {
        let call = Call::get(Subject::of("read DAG", dag_id), Path::new("dags").name(dag_id));
        Ok(self.json::<DagAnswer>(self.api().await?, call).await?.into())
    }

    async fn dags(&self, filter: &DagFilter, span: Span) -> Result<Page<Dag>> {
        let api = self.api().await?;
        let active_only = (!filter.inactive_too).to_string();
        let active = match api {
            Api::V1 => ("only_active", active_only),
            Api::V2 => ("exclude_stale", active_only),
        };
        let call = Call::get(Subject::bare("list DAGs"), Path::new("dags"))
            .query([active, ("order_by", "dag_id".into())])
            .query(filter.tags.iter().map(|tag| ("tags", tag.clone())));
        let page = self.page::<DagAnswer>(api, call, span, "dags").await?;
        Ok(Page { items: page.items.into_iter().map(Into::into).collect(), total: page.total })
    }

    async fn set_paused(&self, dag_id: &str, paused: bool) -> Result<Dag> {
        let subject = Subject::of(if paused { "pause DAG" } else { "unpause DAG" }, dag_id);
        let call = Call::patch(subject, Path::new("dags").name(dag_id), json!({ "is_paused": paused }));
        let call = call.query([("update_mask", "is_paused".into())]).repeatable();
        Ok(self.json::<DagAnswer>(self.api().await?, call).await?.into())
    }

    async fn delete_dag(&self, dag_id: &str) -> Result<Deleted> {
        let call = Call::delete(Subject::of("delete DAG", dag_id), Path::new("dags").name(dag_id));
        match self.send(self.api().await?, &call).await {
            Ok(_) => Ok(Deleted::Now),
            Err(error) if error.is_not_found() => Ok(Deleted::Before),
            Err(error) => Err(error),
        }
    }

    async fn reparse(&self, file_token: &str) -> Result<()> {
        let call =
            Call::put(Subject::bare("ask for a DAG file to be parsed"), Path::new("parseDagFile").name(file_token));
        match self.send(self.api().await?, &call).await {
            // One is pending: as good as this one.
            Ok(_) | Err(Error::Conflict { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    async fn dag_versions(&self, dag_id: &str, span: Span) -> Result<Page<DagVersion>> {
        let subject = Subject::of("list versions of DAG", dag_id);
        let api = self.v2(|| subject.clone(), "DAGs have no versions").await?;
        let call = Call::get(subject, Path::new("dags").name(dag_id).then("dagVersions"));
        self.page(api, call.query([("order_by", "version_number".into())]), span, "dag_versions").await
    }

    async fn import_errors(&self, span: Span) -> Result<Page<ImportError>> {
        let call = Call::get(Subject::bare("list import errors"), Path::new("importErrors"));
        let call = call.query([("order_by", "-timestamp".into())]);
        self.page(self.api().await?, call, span, "import_errors").await
    }

    async fn trigger(&self, trigger: &Trigger) -> Result<Triggered> {
        let api = self.api().await?;
        let body = match api {
            Api::V1 => v1::trigger(trigger),
            Api::V2 => v2::trigger(trigger),
        };
        let subject = Subject::of("trigger DAG", &trigger.dag_id);
        // Names in bodies mean what they say, but the run must be found again by its id.
        Self::runs_of(&trigger.dag_id).name(&trigger.run_id).text(&subject)?;
        let call = Call::post(subject, Self::runs_of(&trigger.dag_id), body).repeatable();
        match self.json::<Run>(api, call).await {
            Ok(run) => Ok(Triggered::Started(run)),
            Err(conflict @ Error::Conflict { .. }) => match self.run(&trigger.dag_id, &trigger.run_id).await {
                Ok(run) => Ok(Triggered::Found(run)),
                Err(error) if error.is_not_found() => Err(conflict),
                Err(error) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    async fn run(&self, dag_id: &str, run_id: &str) -> Result<Run> {
        let call = Call::get(Subject::of("read run", run_id), Self::runs_of(dag_id).name(run_id));
        self.json(self.api().await?, call).await
    }

    async fn runs(&self, filter: &RunFilter, span: Span) -> Result<Page<Run>> {
        let path = match &filter.dag_id {
            Some(dag_id) => Self::runs_of(dag_id),
            None => Path::new("dags/~/dagRuns"),
        };
        let call = Call::get(Subject::bare("list runs"), path)
            .query([("order_by", "id".into())])
            .query(filter.updated_at_gte.map(|at| ("updated_at_gte", v1::instant(at))))
            .query(filter.states.iter().map(|state| ("state", state.as_str().to_owned())));
        self.page(self.api().await?, call, span, "dag_runs").await
    }

    async fn mark_run(&self, dag_id: &str, run_id: &str, mark: RunMark) -> Result<Run> {
        let path = Self::runs_of(dag_id).name(run_id);
        let call = Call::patch(Subject::of("mark run", run_id), path, json!({ "state": mark.as_str() }));
        self.json(self.api().await?, call).await
    }

    async fn task_instance(&self, key: &TaskKey) -> Result<TaskInstance> {
        let call = Call::get(Subject::of("read task", &key.task_id), Self::task(key));
        self.json(self.api().await?, call).await
    }

    async fn task_instances(&self, dag_id: &str, run_id: &str, span: Span) -> Result<Page<TaskInstance>> {
        let call = Call::get(Subject::of("list tasks of run", run_id), Self::tasks_of(dag_id, run_id));
        self.page(self.api().await?, call, span, "task_instances").await
    }

    async fn mapped_task_instances(
        &self,
        dag_id: &str,
        run_id: &str,
        task_id: &str,
        span: Span,
    ) -> Result<Page<TaskInstance>> {
        let path = Self::tasks_of(dag_id, run_id).name(task_id).then("listMapped");
        let call = Call::get(Subject::of("list instances of task", task_id), path);
        // By map index, as both do unless told otherwise, and v1 refuses to be told.
        self.page(self.api().await?, call, span, "task_instances").await
    }

    async fn log(&self, key: &TaskKey, try_number: u32, bytes_max: usize) -> Result<Log> {
        let api = self.api().await?;
        let path = Self::tasks_of(&key.dag_id, &key.run_id).name(&key.task_id).then("logs").index(try_number);
        let call = Call::get(Subject::of("read the log of task", &key.task_id), path)
            .query(Self::map_index(key))
            .query([("full_content", "true".into())])
            .accept(if api == Api::V1 { v1::LOG } else { v2::LOG });
        let (tail, is_complete) = self.http.tail(api, &call, Tail::new(api, bytes_max)).await?;
        Ok(tail.finish(is_complete))
    }

    async fn xcom(&self, key: &TaskKey, name: &str) -> Result<Value> {
        let api = self.api().await?;
        let path = Self::tasks_of(&key.dag_id, &key.run_id).name(&key.task_id).then("xcomEntries").name(name);
        let mut call = Call::get(Subject::of("read an XCom of task", &key.task_id), path).query(Self::map_index(key));
        if api == Api::V1 {
            call = call.query(v1::XCOM.map(|(key, value)| (key, value.to_owned())));
        }
        Ok(self.json::<XComAnswer>(api, call).await?.value)
    }

    async fn answer(&self, key: &TaskKey) -> Result<Option<Answer>> {
        let subject = || Subject::of("read the answer to task", &key.task_id);
        let api = self.since_3(1, subject, "human-in-the-loop came with Airflow 3.1").await?;
        let path = Self::tasks_of(&key.dag_id, &key.run_id).name(&key.task_id);
        // An instance that is not mapped is called −1 there.
        let path = match key.map_index {
            Some(index) => path.index(index),
            None => path.then("-1"),
        };
        match self.json::<v2::Question>(api, Call::get(subject(), path.then("hitlDetails"))).await {
            Ok(question) => Ok(question.answer()),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn preview_clear(&self, clear: &Clear) -> Result<Vec<ClearedTask>> {
        self.cleared(clear, true).await
    }

    async fn clear(&self, clear: &Clear) -> Result<Vec<ClearedTask>> {
        self.cleared(clear, true).await?;
        self.cleared(clear, false).await
    }

    async fn mark_task(&self, key: &TaskKey, mark: TaskMark) -> Result<()> {
        let api = self.api().await?;
        let body = match api {
            Api::V1 => v1::mark_task(mark),
            Api::V2 => v2::mark_task(mark),
        };
        let call = Call::patch(Subject::of("mark task", &key.task_id), Self::task(key), body);
        self.send(api, &call).await.map(|_| ())
    }

    async fn start_backfill(&self, request: &BackfillRequest) -> Result<Backfill> {
        let subject = Subject::of("backfill DAG", &request.dag_id);
        let api = self.v2(|| subject.clone(), NO_BACKFILLS).await?;
        if request.from > request.to {
            // As 3.3 answers. 3.1 takes it, as a backfill without dates; 3.2 answers 500.
            let detail = "the last logical date lies before the first".into();
            return Err(Error::Refused { call: subject, status: 422, detail });
        }
        self.json(api, Call::post(subject, Path::new("backfills"), v2::backfill(request))).await
    }

    async fn preview_backfill(&self, request: &BackfillRequest) -> Result<Vec<DateTime<Utc>>> {
        let subject = Subject::of("preview a backfill of DAG", &request.dag_id);
        let api = self.v2(|| subject.clone(), NO_BACKFILLS).await?;
        let path = Path::new("backfills").then("dry_run");
        let call = Call::post(subject, path, v2::backfill(request)).repeatable();
        let body = self.send(api, &call).await?;
        let dates = self.read_page::<BackfillDate>(&call.subject, body, "backfills")?.items;
        Ok(dates.into_iter().filter_map(|date| date.logical_date).collect())
    }

    async fn backfill(&self, id: u64) -> Result<Backfill> {
        let subject = Subject::of("read backfill", &id.to_string());
        let api = self.v2(|| subject.clone(), NO_BACKFILLS).await?;
        self.json(api, Call::get(subject, Path::new("backfills").name(&id.to_string()))).await
    }

    async fn act_on_backfill(&self, id: u64, action: BackfillAction) -> Result<Backfill> {
        let subject = Subject::of("change backfill", &id.to_string());
        let api = self.v2(|| subject.clone(), NO_BACKFILLS).await?;
        let path = Path::new("backfills").name(&id.to_string()).then(action.as_str());
        match self.json(api, Call::put(subject, path)).await {
            // It is over, be it by a first try of this call that was not answered.
            Err(Error::Conflict { .. }) if action == BackfillAction::Cancel => self.backfill(id).await,
            answer => answer,
        }
    }

    async fn asset(&self, uri: &str) -> Result<Asset> {
        let api = self.api().await?;
        let (path, key) = match api {
            Api::V1 => ("datasets", "datasets"),
            Api::V2 => ("assets", "assets"),
        };
        let mut span = Some(Span::first());
        for _ in 0..ASSET_PAGES_MAX {
            let Some(at) = span else { break };
            let call = Call::get(Subject::of("find asset", uri), Path::new(path));
            let call = call.query([("uri_pattern", uri.to_owned()), ("order_by", "id".into())]);
            let page = self.page::<Asset>(api, call, at, key).await?;
            span = at.after(&page);
            if let Some(asset) = page.items.into_iter().find(|asset| asset.uri == uri) {
                return Ok(asset);
            }
        }
        Err(Error::NotFound { call: Subject::of("find asset", uri), detail: "no DAG that it knows names it".into() })
    }

    async fn asset_events(&self, filter: &AssetEventFilter, span: Span) -> Result<Page<AssetEvent>> {
        let api = self.api().await?;
        let (path, id, key) = match api {
            Api::V1 => ("datasets", "dataset_id", "dataset_events"),
            Api::V2 => ("assets", "asset_id", "asset_events"),
        };
        let call = Call::get(Subject::bare("list asset events"), Path::new(path).then("events"))
            .query([("order_by", "timestamp".into())])
            .query(filter.asset_id.map(|asset| (id, asset.to_string())))
            .query(filter.source_dag_id.clone().map(|dag| ("source_dag_id", dag)))
            .query(filter.source_run_id.clone().map(|run| ("source_run_id", run)));
        self.page(api, call, span, key).await
    }

    async fn create_asset_event(&self, uri: &str, extra: &Map<String, Value>) -> Result<AssetEvent> {
        let subject = Subject::of("tell that an asset changed:", uri);
        let api = self.api().await?;
        let (path, body) = match api {
            Api::V1 => ("datasets", json!({ "dataset_uri": uri, "extra": extra })),
            Api::V2 => ("assets", json!({ "asset_id": self.asset(uri).await?.id, "extra": extra })),
        };
        self.json(api, Call::post(subject, Path::new(path).then("events"), body)).await
    }

    async fn pool(&self, name: &str) -> Result<Pool> {
        let call = Call::get(Subject::of("read pool", name), Path::new("pools").name(name));
        self.json(self.api().await?, call).await
    }

    async fn pools(&self, span: Span) -> Result<Page<Pool>> {
        let call = Call::get(Subject::bare("list pools"), Path::new("pools"));
        self.page(self.api().await?, call.query([("order_by", "id".into())]), span, "pools").await
    }

    async fn set_pool(&self, name: &str, slots: i64) -> Result<PoolSet> {
        let subject = Subject::of("set pool", name);
        let api = if slots < 0 {
            // It would be set, and from then on no pool could be read.
            self.since_3(1, || subject.clone(), "its API cannot tell of a pool without end").await?
        } else {
            self.api().await?
        };
        let found = match self.pool(name).await {
            Err(error) if error.is_not_found() => {
                let call = Call::post(subject.clone(), Path::new("pools"), json!({ "name": name, "slots": slots }));
                match self.json(api, call).await {
                    // Somebody else made it meanwhile.
                    Err(Error::Conflict { .. }) => self.pool(name).await?,
                    made => return Ok(PoolSet::Made(made?)),
                }
            }
            found => found?,
        };
        if found.slots == slots {
            return Ok(PoolSet::Kept(found));
        }
        let body = match api {
            Api::V1 => v1::pool_slots(slots),
            Api::V2 => v2::pool_slots(&found, slots),
        };
        let call = Call::patch(subject, Path::new("pools").name(name), body);
        let call = call.query([("update_mask", "slots".into())]).repeatable();
        Ok(PoolSet::Changed(self.json(api, call).await?))
    }

    async fn connection(&self, id: &str) -> Result<Connection> {
        let call = Call::get(Subject::of("read connection", id), Path::new("connections").name(id));
        self.json(self.api().await?, call).await
    }

    async fn test_connection(&self, id: &str) -> Result<ConnectionTest> {
        let subject = Subject::of("test connection", id);
        let reason = "it tries out only what it is told the password of";
        let api = self.since_3(1, || subject.clone(), reason).await?;
        let conn_type = self.connection(id).await?.conn_type;
        let body = json!({ "connection_id": id, "conn_type": conn_type });
        let call = Call::post(subject.clone(), Path::new("connections").then("test"), body).repeatable();
        match self.json::<ConnectionTest>(api, call).await {
            Ok(test) => Ok(ConnectionTest { works: test.works, message: self.http.tidy(&test.message) }),
            Err(Error::Denied { detail, .. }) if detail.contains("disabled in Airflow configuration") => {
                let version = self.known().await?.version;
                let reason = "its setting [core] test_connection is not Enabled";
                Err(Error::NotOffered { call: subject, version, reason })
            }
            Err(error) => Err(error),
        }
    }
}
