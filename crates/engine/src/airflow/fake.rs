//! An Airflow for tests: it parses a folder when it is asked to, as package `dagwright-airflow` reads one, and has the runs
//! that it is given. What it was asked is counted.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::{Mutex, MutexGuard},
};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use dagwright_airflow::{
    Airflow, Answer, Asset, AssetEvent, AssetEventFilter, Backfill, BackfillAction, BackfillRequest, Clear,
    ClearedTask, Connection, ConnectionTest, Dag, DagFilter, DagVersion, Deleted, Error, Health, ImportError, Log,
    Page, Pool, PoolSet, Result, Run, RunFilter, RunMark, Span, Subject, TaskInstance, TaskKey, TaskMark, Trigger,
    Triggered, Version,
};
use dagwright_compiler::{
    ANCHOR, INDEX_FILE, LOADER_FILE, TAG, UNREADABLE_TAG,
    file_name::{self, DAG_FILE_START},
    read_index,
};
use serde_json::{Map, Value};

/// An Airflow that parses a folder.
#[derive(Debug)]
pub(crate) struct FakeAirflow {
    folder: PathBuf,
    major: u32,
    state: Mutex<State>,
}

/// What it has, and what it was asked.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) dags: BTreeMap<String, Dag>,
    pub(crate) errors: Vec<ImportError>,
    pub(crate) runs: Vec<Run>,
    /// What it was asked, in words.
    pub(crate) calls: Vec<String>,
    /// It parses nothing, whoever asks.
    pub(crate) rests: bool,
    /// The DAGs whose plans its loader cannot read, and how often.
    pub(crate) unreadable: BTreeMap<String, usize>,
    /// The files that it cannot import.
    pub(crate) broken: BTreeSet<String>,
    /// It refuses to list import errors.
    pub(crate) hides_errors: bool,
    /// It is away.
    pub(crate) is_away: bool,
    parses: i64,
}

// === impl FakeAirflow ===

impl FakeAirflow {
    pub(crate) fn new(major: u32, folder: PathBuf) -> Self {
        Self { folder, major, state: Mutex::default() }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("the state")
    }

    /// Parses the folder, as it does in its own time too.
    pub(crate) fn parse(&self) {
        let mut state = self.state();
        let state = &mut *state;
        state.parses += 1;
        let now = DateTime::from_timestamp(state.parses, 0).expect("a time");
        for dag in state.dags.values_mut() {
            dag.is_active = false;
        }
        state.errors.retain(|error| !error.filename.as_ref().is_some_and(|name| state.broken.contains(name)));
        let mut made = BTreeSet::new();
        for (file, dag_id, plan_file) in self.found() {
            if state.broken.contains(&file) {
                let (id, text) = (state.parses, "Broken: it is".to_owned());
                let error = ImportError {
                    import_error_id: id,
                    timestamp: Some(now),
                    filename: Some(file),
                    bundle_name: None,
                    stack_trace: Some(text),
                };
                state.errors.insert(0, error);
                continue;
            }
            assert!(made.insert(dag_id.clone()), "{dag_id} is made twice");
            let (mut tags, mut description) = (vec![TAG.to_owned()], None);
            if let Some(plan_file) = &plan_file {
                let (_, hash) = file_name::plan_file_parts(plan_file).expect("a plan file");
                tags.push(format!("plan {hash}"));
            }
            if let Some(left) = state.unreadable.get_mut(&dag_id).filter(|left| **left > 0) {
                *left -= 1;
                tags.push(UNREADABLE_TAG.into());
                description = Some("DW0120: the plan is torn".to_owned());
            }
            let is_3 = self.major == 3;
            let dag = Dag {
                dag_id: dag_id.clone(),
                is_paused: false,
                is_active: true,
                has_import_errors: false,
                file_token: file.clone(),
                fileloc: None,
                relative_fileloc: is_3.then_some(file),
                bundle_name: is_3.then(|| "dags".into()),
                bundle_version: None,
                last_parsed_time: Some(now),
                tags,
                description,
            };
            state.dags.insert(dag_id, dag);
        }
    }

    /// Returns the DAGs that the folder makes: by which file, and of which plan file.
    fn found(&self) -> Vec<(String, String, Option<String>)> {
        let read = |name: &str| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        let names: BTreeSet<String> =
            entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect();
        let mut found = Vec::new();
        for name in names.iter().filter(|name| name.ends_with(".py")) {
            let text = read(name);
            if text.starts_with(DAG_FILE_START) {
                let plan_file = text.lines().find_map(|line| line.strip_prefix("PLAN = \"")).expect("a plan");
                let plan_file = plan_file.trim_end_matches('"').to_owned();
                let document: Value = serde_json::from_str(&read(&plan_file)).expect("a plan file");
                let dag_id = document["dag"]["dag_id"].as_str().expect("an id").to_owned();
                found.push((name.clone(), dag_id, Some(plan_file)));
            } else if name == LOADER_FILE {
                for (dag_id, plan_file) in read_index(read(INDEX_FILE).as_bytes()).expect("an index") {
                    let own = read(&file_name::dag_file(&file_name::stem(&dag_id)));
                    if !own.starts_with(DAG_FILE_START) {
                        found.push((name.clone(), dag_id, Some(plan_file)));
                    }
                }
            } else {
                assert_eq!(*name, file_name::dag_file(ANCHOR));
                found.push((name.clone(), ANCHOR.into(), None));
            }
        }
        found
    }

    fn asked(&self, what: &str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.state();
        state.calls.push(what.to_owned());
        if state.is_away {
            return Err(Error::TimedOut { call: Subject::bare("ask a fake") });
        }
        Ok(state)
    }
}

fn not_found() -> Error {
    Error::NotFound { call: Subject::bare("ask a fake"), detail: "there is none".into() }
}

fn page<T: Clone>(items: &[T], span: Span) -> Page<T> {
    let (limit, offset) = (span.limit as usize, span.offset as usize);
    Page { items: items.iter().skip(offset).take(limit).cloned().collect(), total: items.len() as u64 }
}

/// What no test asks.
const NOT_ASKED: &str = "no test asks a fake for that";

#[async_trait]
impl Airflow for FakeAirflow {
    async fn health(&self) -> Result<Health> {
        unreachable!("{NOT_ASKED}")
    }

    async fn version(&self) -> Result<Version> {
        Ok(Version { major: self.major, minor: if self.major == 2 { 11 } else { 3 }, patch: 2 })
    }

    async fn dag(&self, dag_id: &str) -> Result<Dag> {
        self.asked("dag")?.dags.get(dag_id).cloned().ok_or_else(not_found)
    }

    async fn dags(&self, filter: &DagFilter, span: Span) -> Result<Page<Dag>> {
        let state = self.asked("dags")?;
        let dags: Vec<_> = state.dags.values().filter(|dag| filter.inactive_too || dag.is_active).cloned().collect();
        Ok(page(&dags, span))
    }

    async fn set_paused(&self, _: &str, _: bool) -> Result<Dag> {
        unreachable!("{NOT_ASKED}")
    }

    async fn delete_dag(&self, _: &str) -> Result<Deleted> {
        unreachable!("{NOT_ASKED}")
    }

    async fn reparse(&self, file_token: &str) -> Result<()> {
        let rests = self.asked(&format!("parse {file_token}"))?.rests;
        if !rests {
            self.parse();
        }
        Ok(())
    }

    async fn dag_versions(&self, _: &str, _: Span) -> Result<Page<DagVersion>> {
        unreachable!("{NOT_ASKED}")
    }

    async fn import_errors(&self, span: Span) -> Result<Page<ImportError>> {
        let state = self.asked("import errors")?;
        if state.hides_errors {
            return Err(Error::Refused { call: Subject::bare("list import errors"), status: 400, detail: "no".into() });
        }
        Ok(page(&state.errors, span))
    }

    async fn trigger(&self, _: &Trigger) -> Result<Triggered> {
        unreachable!("{NOT_ASKED}")
    }

    async fn run(&self, dag_id: &str, run_id: &str) -> Result<Run> {
        let state = self.asked("run")?;
        let found = state.runs.iter().find(|run| run.dag_id == dag_id && run.run_id == run_id);
        found.cloned().ok_or_else(not_found)
    }

    async fn runs(&self, filter: &RunFilter, span: Span) -> Result<Page<Run>> {
        let state = self.asked("runs")?;
        let changed = |run: &Run| run.end_date.or(run.start_date);
        let is_late = |run: &Run| filter.updated_at_gte.is_none_or(|since| changed(run).is_some_and(|at| at >= since));
        let is_in = |run: &Run| filter.states.is_empty() || filter.states.contains(&run.state);
        let runs: Vec<_> = state.runs.iter().filter(|run| is_late(run) && is_in(run)).cloned().collect();
        Ok(page(&runs, span))
    }

    async fn mark_run(&self, _: &str, _: &str, _: RunMark) -> Result<Run> {
        unreachable!("{NOT_ASKED}")
    }

    async fn task_instance(&self, _: &TaskKey) -> Result<TaskInstance> {
        unreachable!("{NOT_ASKED}")
    }

    async fn task_instances(&self, _: &str, _: &str, _: Span) -> Result<Page<TaskInstance>> {
        unreachable!("{NOT_ASKED}")
    }

    async fn mapped_task_instances(&self, _: &str, _: &str, _: &str, _: Span) -> Result<Page<TaskInstance>> {
        unreachable!("{NOT_ASKED}")
    }

    async fn log(&self, _: &TaskKey, _: u32, _: usize) -> Result<Log> {
        unreachable!("{NOT_ASKED}")
    }

    async fn xcom(&self, _: &TaskKey, _: &str) -> Result<Value> {
        unreachable!("{NOT_ASKED}")
    }

    async fn answer(&self, _: &TaskKey) -> Result<Option<Answer>> {
        unreachable!("{NOT_ASKED}")
    }

    async fn preview_clear(&self, _: &Clear) -> Result<Vec<ClearedTask>> {
        unreachable!("{NOT_ASKED}")
    }

    async fn clear(&self, _: &Clear) -> Result<Vec<ClearedTask>> {
        unreachable!("{NOT_ASKED}")
    }

    async fn mark_task(&self, _: &TaskKey, _: TaskMark) -> Result<()> {
        unreachable!("{NOT_ASKED}")
    }

    async fn start_backfill(&self, _: &BackfillRequest) -> Result<Backfill> {
        unreachable!("{NOT_ASKED}")
    }

    async fn preview_backfill(&self, _: &BackfillRequest) -> Result<Vec<DateTime<Utc>>> {
        unreachable!("{NOT_ASKED}")
    }

    async fn backfill(&self, _: u64) -> Result<Backfill> {
        unreachable!("{NOT_ASKED}")
    }

    async fn act_on_backfill(&self, _: u64, _: BackfillAction) -> Result<Backfill> {
        unreachable!("{NOT_ASKED}")
    }

    async fn asset(&self, _: &str) -> Result<Asset> {
        unreachable!("{NOT_ASKED}")
    }

    async fn asset_events(&self, _: &AssetEventFilter, _: Span) -> Result<Page<AssetEvent>> {
        unreachable!("{NOT_ASKED}")
    }

    async fn create_asset_event(&self, _: &str, _: &Map<String, Value>) -> Result<AssetEvent> {
        unreachable!("{NOT_ASKED}")
    }

    async fn pool(&self, _: &str) -> Result<Pool> {
        unreachable!("{NOT_ASKED}")
    }

    async fn pools(&self, _: Span) -> Result<Page<Pool>> {
        unreachable!("{NOT_ASKED}")
    }

    async fn set_pool(&self, _: &str, _: i64) -> Result<PoolSet> {
        unreachable!("{NOT_ASKED}")
    }

    async fn connection(&self, _: &str) -> Result<Connection> {
        unreachable!("{NOT_ASKED}")
    }

    async fn test_connection(&self, _: &str) -> Result<ConnectionTest> {
        unreachable!("{NOT_ASKED}")
    }
}
