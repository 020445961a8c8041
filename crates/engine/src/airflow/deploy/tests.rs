//! What every destination does, and what each does alone.

mod bundle;
mod crash;
mod folder;
mod git;
mod hostile;
mod layout;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, SystemTime},
};

use dagwright_compiler::{
    Target, compile,
    file_name::{self, DAG_FILE_START},
};
use dagwright_model::canonical;
use tempfile::TempDir;

use super::{Bundle, Change, Destination, Folder, Git, GitSettings, Placed, dir::Steps};

type Files = BTreeMap<String, Vec<u8>>;

/// The kinds of destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Folder,
    Bundle,
    Git,
}

/// A place that destinations write to.
#[derive(Debug)]
struct Place {
    kind: Kind,
    folder: TempDir,
}

// === impl Kind ===

impl Kind {
    const ALL: [Self; 3] = [Self::Folder, Self::Bundle, Self::Git];
}

// === impl Place ===

impl Place {
    fn new(kind: Kind) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        if kind == Kind::Git {
            git(folder.path(), &["init", "--quiet", "--bare", "remote.git"]);
        }
        Self { kind, folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("dags")
    }

    fn remote(&self) -> PathBuf {
        self.folder.path().join("remote.git")
    }

    fn git_settings(&self, path: &str) -> GitSettings {
        GitSettings {
            path: self.folder.path().join(path),
            url: self.remote().to_str().expect("text").into(),
            branch: "main".into(),
            subfolder: Some("airflow/dags".into()),
            author: "Dagwright <dagwright@example.org>".into(),
        }
    }

    /// Returns a destination as a process has it that has just been started.
    fn open(&self, steps: &Steps) -> Box<dyn Destination> {
        match self.kind {
            Kind::Folder => {
                let mut folder = Folder::new(self.path());
                folder.steps = steps.clone();
                Box::new(folder)
            }
            Kind::Bundle => {
                let mut bundle = Bundle::new(self.path());
                bundle.steps = steps.clone();
                Box::new(bundle)
            }
            Kind::Git => {
                let mut git = Git::new(self.git_settings("dags")).expect("settings");
                git.steps = steps.clone();
                Box::new(git)
            }
        }
    }

    /// Returns what Airflow sees.
    fn seen(&self) -> Files {
        match self.kind {
            Kind::Folder => read(&self.path()),
            Kind::Bundle => match fs::read_to_string(self.path().join("CURRENT")) {
                Ok(version) => read(&self.path().join(version.trim())),
                Err(_) => Files::new(),
            },
            Kind::Git => {
                let out = self.folder.path().join("checkout");
                let _ = fs::remove_dir_all(&out);
                let (remote, out_text) = (self.remote(), out.to_str().expect("text"));
                git(self.folder.path(), &["clone", "--quiet", remote.to_str().expect("text"), out_text]);
                read(&out.join("airflow/dags"))
            }
        }
    }

    /// Puts a file there as somebody else.
    fn put_foreign(&self, name: &str, content: &str) {
        match self.kind {
            Kind::Folder => {
                fs::create_dir_all(self.path()).expect("a folder");
                fs::write(self.path().join(name), content).expect("a file");
            }
            Kind::Bundle => {
                let mut files = self.seen();
                files.insert(name.into(), content.into());
                let lines = files.iter().map(|(name, bytes)| format!("{}  {name}\n", canonical::hash_bytes(bytes)));
                let version = canonical::hash_bytes(lines.collect::<String>().as_bytes());
                let folder = self.path().join(&version);
                fs::create_dir_all(&folder).expect("a folder");
                for (name, bytes) in files {
                    fs::write(folder.join(name), bytes).expect("a file");
                }
                fs::write(self.path().join("CURRENT"), version).expect("a file");
            }
            Kind::Git => {
                let out = self.folder.path().join("other");
                let _ = fs::remove_dir_all(&out);
                let remote = self.remote();
                git(self.folder.path(), &["clone", "--quiet", remote.to_str().expect("text"), "other"]);
                git(&out, &["checkout", "--quiet", "-B", "main"]);
                fs::create_dir_all(out.join("airflow/dags")).expect("a folder");
                fs::write(out.join("airflow/dags").join(name), content).expect("a file");
                git(&out, &["add", "--all"]);
                git(&out, &["commit", "--quiet", "--message", "Somebody else's"]);
                git(&out, &["push", "--quiet", "origin", "main"]);
            }
        }
    }
}

/// Runs git as somebody else does, without any configuration; returns what it prints.
#[track_caller]
fn git(folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("git");
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for option in ["init.defaultBranch=main", "user.name=Somebody", "user.email=somebody@example.org"] {
        command.args(["-c", option]);
    }
    let output = command.args(arguments).current_dir(folder).output().expect("git");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Returns the files of a folder, without those that no reader looks at.
fn read(folder: &Path) -> Files {
    let Ok(entries) = fs::read_dir(folder) else { return Files::new() };
    let entries = entries.map(|entry| entry.expect("an entry"));
    let names = entries.map(|entry| entry.file_name().into_string().expect("text"));
    names
        .filter(|name| name != ".dagwright.lock")
        .map(|name| (name.clone(), fs::read(folder.join(name)).expect("a file")))
        .collect()
}

fn plan_name(dag_id: &str, version: u32) -> String {
    let hash = canonical::hash_bytes(format!("{dag_id} {version}").as_bytes());
    format!("{}.{}.plan.json", file_name::stem(dag_id), &hash[..12])
}

/// Returns the plan file of a DAG.
fn plan(dag_id: &str, version: u32) -> (String, Vec<u8>) {
    // More than is written at once.
    (plan_name(dag_id, version), format!("{version}").repeat(70_000).into_bytes())
}

/// Returns the files of a DAG.
fn dag(dag_id: &str, version: u32) -> Files {
    let (plan, content) = plan(dag_id, version);
    let code = format!("{DAG_FILE_START}…\"\"\"\n\nPLAN = str(Path(__file__).with_name(\"{plan}\"))\n");
    let stem = file_name::stem(dag_id);
    Files::from([(file_name::dag_file(&stem), code.into_bytes()), (plan, content)])
}

fn of_dags(dags: &[(&str, u32)]) -> Change {
    let dags = dags.iter().map(|(dag_id, version)| ((*dag_id).to_owned(), dag(dag_id, *version)));
    Change { dags: dags.collect(), ..Change::default() }
}

fn without(dag_ids: &[&str]) -> Change {
    Change { removed: dag_ids.iter().map(|dag_id| (*dag_id).to_owned()).collect(), ..Change::default() }
}

fn anchor() -> Files {
    Files::from([("dagwright_anchor.py".into(), b"\"\"\"The anchor of Dagwright's DAGs.\"\"\"\n".to_vec())])
}

fn index(plans: &[&str]) -> Files {
    let text = serde_json::to_vec(plans).expect("JSON");
    Files::from([("dagwright_index.json".into(), text)])
}

fn joined(all: &[Files]) -> Files {
    all.iter().flatten().map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
}

#[track_caller]
fn check_seen(place: &Place, wanted: &[Files]) {
    let (seen, wanted) = (place.seen(), joined(wanted));
    let names = |files: &Files| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&seen), names(&wanted), "{:?}", place.kind);
    assert!(seen == wanted, "{:?}: contents differ", place.kind);
}

/// Returns the plan files that stay in sight when nothing names them any more.
fn staying_plans(kind: Kind, files: &Files) -> Files {
    let plans = files.iter().filter(|(name, _)| kind != Kind::Bundle && file_name::plan_file_parts(name).is_some());
    plans.map(|(name, bytes)| (name.clone(), bytes.clone())).collect()
}

/// Earlier plans stay in sight but in a bundle.
fn earlier(kind: Kind, plans: &[(&str, u32)]) -> Files {
    if kind == Kind::Bundle {
        return Files::new();
    }
    plans.iter().map(|(dag_id, version)| plan(dag_id, *version)).collect()
}

#[test]
fn dags_appear_change_and_go() {
    for kind in Kind::ALL {
        let place = Place::new(kind);
        place.put_foreign("theirs.py", "import airflow\n");
        let theirs = Files::from([("theirs.py".into(), b"import airflow\n".to_vec())]);
        let destination = place.open(&Steps::default());

        let both = Change { common: anchor(), ..of_dags(&[("a", 1), ("x.b", 1)]) };
        let first = destination.put(&both).expect("put");
        assert!(first.changed && first.version.is_some() == (kind != Kind::Folder), "{first:?}");
        check_seen(&place, &[theirs.clone(), anchor(), dag("a", 1), dag("x.b", 1)]);
        assert!(destination.leftovers().expect("leftovers").len() == usize::from(kind == Kind::Bundle));

        // The same again, in part, or by another process: nothing.
        for same in [&both, &of_dags(&[("a", 1)]), &without(&["unknown"]), &Change::default()] {
            let unchanged = Placed { changed: false, version: first.version.clone() };
            assert_eq!(destination.put(same).expect("put"), unchanged);
            assert_eq!(place.open(&Steps::default()).put(same).expect("put"), unchanged);
        }

        let second = destination.put(&of_dags(&[("a", 2)])).expect("put");
        assert!(second.changed && (kind == Kind::Folder || second.version != first.version));
        let old = earlier(kind, &[("a", 1)]);
        check_seen(&place, &[theirs.clone(), anchor(), dag("a", 2), dag("x.b", 1), old.clone()]);

        destination.put(&without(&["x.b"])).expect("put");
        let old = joined(&[old, earlier(kind, &[("x.b", 1)])]);
        check_seen(&place, &[theirs.clone(), anchor(), dag("a", 2), old]);

        // What is no more goes; what is, stays.
        for leftover in destination.leftovers().expect("leftovers") {
            destination.discard(&leftover).expect("discard");
            destination.discard(&leftover).expect("discard again");
        }
        assert_eq!(destination.leftovers().expect("leftovers"), []);
        check_seen(&place, &[theirs, anchor(), dag("a", 2)]);
    }
}

#[test]
fn a_leftover_is_what_nothing_names_since_then() {
    for kind in [Kind::Folder, Kind::Git] {
        let place = Place::new(kind);
        let destination = place.open(&Steps::default());
        destination.put(&of_dags(&[("a", 1), ("b", 1)])).expect("put");
        let old = plan_name("a", 1);
        if kind == Kind::Folder {
            // As if it had been written long ago.
            let file = fs::File::options().write(true).open(place.path().join(&old)).expect("the plan");
            file.set_modified(SystemTime::UNIX_EPOCH).expect("a time");
        }
        let before = SystemTime::now() - Duration::from_secs(2);
        destination.put(&of_dags(&[("a", 2)])).expect("put");
        let leftovers = destination.leftovers().expect("leftovers");
        let names: Vec<_> = leftovers.iter().map(|leftover| leftover.name.clone()).collect();
        assert_eq!(names, std::slice::from_ref(&old));
        assert!(leftovers[0].since >= before);
        // A later look, by another process too, sees the same.
        assert_eq!(place.open(&Steps::default()).leftovers().expect("leftovers"), leftovers);

        // Used again meanwhile, it stays.
        destination.put(&of_dags(&[("a", 1)])).expect("put");
        destination.discard(&leftovers[0]).expect("discard");
        assert!(place.seen().contains_key(&old));
        let names: Vec<_> = destination.leftovers().expect("leftovers").into_iter().map(|it| it.name).collect();
        assert_eq!(names, [plan_name("a", 2)]);
    }
}

#[test]
fn with_a_loader_an_index_names_the_plans() {
    for kind in Kind::ALL {
        let place = Place::new(kind);
        let destination = place.open(&Steps::default());
        destination.put(&Change { common: anchor(), ..of_dags(&[("a", 1), ("b", 1)]) }).expect("put");

        // From files to the loader: a DAG file that is no longer wanted goes.
        let loaded = |dags: &[(&str, u32)], removed: &[&str], named: &[(&str, u32)]| {
            let names: Vec<_> = named.iter().map(|(dag_id, version)| plan_name(dag_id, *version)).collect();
            Change {
                dags: dags.iter().map(|(id, version)| ((*id).to_owned(), Files::from([plan(id, *version)]))).collect(),
                common: index(&names.iter().map(String::as_str).collect::<Vec<_>>()),
                ..without(removed)
            }
        };
        let plans = |of: &[(&str, u32)]| of.iter().map(|(id, version)| plan(id, *version)).collect::<Files>();
        let first = loaded(&[("a", 1), ("b", 1)], &[], &[("a", 1), ("b", 1)]);
        destination.put(&first).expect("put");
        check_seen(&place, &[anchor(), first.common.clone(), plans(&[("a", 1), ("b", 1)])]);
        assert!(!destination.put(&first).expect("put").changed);

        let second = loaded(&[("a", 2)], &["b"], &[("a", 2)]);
        destination.put(&second).expect("put");
        let old = earlier(kind, &[("a", 1), ("b", 1)]);
        check_seen(&place, &[anchor(), second.common.clone(), plans(&[("a", 2)]), old]);
        if kind != Kind::Bundle {
            let names: Vec<_> = destination.leftovers().expect("leftovers").into_iter().map(|it| it.name).collect();
            let mut wanted = [plan_name("a", 1), plan_name("b", 1)];
            wanted.sort();
            assert_eq!(names, wanted);
        }
    }
}

#[test]
fn writers_take_turns() {
    for kind in Kind::ALL {
        let place = Place::new(kind);
        thread::scope(|scope| {
            for writer in 0..4 {
                let destination = place.open(&Steps::default());
                scope.spawn(move || {
                    for version in 0..3 {
                        destination.put(&of_dags(&[(&format!("dag_{writer}"), version)])).expect("put");
                        destination.leftovers().expect("leftovers");
                    }
                });
            }
        });
        let destination = place.open(&Steps::default());
        for leftover in destination.leftovers().expect("leftovers") {
            destination.discard(&leftover).expect("discard");
        }
        let wanted: Vec<_> = (0..4).map(|writer| dag(&format!("dag_{writer}"), 2)).collect();
        check_seen(&place, &wanted);
    }
}

#[test]
fn what_the_compiler_makes_is_known_again() {
    let plan = crate::tests::fixture::plan(Vec::new());
    for target in Target::ALL {
        let files: Files = compile(&plan, *target).into_iter().map(|file| (file.name, file.bytes)).collect();
        let anchor = dagwright_compiler::anchor();
        let common = Files::from([(anchor.name, anchor.bytes)]);
        let change = Change { dags: [(plan.dag_id.clone(), files.clone())].into(), common, removed: Vec::new() };
        for kind in Kind::ALL {
            let place = Place::new(kind);
            let destination = place.open(&Steps::default());
            destination.put(&change).expect("put");
            check_seen(&place, &[files.clone(), change.common.clone()]);
            // Each is replaced, and the DAG file is removed: neither is somebody else's.
            let mut changed = change.clone();
            for bytes in changed.dags.values_mut().chain([&mut changed.common]).flat_map(BTreeMap::values_mut) {
                bytes.push(b'\n');
            }
            destination.put(&changed).expect("put");
            check_seen(&place, &[changed.dags[&plan.dag_id].clone(), changed.common.clone()]);
            destination.put(&without(&[&plan.dag_id])).expect("put");
            check_seen(&place, &[staying_plans(kind, &changed.dags[&plan.dag_id]), changed.common]);
        }
    }
}

#[test]
fn a_changed_dag_is_never_taken_for_the_one_before() {
    let place = Place::new(Kind::Folder);
    let destination = place.open(&Steps::default());
    let second = |name: &str| {
        let changed = std::fs::metadata(place.path().join(name)).and_then(|found| found.modified()).expect("a file");
        changed.duration_since(std::time::UNIX_EPOCH).expect("a time").as_secs()
    };
    let mut before = 0;
    for version in 1..=3 {
        destination.put(&of_dags(&[("a", version)])).expect("put");
        let changed = second("a.py");
        assert!(changed > before, "the byte code of version {} counts as that of {version}", version - 1);
        before = changed;
    }
}
