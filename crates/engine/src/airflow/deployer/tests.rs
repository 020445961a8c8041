//! Deployments to a folder that a fake Airflow reads.

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use dagwright_airflow::ImportError;
use dagwright_compiler::{LOADER_FILE, Layout, plan_tag};
use dagwright_model::{code::Code, plan::Plan, task::Problem};
use futures::future::join_all;
use tempfile::TempDir;
use tokio::time::interval;

use super::Deployer;
use crate::{
    airflow::{
        deploy::{Choice, Folder, Rule},
        fake::FakeAirflow,
    },
    tests::fixture,
};

/// Longer than any test takes, so that what is told for want of time is told by none.
const PATIENCE: Duration = Duration::from_mins(10);

const FILES: Rule = Rule { choice: Choice::Fixed(Layout::File), loader_from: 1 };

const LOADER: Rule = Rule { choice: Choice::Fixed(Layout::Loader), loader_from: 1 };

struct Place {
    airflow: Arc<FakeAirflow>,
    deployer: Deployer,
    folder: TempDir,
}

// === impl Place ===

impl Place {
    async fn new(major: u32, rule: Rule) -> Self {
        Self::over(tempfile::tempdir().expect("a folder"), major, rule).await
    }

    /// Another daemon and another Airflow over a folder.
    async fn over(folder: TempDir, major: u32, rule: Rule) -> Self {
        let path = folder.path().join("dags");
        let airflow = Arc::new(FakeAirflow::new(major, path.clone()));
        airflow.parse();
        let deployer = Deployer::start(airflow.clone(), Arc::new(Folder::new(path.clone())), rule, PATIENCE, false);
        // As an Airflow that starts after the daemon finds the anchor.
        let mut ticks = interval(Duration::from_millis(10));
        while airflow.state().dags.is_empty() {
            ticks.tick().await;
            if path.join("dagwright_anchor.py").is_file() {
                airflow.parse();
            }
        }
        Self { airflow, deployer, folder }
    }

    /// Deploys plans together.
    async fn deploy(&self, plans: &[Arc<Plan>]) {
        // Airflow finds what is new in its own time, too: 2.11 is not told of new files.
        let finding = async {
            let mut ticks = interval(Duration::from_millis(50));
            loop {
                ticks.tick().await;
                if !self.airflow.state().rests {
                    self.airflow.parse();
                }
            }
        };
        let deployed = join_all(plans.iter().map(|plan| self.deployer.deploy(plan)));
        tokio::select! {
            results = deployed => results.into_iter().for_each(|result| result.expect("deployed")),
            () = finding => {}
        }
    }

    fn calls(&self) -> Vec<String> {
        std::mem::take(&mut self.airflow.state().calls)
    }

    #[track_caller]
    fn check_shown(&self, plan: &Plan) {
        let state = self.airflow.state();
        let dag = &state.dags[&plan.dag_id];
        assert!(dag.is_active && dag.tags.contains(&plan_tag(&plan.hash())), "{dag:?}");
    }
}

fn plan(dag_id: &str, version: u32) -> Arc<Plan> {
    Arc::new(Plan { dag_id: dag_id.into(), description: Some(version.to_string()), ..fixture::plan(Vec::new()) })
}

fn plans(count: usize) -> Vec<Arc<Plan>> {
    (0..count).map(|number| plan(&format!("dag_{number:03}"), 1)).collect()
}

fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder.join("dags")).expect("a folder").map(|entry| entry.expect("an entry"));
    // What is under way may be gone by now.
    let read = |entry: fs::DirEntry| Some((entry.file_name().into_string().ok()?, fs::read(entry.path()).ok()?));
    entries.filter_map(read).filter(|(name, _)| !name.starts_with('.')).collect()
}

fn code(result: Result<(), Problem>) -> Code {
    result.expect_err("refused").code
}

#[tokio::test(start_paused = true)]
async fn a_plan_is_shown_and_the_same_again_is_neither_written_nor_parsed() {
    for (major, rule) in [(2, FILES), (2, LOADER), (3, FILES), (3, LOADER)] {
        let place = Place::new(major, rule).await;
        let first = plan("a", 1);
        place.deploy(&[first.clone(), plan("b", 1)]).await;
        place.check_shown(&first);
        let (before, _) = (files(place.folder.path()), place.calls());
        place.deployer.deploy(&first).await.expect("deployed");
        assert_eq!(files(place.folder.path()), before);
        assert_eq!(place.calls(), ["import errors"], "{major}, {rule:?}");
        // A daemon that was just started does not know yet that Airflow shows it.
        let place = Place::over(place.folder, major, rule).await;
        place.deployer.deploy(&first).await.expect("deployed");
        assert_eq!(files(place.folder.path()), before);
        assert!(!place.calls().iter().any(|call| call.starts_with("parse")), "{major}, {rule:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_one_deployment_asks_does_not_grow_with_what_is_there() {
    for (major, rule) in [(2, FILES), (2, LOADER), (3, FILES), (3, LOADER)] {
        let mut costs = Vec::new();
        for count in [2, 230] {
            let place = Place::new(major, rule).await;
            place.deploy(&plans(count)).await;
            place.calls();
            let changed = plan("dag_001", 2);
            place.deployer.deploy(&changed).await.expect("deployed");
            place.check_shown(&changed);
            costs.push(place.calls());
        }
        let file = if rule == LOADER { LOADER_FILE } else { "dag_001.py" };
        let wanted = ["import errors", "dag", &format!("parse {file}"), "dag"];
        assert_eq!(costs, [wanted, wanted], "{major}, {rule:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn airflow_2_is_asked_to_parse_each_file_that_changed() {
    let place = Place::new(2, FILES).await;
    place.deploy(&plans(120)).await;
    place.calls();
    let changed: Vec<_> = plans(120).iter().map(|it| plan(&it.dag_id, 2)).skip(100).collect();
    let deployed = join_all(changed.iter().map(|plan| place.deployer.deploy(plan))).await;
    assert!(deployed.into_iter().all(|result| result.is_ok()));
    let calls = place.calls();
    for plan in &changed {
        assert!(calls.contains(&format!("parse {}.py", plan.dag_id)), "{} in {calls:?}", plan.dag_id);
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_dag_of_the_loader_is_found_by_its_siblings() {
    for major in [2, 3] {
        let place = Place::new(major, LOADER).await;
        place.deploy(&plans(3)).await;
        place.calls();
        place.deployer.deploy(&plan("new", 1)).await.expect("deployed");
        assert!(place.calls().contains(&format!("parse {LOADER_FILE}")));
        // One that goes, goes without waiting.
        place.deployer.remove("new").await.expect("removed");
        assert!(place.calls().contains(&format!("parse {LOADER_FILE}")));
        assert!(!place.airflow.state().dags["new"].is_active);
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_cannot_be_imported_refuses_its_plan_with_the_text() {
    let place = Place::new(3, FILES).await;
    place.airflow.state().broken.insert("bad.py".into());
    let (bad, good) = (plan("bad", 1), plan("good", 1));
    let (refused, deployed) = tokio::join!(place.deployer.deploy(&bad), place.deployer.deploy(&good));
    let refused = refused.expect_err("refused");
    assert_eq!((refused.code, refused.subject.as_str()), (Code::DagRefused, "bad"));
    assert!(refused.message.contains("Broken: it is"), "{}", refused.message);
    deployed.expect("deployed");
    // Mended, the old error refuses nothing.
    place.airflow.state().broken.clear();
    place.airflow.state().errors.iter_mut().for_each(|error| error.filename = Some("bad.py".into()));
    place.deployer.deploy(&plan("bad", 2)).await.expect("deployed");
}

#[tokio::test(start_paused = true)]
async fn many_old_errors_are_not_read_again_and_again() {
    let place = Place::new(3, FILES).await;
    let old = |number: i64| ImportError {
        import_error_id: number,
        timestamp: chrono::DateTime::from_timestamp(-number, 0),
        filename: Some(if number == 250 { "new.py".into() } else { format!("theirs_{number}.py") }),
        bundle_name: None,
        stack_trace: None,
    };
    place.airflow.state().errors = (0..300).map(old).collect();
    place.deployer.deploy(&plan("new", 1)).await.expect("deployed");
    let asked = place.calls().iter().filter(|call| *call == "import errors").count();
    assert!(asked <= 3, "{asked}");
}

#[tokio::test(start_paused = true)]
async fn a_listing_of_errors_that_is_refused_is_told_before_anything_is_written() {
    let place = Place::new(3, FILES).await;
    place.deploy(&[plan("a", 1)]).await;
    let before = files(place.folder.path());
    place.airflow.state().hides_errors = true;
    assert_eq!(code(place.deployer.deploy(&plan("a", 2)).await), Code::AirflowRefused);
    assert_eq!(files(place.folder.path()), before);
    place.airflow.state().hides_errors = false;
    place.deployer.deploy(&plan("a", 2)).await.expect("deployed");
}

#[tokio::test(start_paused = true)]
async fn what_is_deployed_and_deleted_is_told_as_deleted() {
    for rule in [FILES, LOADER] {
        let place = Place::new(3, rule).await;
        place.deploy(&[plan("other", 1)]).await;
        // In one batch.
        let first = plan("a", 1);
        let (deployed, removed) = tokio::join!(place.deployer.deploy(&first), place.deployer.remove("a"));
        assert_eq!(code(deployed), Code::PipelinePaused);
        removed.expect("removed");
        // And while Airflow is waited for.
        place.airflow.state().rests = true;
        let removing = async {
            while !files(place.folder.path()).keys().any(|name| name.starts_with("a.") && name.ends_with(".json")) {
                tokio::task::yield_now().await;
            }
            place.deployer.remove("a").await
        };
        let second = plan("a", 2);
        let (deployed, removed) = tokio::join!(place.deployer.deploy(&second), removing);
        assert_eq!(code(deployed), Code::PipelinePaused);
        removed.expect("removed");
        place.airflow.state().rests = false;
        // The other way round it is there.
        let third = plan("a", 3);
        let (removed, deployed) = tokio::join!(place.deployer.remove("a"), place.deployer.deploy(&third));
        removed.expect("removed");
        deployed.expect("deployed");
        place.check_shown(&third);
    }
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_a_later_one_overtook_is_told_so() {
    let place = Place::new(3, FILES).await;
    let (first, second) = (plan("a", 1), plan("a", 2));
    let (overtaken, deployed) = tokio::join!(place.deployer.deploy(&first), place.deployer.deploy(&second));
    let overtaken = overtaken.expect_err("overtaken");
    assert_eq!(overtaken.code, Code::DagUnseen);
    assert!(overtaken.message.contains("a later plan"), "{}", overtaken.message);
    deployed.expect("deployed");
}

#[tokio::test(start_paused = true)]
async fn a_plan_that_the_loader_cannot_read_is_refused_with_the_text_and_harms_no_other() {
    let place = Place::new(3, LOADER).await;
    place.airflow.state().unreadable = BTreeMap::from([("torn".into(), usize::MAX), ("late".into(), 1)]);
    let all = [plan("torn", 1), plan("late", 1), plan("good", 1)];
    let results = join_all(all.iter().map(|plan| place.deployer.deploy(plan))).await;
    let [torn, late, good] = results.try_into().expect("three");
    let torn = torn.expect_err("refused");
    assert_eq!((torn.code, torn.subject.as_str()), (Code::DagRefused, "torn"));
    assert!(torn.message.contains("DW0120: the plan is torn"), "{}", torn.message);
    // Read too early, as on a slow network folder, it is read again.
    late.expect("deployed");
    good.expect("deployed");
}

#[tokio::test(start_paused = true)]
async fn the_layout_goes_with_the_number_of_pipelines() {
    let rule = Rule { choice: Choice::Auto, loader_from: 6 };
    for major in [2, 3] {
        let place = Place::new(major, rule).await;
        let all = plans(6);
        place.deploy(&all[..5]).await;
        assert!(!files(place.folder.path()).contains_key(LOADER_FILE));
        place.deploy(&all[5..]).await;
        place.airflow.parse();
        all.iter().for_each(|plan| place.check_shown(plan));
        let made_by = |dag_id: &str| place.airflow.state().dags[dag_id].file_token.clone();
        assert!(all.iter().all(|plan| made_by(&plan.dag_id) == LOADER_FILE));
        for plan in &all[..4] {
            place.deployer.remove(&plan.dag_id).await.expect("removed");
        }
        place.airflow.parse();
        assert_eq!(["dag_004", "dag_005"].map(made_by), ["dag_004.py", "dag_005.py"]);
        place.check_shown(&all[4]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_daemon_that_starts_with_another_layout_has_it_parsed() {
    let place = Place::new(3, FILES).await;
    place.deploy(&plans(3)).await;
    let place = Place::over(place.folder, 3, LOADER).await;
    let is_loaded = || place.airflow.state().dags["dag_000"].file_token == LOADER_FILE;
    let waiting = async {
        let mut ticks = interval(Duration::from_millis(10));
        while !is_loaded() {
            ticks.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.expect("it asks Airflow to parse");
    plans(3).iter().for_each(|plan| place.check_shown(plan));
}
