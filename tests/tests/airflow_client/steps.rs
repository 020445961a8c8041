//! The steps of the contract.

use std::collections::BTreeMap;

use chrono::{TimeDelta, Utc};
use dagwright_airflow::{
    Airflow, AssetEventFilter, BackfillAction, BackfillRequest, Clear, ClearedTask, DagFilter, Deleted, Error, PoolSet,
    Reprocess, RunFilter, RunMark, RunState, Span, TaskInstance, TaskKey, TaskMark, TaskState, Trigger, Triggered,
};
use dagwright_model::code::Code;
use serde_json::{Map, json};

use crate::{Contract, client};

/// The run that the story is about.
const RUN: &str = "dagwright__0a1b:c+d";

const SINK: &str = "dagwright://contract/sink";

fn trigger(run_id: &str) -> Trigger {
    Trigger {
        dag_id: "contract".into(),
        run_id: run_id.into(),
        conf: Map::from_iter([("fail".to_owned(), json!(true))]),
        logical_date: None,
        data_interval: None,
        note: Some("by the contract".into()),
    }
}

fn key(task_id: &str, map_index: Option<u32>) -> TaskKey {
    TaskKey { dag_id: "contract".into(), run_id: RUN.into(), task_id: task_id.into(), map_index }
}

/// Panics unless a call ended with this code.
#[track_caller]
fn expect<T: std::fmt::Debug>(answer: dagwright_airflow::Result<T>, code: Code) -> Error {
    let error = answer.expect_err("a refusal");
    assert_eq!(error.code(), code, "{error}");
    error
}

/// The states of task instances, by task and map index.
fn states(tasks: &[TaskInstance]) -> BTreeMap<(&str, i64), Option<&TaskState>> {
    tasks.iter().map(|task| ((task.task_id.as_str(), task.map_index), task.state.as_ref())).collect()
}

impl Contract {
    pub(crate) async fn dags(&self) {
        let airflow = &self.client;
        let dag = self.wait("the DAG", async || airflow.dag("contract").await.map(Some)).await;
        assert!(dag.is_active && !dag.is_paused && !dag.has_import_errors && !dag.file_token.is_empty());
        assert_eq!(dag.bundle_name.is_some(), self.major == 3);
        let filter = DagFilter { tags: vec!["contract".into()], inactive_too: false };
        let mut span = Some(Span { limit: 1, offset: 0 });
        let mut seen = Vec::new();
        while let Some(at) = span {
            let page = airflow.dags(&filter, at).await.expect("DAGs");
            assert_eq!((page.items.len(), page.total), (1, 2));
            seen.extend(page.items.iter().map(|dag| dag.dag_id.clone()));
            span = at.after(&page);
        }
        assert_eq!(seen, ["contract", "contract_next"]);
        assert!(airflow.set_paused("contract", true).await.expect("a DAG").is_paused);
        assert!(airflow.dag("contract").await.expect("a DAG").is_paused);
        assert!(!airflow.set_paused("contract", false).await.expect("a DAG").is_paused);
        let versions = airflow.dag_versions("contract", Span::first()).await;
        if self.major == 3 {
            assert_eq!(versions.expect("versions").items[0].version_number, 1);
        } else {
            expect(versions, Code::AirflowNotOffered);
        }
    }

    pub(crate) async fn import_errors(&self) {
        let airflow = &self.client;
        let bad = self.server.dags().join("bad.py");
        std::fs::write(&bad, "from airflow import DAG\n\nraise RuntimeError('bad on purpose')\n").expect("a file");
        let token = airflow.dag("contract").await.expect("a DAG").file_token;
        airflow.reparse(&token).await.expect("taken");
        airflow.reparse(&token).await.expect("a repeat is as good");
        let find = async || {
            let errors = airflow.import_errors(Span::first()).await?;
            Ok(errors.items.into_iter().find(|error| error.is_of("bad.py")))
        };
        let error = self.wait("the import error", find).await;
        assert!(error.stack_trace.expect("a trace").contains("bad on purpose"));
        let file = error.filename.expect("a file");
        assert_eq!((file == "bad.py", error.bundle_name.is_some()), (self.since_3(1), self.major == 3), "{file}");
        std::fs::remove_file(bad).expect("removed");
    }

    pub(crate) async fn users(&self) {
        let wrong = client(&self.server, "admin", "wrong");
        let error = expect(wrong.dag("contract").await, Code::AirflowUnauthenticated);
        assert!(!format!("{error} {error:?}").contains("wrong\""), "{error:?}");
        let viewer = client(&self.server, "viewer", &self.server.password);
        assert_eq!(viewer.dag("contract").await.expect("a DAG").dag_id, "contract");
        expect(viewer.set_paused("contract", true).await, Code::AirflowDenied);
        expect(viewer.trigger(&trigger("not allowed")).await, Code::AirflowDenied);
    }

    pub(crate) async fn pools_and_connections(&self) {
        let airflow = &self.client;
        let set = async |name: &str, slots: i64| {
            let set = airflow.set_pool(name, slots).await.expect("a pool");
            assert_eq!(set.pool().slots, slots);
            set
        };
        assert!(matches!(set("contract", 2).await, PoolSet::Made(_)));
        assert!(matches!(set("contract", 2).await, PoolSet::Kept(_)));
        let without_end = if self.since_3(1) {
            assert!(matches!(set("contract", -1).await, PoolSet::Changed(_)));
            -1
        } else {
            expect(airflow.set_pool("contract", -1).await, Code::AirflowNotOffered);
            2
        };
        assert!(matches!(set("default_pool", 64).await, PoolSet::Changed(_)));
        let pools = airflow.pools(Span::first()).await.expect("pools").items;
        let pools: BTreeMap<_, _> = pools.iter().map(|pool| (pool.name.as_str(), pool.slots)).collect();
        assert_eq!(pools, BTreeMap::from([("contract", without_end), ("default_pool", 64)]));
        let connection = airflow.connection("here").await.expect("a connection");
        assert_eq!((connection.conn_type.as_str(), connection.host.as_deref()), ("fs", Some("nowhere")));
        expect(airflow.connection("contract").await, Code::AirflowUnknown);
        let test = airflow.test_connection("here").await;
        if self.since_3(1) {
            let test = test.expect("a result");
            assert!(test.works && !test.message.is_empty(), "{test:?}");
        } else {
            expect(test, Code::AirflowNotOffered);
        }
    }

    pub(crate) async fn what_is_not_there(&self) {
        let airflow = &self.client;
        for dag_id in ["nothing", "a b?c#d%2e;é", "%2e%2e"] {
            expect(airflow.dag(dag_id).await, Code::AirflowUnknown);
            expect(airflow.run(dag_id, "r").await, Code::AirflowUnknown);
            expect(airflow.set_paused(dag_id, true).await, Code::AirflowUnknown);
            let lost = Trigger { dag_id: dag_id.into(), ..trigger("r") };
            expect(airflow.trigger(&lost).await, Code::AirflowUnknown);
        }
        expect(airflow.run("contract", "r").await, Code::AirflowUnknown);
        expect(airflow.mark_run("contract", "r", RunMark::Failed).await, Code::AirflowUnknown);
        expect(airflow.task_instance(&key("load", Some(7))).await, Code::AirflowUnknown);
        expect(airflow.mark_task(&key("split", None), TaskMark::Success).await, Code::AirflowUnknown);
        expect(airflow.xcom(&key("split", None), "return_value").await, Code::AirflowUnknown);
        expect(airflow.log(&key("split", None), 1, 1000).await, Code::AirflowUnknown);
        expect(airflow.asset("dagwright://contract/sin").await, Code::AirflowUnknown);
        expect(airflow.create_asset_event("dagwright://contract/sin", &Map::new()).await, Code::AirflowUnknown);
        expect(airflow.pool("nothing").await, Code::AirflowUnknown);
        let cleared =
            Clear { dag_id: "contract".into(), run_id: "r".into(), tasks: None, only_failed: true, downstream: false };
        expect(airflow.clear(&cleared).await, Code::AirflowUnknown);
        assert_eq!(airflow.delete_dag("nothing").await.expect("nothing"), Deleted::Before);
        let mut unfit = trigger("unfit");
        unfit.conf.insert("fail".into(), json!("perhaps"));
        let error = expect(airflow.trigger(&unfit).await, Code::AirflowRefused);
        assert!(error.to_string().contains("perhaps"), "{error}");
        expect(airflow.run("contract", "unfit").await, Code::AirflowUnknown);
    }

    pub(crate) async fn a_run_that_fails(&self) {
        let airflow = &self.client;
        let before = Utc::now() - TimeDelta::seconds(1);
        let first = airflow.trigger(&trigger(RUN)).await.expect("a run");
        assert!(
            matches!(&first, Triggered::Started(run) if run.run_id == RUN && run.dag_id == "contract"),
            "{first:?}"
        );
        assert_eq!(first.run().run_type.as_deref(), Some("manual"));
        assert_eq!(first.run().logical_date.is_some(), self.major == 2);
        for _ in 0..3 {
            let again = airflow.trigger(&trigger(RUN)).await.expect("a run");
            assert!(matches!(&again, Triggered::Found(run) if run.run_id == RUN), "{again:?}");
            assert_eq!(again.run().conf, Some(trigger(RUN).conf));
            assert_eq!(again.run().note.as_deref(), Some("by the contract"));
        }
        // Another run may not take its date; nor does the id of one that never was find anything.
        if let Some(date) = first.run().logical_date {
            let same = Trigger { logical_date: Some(date), ..trigger("same date") };
            expect(airflow.trigger(&same).await, Code::AirflowConflict);
        }
        let ended = async || Ok(Some(airflow.run("contract", RUN).await?).filter(|run| run.state.is_final()));
        let run = self.wait("the end of the run", ended).await;
        assert_eq!(run.state, RunState::Failed);
        assert!(run.start_date.is_some() && run.end_date >= run.start_date);
        for filter in [
            RunFilter { updated_at_gte: Some(before), ..RunFilter::default() },
            RunFilter { dag_id: Some("contract".into()), states: vec![RunState::Failed], updated_at_gte: None },
        ] {
            let runs = airflow.runs(&filter, Span::first()).await.expect("runs");
            assert_eq!(runs.items.iter().filter(|run| run.dag_id == "contract").count(), 1, "{runs:?}");
        }
        let later = RunFilter { updated_at_gte: Some(Utc::now() + TimeDelta::hours(1)), ..RunFilter::default() };
        assert_eq!(airflow.runs(&later, Span::first()).await.expect("runs").total, 0);
    }

    pub(crate) async fn its_tasks(&self) {
        let airflow = &self.client;
        let tasks = airflow.task_instances("contract", RUN, Span::first()).await.expect("tasks");
        assert_eq!(tasks.total, 4);
        assert_eq!(
            states(&tasks.items),
            BTreeMap::from([
                (("load", 0), Some(&TaskState::Success)),
                (("load", 1), Some(&TaskState::Failed)),
                (("publish", -1), Some(&TaskState::UpstreamFailed)),
                (("split", -1), Some(&TaskState::Success)),
            ])
        );
        assert!(tasks.items.iter().all(|task| task.id.is_some() == (self.major == 3)));
        let mut span = Some(Span { limit: 1, offset: 0 });
        let mut seen = Vec::new();
        while let Some(at) = span {
            let page = airflow.mapped_task_instances("contract", RUN, "load", at).await.expect("tasks");
            seen.extend(page.items.iter().map(|task| (task.map_index, task.try_number)));
            span = at.after(&page);
        }
        assert_eq!(seen, [(0, 1), (1, 1)]);
        let load = airflow.task_instance(&key("load", Some(1))).await.expect("a task");
        assert_eq!((load.key(), load.state), (key("load", Some(1)), Some(TaskState::Failed)));
        assert!(load.start_date.is_some() && load.end_date.is_some());
        assert_eq!(airflow.task_instance(&key("split", None)).await.expect("a task").map_index, -1);
        expect(airflow.task_instance(&key("load", None)).await, Code::AirflowUnknown);
    }

    pub(crate) async fn its_logs_and_values(&self) {
        let airflow = &self.client;
        let log = airflow.log(&key("load", Some(1)), 1, 1 << 20).await.expect("a log");
        assert!(log.is_complete && log.left_out == 0);
        assert!(
            log.text.contains("line 0 of part 1") && log.text.contains("this part fails on purpose"),
            "{}",
            log.text
        );
        let tail = airflow.log(&key("load", Some(1)), 1, 400).await.expect("a log");
        assert!(log.text.ends_with(&tail.text) && tail.text.len() <= 400, "{}", tail.text);
        assert_eq!(tail.text.len() as u64 + tail.left_out, log.text.len() as u64);
        let other = airflow.log(&key("load", Some(0)), 1, 1 << 20).await.expect("a log");
        assert!(other.text.contains("line 99 of part 0") && !other.text.contains("on purpose"), "{}", other.text);
        assert_eq!(airflow.xcom(&key("split", None), "return_value").await.expect("a value"), json!([[0], [1]]));
        expect(airflow.xcom(&key("split", None), "another").await, Code::AirflowUnknown);
    }

    pub(crate) async fn clearing_it(&self) {
        let airflow = &self.client;
        let before = airflow.task_instance(&key("load", Some(1))).await.expect("a task");
        let failed =
            Clear { dag_id: "contract".into(), run_id: RUN.into(), tasks: None, only_failed: true, downstream: false };
        let named = |task_id: &str, map_index: i64| ClearedTask {
            task_id: task_id.into(),
            map_index: (self.major == 3).then_some(map_index),
        };
        let wanted = [named("load", 1), named("publish", -1)];
        assert_eq!(airflow.preview_clear(&failed).await.expect("tasks"), wanted);
        assert_eq!(airflow.run("contract", RUN).await.expect("a run").state, RunState::Failed);
        assert_eq!(airflow.clear(&failed).await.expect("cleared"), wanted);
        let ended = async || Ok(Some(airflow.run("contract", RUN).await?).filter(|run| run.state.is_final()));
        assert_eq!(self.wait("the second end of the run", ended).await.state, RunState::Success);
        let tasks = airflow.task_instances("contract", RUN, Span::first()).await.expect("tasks").items;
        let tries: BTreeMap<_, _> =
            tasks.iter().map(|task| ((task.task_id.as_str(), task.map_index), task.try_number)).collect();
        assert_eq!((tries[&("load", 0)], tries[&("load", 1)], tries[&("split", -1)]), (1, 2, 1));
        let after = airflow.task_instance(&key("load", Some(1))).await.expect("a task");
        assert_eq!(before.id != after.id, self.major == 3, "the id of a cleared task instance");
        let first = airflow.log(&key("load", Some(1)), 1, 1 << 20).await.expect("the log of the first try");
        assert!(first.text.contains("on purpose"), "{}", first.text);
        assert_eq!(
            airflow.xcom(&key("publish", None), "return_value").await.expect("a value"),
            json!({ "rows": 3, "sink": "it's", "parts": [1.5, null, true] })
        );
        let one = Clear {
            tasks: Some(vec![ClearedTask { task_id: "load".into(), map_index: Some(0) }]),
            only_failed: false,
            ..failed
        };
        let single = airflow.preview_clear(&one).await;
        if self.major == 3 {
            assert_eq!(single.expect("tasks"), [named("load", 0)]);
        } else {
            expect(single, Code::AirflowNotOffered);
        }
        let whole = Clear {
            tasks: Some(vec![ClearedTask { task_id: "load".into(), map_index: None }]),
            downstream: true,
            ..one
        };
        assert_eq!(
            airflow.preview_clear(&whole).await.expect("tasks"),
            [named("load", 0), named("load", 1), named("publish", -1)]
        );
    }

    pub(crate) async fn its_asset(&self) {
        let airflow = &self.client;
        let asset = airflow.asset(SINK).await.expect("an asset");
        let filter = AssetEventFilter { source_run_id: Some(RUN.into()), ..AssetEventFilter::default() };
        let events = airflow.asset_events(&filter, Span::first()).await.expect("events");
        assert_eq!((events.total, events.items[0].asset_id), (1, asset.id));
        assert_eq!(events.items[0].source_dag_id.as_deref(), Some("contract"));
        assert_eq!(events.items[0].source_task_id.as_deref(), Some("publish"));
        let runs_of_next = async |count: usize| {
            let filter = RunFilter { dag_id: Some("contract_next".into()), ..RunFilter::default() };
            let runs = airflow.runs(&filter, Span::first()).await?;
            Ok(Some(runs.items)
                .filter(|runs| runs.len() >= count && runs.iter().all(|run| run.state == RunState::Success)))
        };
        self.wait("the run that the event starts", async || runs_of_next(1).await).await;
        let told =
            airflow.create_asset_event(SINK, &Map::from_iter([("rows".to_owned(), json!(3))])).await.expect("an event");
        assert_eq!((told.asset_id, told.extra.expect("extra")["rows"].clone()), (asset.id, json!(3)));
        assert!(told.source_run_id.is_none());
        self.wait("the run that our event starts", async || runs_of_next(2).await).await;
        let filter = AssetEventFilter { asset_id: Some(asset.id), ..AssetEventFilter::default() };
        let events = airflow.asset_events(&filter, Span::first()).await.expect("events").items;
        assert_eq!(events.len(), 2);
        assert!(
            events
                .iter()
                .all(|event| event.created_dagruns.len() == 1 && event.created_dagruns[0].dag_id == "contract_next")
        );
    }

    pub(crate) async fn marking(&self) {
        let airflow = &self.client;
        for (mark, state) in [
            (TaskMark::Failed, TaskState::Failed),
            (TaskMark::Skipped, TaskState::Skipped),
            (TaskMark::Success, TaskState::Success),
        ] {
            airflow.mark_task(&key("load", Some(1)), mark).await.expect("marked");
            let task = airflow.task_instance(&key("load", Some(1))).await.expect("a task");
            assert_eq!(task.state, Some(state));
            let other = airflow.task_instance(&key("load", Some(0))).await.expect("a task");
            assert_eq!(other.state, Some(TaskState::Success), "only the one that was named");
        }
        for (mark, state) in [(RunMark::Failed, RunState::Failed), (RunMark::Success, RunState::Success)] {
            assert_eq!(airflow.mark_run("contract", RUN, mark).await.expect("a run").state, state);
            assert_eq!(airflow.run("contract", RUN).await.expect("a run").state, state);
        }
    }

    pub(crate) async fn backfills(&self) {
        let airflow = &self.client;
        let day = |text: &str| format!("2025-01-{text}T00:00:00Z").parse().expect("an instant");
        let request = BackfillRequest {
            dag_id: "contract_daily".into(),
            from: day("03"),
            to: day("05"),
            conf: Map::new(),
            reprocess: Reprocess::None,
            backwards: false,
            max_active_runs: 2,
        };
        if self.major == 2 {
            expect(airflow.preview_backfill(&request).await, Code::AirflowNotOffered);
            expect(airflow.start_backfill(&request).await, Code::AirflowNotOffered);
            return;
        }
        let dates = airflow.preview_backfill(&request).await.expect("dates");
        assert_eq!(dates, [day("03"), day("04"), day("05")]);
        let unknown = BackfillRequest { dag_id: "nothing".into(), ..request.clone() };
        expect(airflow.start_backfill(&unknown).await, Code::AirflowUnknown);
        let backwards = BackfillRequest { from: day("05"), to: day("03"), ..request.clone() };
        expect(airflow.start_backfill(&backwards).await, Code::AirflowRefused);
        // The DAG is paused: its runs wait, and the backfill with them.
        let backfill = airflow.start_backfill(&request).await.expect("a backfill");
        assert_eq!(backfill.dag_id, "contract_daily");
        expect(airflow.start_backfill(&request).await, Code::AirflowConflict);
        assert!(airflow.act_on_backfill(backfill.id, BackfillAction::Pause).await.expect("a backfill").is_paused);
        assert!(!airflow.act_on_backfill(backfill.id, BackfillAction::Unpause).await.expect("a backfill").is_paused);
        for _ in 0..2 {
            let cancelled = airflow.act_on_backfill(backfill.id, BackfillAction::Cancel).await.expect("a backfill");
            assert!(cancelled.completed_at.is_some());
        }
        expect(airflow.act_on_backfill(backfill.id, BackfillAction::Pause).await, Code::AirflowConflict);
        assert!(airflow.backfill(backfill.id).await.expect("a backfill").completed_at.is_some());
        expect(airflow.backfill(backfill.id + 1).await, Code::AirflowUnknown);
    }

    pub(crate) async fn deletion(&self) {
        let airflow = &self.client;
        // With its file, so that Airflow does not find it again.
        std::fs::remove_file(self.server.dags().join("contract.py")).expect("removed");
        let inactive = async || Ok(Some(airflow.dag("contract").await?).filter(|dag| !dag.is_active));
        self.wait("the DAG to be seen as gone", inactive).await;
        let filter = DagFilter { tags: vec!["contract".into()], inactive_too: false };
        let none = async || Ok((airflow.dags(&filter, Span::first()).await?.total == 0).then_some(()));
        self.wait("all of its file's to be", none).await;
        let all = DagFilter { inactive_too: true, ..filter.clone() };
        assert_eq!(airflow.dags(&all, Span::first()).await.expect("DAGs").total, 2);
        expect(airflow.trigger(&trigger("too late")).await, Code::AirflowUnknown);
        assert_eq!(airflow.delete_dag("contract").await.expect("deleted"), Deleted::Now);
        assert_eq!(airflow.delete_dag("contract").await.expect("gone"), Deleted::Before);
        expect(airflow.dag("contract").await, Code::AirflowUnknown);
        expect(airflow.run("contract", RUN).await, Code::AirflowUnknown);
    }
}
