//! A Git repository alone: others who push, servers that refuse, and commands that are missing or hang.

use std::{
    fs, io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use dagwright_model::code::Code;

use super::{Kind, Place, anchor, check_seen, dag, git, of_dags, plan, plan_name, without};
use crate::airflow::deploy::{Change, Destination as _, Error, Git, GitSettings, dir::Steps};

fn open(place: &Place) -> Git {
    Git::new(place.git_settings("dags")).expect("settings")
}

/// Returns steps before whose pushes something else happens.
fn before_push(does: impl Fn(usize) + Send + Sync + 'static) -> Steps {
    let pushes = AtomicUsize::new(0);
    let before = move |what: &'static str| {
        if what == "push" {
            does(pushes.fetch_add(1, Ordering::SeqCst));
        }
        Ok::<(), io::Error>(())
    };
    Steps { before: Some(Arc::new(before)) }
}

fn script(path: &Path, text: &str) {
    fs::write(path, format!("#!/bin/sh\n{text}\n")).expect("a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("permissions");
}

#[test]
fn a_commit_says_what_it_deploys() {
    let place = Place::new(Kind::Git);
    let destination = open(&place);
    let placed = destination.put(&Change { common: anchor(), ..of_dags(&[("a", 1), ("x.b", 1)]) }).expect("put");
    let log = |format: &str| git(&place.remote(), &["log", "-1", &format!("--format={format}"), "main"]);
    assert_eq!(placed.version, Some(log("%H")));
    assert_eq!(log("%an <%ae>, %cn <%ce>"), "Dagwright <dagwright@example.org>, Dagwright <dagwright@example.org>");
    let hash = |dag_id, version| plan_name(dag_id, version).rsplit('.').nth(2).expect("a hash").to_owned();
    assert_eq!(log("%B"), format!("Deploy 2 DAGs\n\na: plan {}\nx.b: plan {}", hash("a", 1), hash("x.b", 1)));

    destination.put(&Change { removed: vec!["x.b".into()], ..of_dags(&[("a", 2), ("x.c\n\u{1b}", 1)]) }).expect("put");
    let wanted = format!(
        "Deploy 2 DAGs, remove 1 DAG\n\na: plan {}\nx.c\\n\\u{{1b}}: plan {}\nx.b: removed",
        hash("a", 2),
        hash("x.c\n\u{1b}", 1)
    );
    assert_eq!(log("%B"), wanted);
    assert_eq!(git(&place.remote(), &["rev-list", "--count", "main"]), "2");
    // An unchanged plan is no commit.
    assert!(!destination.put(&of_dags(&[("a", 2)])).expect("put").changed);
    assert_eq!(git(&place.remote(), &["rev-list", "--count", "main"]), "2");
}

#[test]
fn who_pushed_meanwhile_loses_nothing() {
    let place = Arc::new(Place::new(Kind::Git));
    open(&place).put(&of_dags(&[("a", 1)])).expect("put");
    let (mut destination, other) = (open(&place), place.clone());
    destination.steps = before_push(move |number| {
        if number < 3 {
            other.put_foreign(&format!("theirs_{number}.py"), "pass\n");
        }
    });
    let placed = destination.put(&of_dags(&[("a", 2), ("b", 1)])).expect("put");
    assert_eq!(placed.version, Some(git(&place.remote(), &["rev-parse", "main"])));
    let theirs = (0..3).map(|number| (format!("theirs_{number}.py"), b"pass\n".to_vec())).collect();
    check_seen(&place, &[dag("a", 2), dag("b", 1), [plan("a", 1)].into(), theirs]);
    assert_eq!(git(&place.remote(), &["rev-list", "--count", "main"]), "5");
}

#[test]
fn who_is_overtaken_each_time_gives_up() {
    let place = Arc::new(Place::new(Kind::Git));
    let (mut destination, other) = (open(&place), place.clone());
    destination.steps = before_push(move |number| other.put_foreign("theirs.py", &format!("pass # {number}\n")));
    let error = destination.put(&of_dags(&[("a", 1)])).expect_err("a race that cannot be won");
    assert!(matches!(error, Error::Raced { .. }), "{error:?}");
    assert_eq!((error.code(), error.is_retryable()), (Code::DeployFailed, true));
    assert_eq!(place.seen().len(), 1);
}

#[test]
fn the_branch_may_be_made_and_rewritten_by_others() {
    let place = Place::new(Kind::Git);
    let destination = open(&place);
    destination.put(&of_dags(&[("a", 1)])).expect("put");
    destination.put(&of_dags(&[("a", 2)])).expect("put");
    git(&place.remote(), &["update-ref", "refs/heads/main", "main~1"]);
    destination.put(&of_dags(&[("b", 1)])).expect("put");
    check_seen(&place, &[dag("a", 1), dag("b", 1)]);
    git(&place.remote(), &["update-ref", "-d", "refs/heads/main"]);
    destination.put(&of_dags(&[("c", 1)])).expect("put");
    check_seen(&place, &[dag("c", 1)]);
}

#[test]
fn a_server_that_refuses_is_quoted() {
    let place = Place::new(Kind::Git);
    let destination = open(&place);
    destination.put(&of_dags(&[("a", 1)])).expect("put");
    let hook = place.remote().join("hooks/pre-receive");
    fs::create_dir_all(place.remote().join("hooks")).expect("a folder");
    script(&hook, "printf 'main is protected\\033[31m\\n' >&2; exit 1");
    let error = destination.put(&of_dags(&[("a", 2)])).expect_err("refused");
    let text = error.to_string();
    assert!(text.contains("main is protected") && text.contains("hook declined"), "{text}");
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert_eq!(error.code(), Code::DeployFailed);
    check_seen(&place, &[dag("a", 1)]);

    fs::remove_file(hook).expect("removed");
    destination.put(&of_dags(&[("a", 2)])).expect("put");
    check_seen(&place, &[dag("a", 2), [plan("a", 1)].into()]);
}

#[test]
fn a_server_that_is_not_there_is_an_error() {
    let place = Place::new(Kind::Git);
    let settings = GitSettings { url: "/nowhere/at/all.git".into(), ..place.git_settings("dags") };
    let error = Git::new(settings).expect("settings").put(&of_dags(&[("a", 1)])).expect_err("nothing there");
    assert!(error.to_string().contains("/nowhere/at/all.git"), "{error}");
    assert_eq!((error.code(), error.is_retryable()), (Code::DeployFailed, true));
}

#[test]
fn git_may_be_missing() {
    let place = Place::new(Kind::Git);
    let mut destination = open(&place);
    destination.command.program = "/nowhere/git".into();
    let error = destination.put(&of_dags(&[("a", 1)])).expect_err("no git");
    assert!(error.to_string().contains("is Git installed"), "{error}");
    assert_eq!((error.code(), error.is_retryable()), (Code::DeployFailed, false));
}

#[test]
fn a_git_that_hangs_is_ended_with_all_it_started() {
    let place = Place::new(Kind::Git);
    let mut destination = open(&place);
    let program = place.folder.path().join("hangs");
    let ids = place.folder.path().join("ids");
    // It does not end when asked to, nor does what it started, which holds the pipes.
    let text = format!("trap '' TERM; sleep 1000 & echo $$ $! > {}; wait; wait", ids.display());
    script(&program, &text);
    destination.command.program = program;
    // A busy machine may not have started it in the first of these times.
    let started = [300, 3_000, 30_000].into_iter().find_map(|wait_ms| {
        destination.command.timeout = Duration::from_millis(wait_ms);
        let error = destination.put(&of_dags(&[("a", 1)])).expect_err("it hangs");
        assert!(error.to_string().contains("did not end"), "{error}");
        let ids: Vec<_> = fs::read_to_string(&ids).ok()?.split_whitespace().map(str::to_owned).collect();
        (ids.len() == 2).then_some(ids)
    });
    let until = Instant::now() + Duration::from_secs(30);
    for id in started.expect("it started") {
        // Gone, or dead and not yet waited for by whoever inherited it; that takes the system a moment.
        let is_gone = || {
            let state = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            state.is_empty() || state.contains(") Z ") || state.contains(") X ")
        };
        while !is_gone() {
            assert!(Instant::now() < until, "{id} is still there");
            thread::yield_now();
        }
    }
}

#[test]
fn a_repository_that_a_dead_process_used_is_made_anew() {
    let place = Place::new(Kind::Git);
    open(&place).put(&of_dags(&[("a", 1)])).expect("put");
    let repository = place.path().join("repository.git");
    fs::write(place.path().join(".dagwright-busy"), "").expect("a file");
    fs::write(repository.join("refs/dagwright/base.lock"), "").expect("a file");
    fs::write(repository.join("HEAD"), "broken").expect("a file");
    open(&place).put(&of_dags(&[("a", 2)])).expect("put");
    check_seen(&place, &[dag("a", 2), [plan("a", 1)].into()]);
}

#[test]
fn no_hook_runs_here_and_nothing_is_checked_out() {
    let place = Place::new(Kind::Git);
    let destination = open(&place);
    destination.put(&of_dags(&[("a", 1)])).expect("put");
    let hooks = place.path().join("repository.git/hooks");
    fs::create_dir_all(&hooks).expect("a folder");
    let traces = place.folder.path().join("ran");
    for hook in ["pre-push", "reference-transaction", "post-commit", "pre-auto-gc", "post-checkout"] {
        script(&hooks.join(hook), &format!("echo {hook} >> {}", traces.display()));
    }
    destination.put(&of_dags(&[("a", 2)])).expect("put");
    destination.leftovers().expect("leftovers");
    assert!(!traces.exists(), "{}", fs::read_to_string(traces).unwrap_or_default());
    let entries = fs::read_dir(place.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<_> = entries.map(|name| name.into_string().expect("text")).collect();
    names.sort();
    assert_eq!(names, [".dagwright.lock", "repository.git", "unused"]);
}

#[test]
fn links_in_the_repository_are_in_the_way() {
    let place = Place::new(Kind::Git);
    place.put_foreign("theirs.py", "pass\n");
    let other = place.folder.path().join("other");
    let push = |message: &str| {
        git(&other, &["add", "--all"]);
        git(&other, &["commit", "--quiet", "--message", message]);
        git(&other, &["push", "--quiet", "origin", "main"]);
    };
    symlink("/etc/passwd", other.join("airflow/dags/a.py")).expect("a link");
    symlink("/etc/passwd", other.join("airflow/dags").join(plan_name("b", 1))).expect("a link");
    push("Add links");
    let destination = open(&place);
    for id in ["a", "b"] {
        assert!(matches!(destination.put(&of_dags(&[(id, 1)])), Err(Error::NotOurs { .. })), "{id}");
    }
    assert!(!destination.put(&without(&["a"])).expect("put").changed);
    assert_eq!(destination.leftovers().expect("leftovers"), []);

    // The subfolder itself, and one above it.
    for inner in ["airflow/dags", "airflow"] {
        fs::remove_dir_all(other.join(inner)).expect("removed");
        symlink("/tmp", other.join(inner)).expect("a link");
        push("Link a folder");
        assert!(matches!(destination.put(&of_dags(&[("c", 1)])), Err(Error::NotOurs { .. })), "{inner}");
        fs::remove_file(other.join(inner)).expect("removed");
        fs::create_dir_all(other.join("airflow/dags")).expect("a folder");
        fs::write(other.join("airflow/dags/theirs.py"), "pass\n").expect("a file");
        push("Make it a folder again");
    }
    destination.put(&of_dags(&[("c", 1)])).expect("put");
}

#[test]
fn the_root_of_a_repository_will_do() {
    let place = Place::new(Kind::Git);
    let destination = Git::new(GitSettings { subfolder: None, ..place.git_settings("dags") }).expect("settings");
    destination.put(&of_dags(&[("a", 1)])).expect("put");
    assert_eq!(git(&place.remote(), &["show", "main:a.py"]), String::from_utf8_lossy(&dag("a", 1)["a.py"]).trim());
    destination.put(&without(&["a"])).expect("put");
    assert_eq!(git(&place.remote(), &["ls-tree", "--name-only", "main"]), plan_name("a", 1));
}
