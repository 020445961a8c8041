//! What others may put in the way, and names that lead elsewhere.

use std::{fs, os::unix::fs::symlink};

use dagwright_model::code::Code;
use nix::{sys::stat::Mode, unistd::mkfifo};

use super::{Files, Kind, Place, anchor, check_seen, dag, of_dags, plan, plan_name, without};
use crate::airflow::deploy::{Change, Destination as _, Error, Folder, Leftover, dir::Steps};

#[test]
fn what_is_not_ours_is_left_alone() {
    for kind in Kind::ALL {
        let place = Place::new(kind);
        place.put_foreign("a.py", "print('mine')\n");
        place.put_foreign("dagwright_anchor.py", "print('mine too')\n");
        let before = place.seen();
        let destination = place.open(&Steps::default());
        let anchored = Change { common: anchor(), ..of_dags(&[("b", 1)]) };
        for change in [&of_dags(&[("a", 1), ("b", 1)]), &anchored] {
            let error = destination.put(change).expect_err("a file that is in the way");
            assert!(matches!(error, Error::NotOurs { .. }), "{error:?}");
            assert_eq!((error.code(), error.is_retryable()), (Code::DeployRefused, false));
            assert_eq!(place.seen(), before);
        }
        // To remove what is not there is no reason to touch what is.
        assert!(!destination.put(&without(&["a"])).expect("put").changed);
        assert_eq!(place.seen(), before);
        destination.put(&of_dags(&[("b", 1)])).expect("put");
        check_seen(&place, &[before, dag("b", 1)]);
    }
}

#[test]
fn a_dag_and_a_file_of_all_dags_do_not_share_a_name() {
    for kind in Kind::ALL {
        let place = Place::new(kind);
        let destination = place.open(&Steps::default());
        let both = Change { common: anchor(), ..of_dags(&[("dagwright_anchor", 1)]) };
        assert!(matches!(destination.put(&both), Err(Error::BadName { .. })));
        destination.put(&Change { common: anchor(), ..Change::default() }).expect("put");
        assert!(matches!(destination.put(&of_dags(&[("dagwright_anchor", 1)])), Err(Error::NotOurs { .. })));
        check_seen(&place, &[anchor()]);
    }
}

#[test]
fn names_that_are_none_are_refused() {
    let long = format!("dagwright_{}.py", "x".repeat(250));
    let common = [
        "",
        ".",
        "..",
        "../dagwright_x.py",
        "dagwright_/x.py",
        "/etc/dagwright_x.py",
        "dagwright_\0.py",
        "dagwright_\n.py",
        "dagwright_é.py",
        "dagwright_x\\.py",
        "-rf",
        ".airflowignore",
        "loader.py",
        "dagwright_x.zip",
        "CURRENT",
        "dagwright_x.0123456789ab.plan.json",
        &long,
    ];
    let of_a = ["b.py", "../a.py", "x/a.py", "a.txt", "a.0123.plan.json", "b.0123456789ab.plan.json", "A.py", "a.py\n"];
    let code = || b"\"\"\"Dagwright\"\"\"".to_vec();
    for kind in Kind::ALL {
        let place = Place::new(kind);
        let destination = place.open(&Steps::default());
        for name in common {
            let change = Change { common: Files::from([(name.into(), code())]), ..of_dags(&[("a", 1)]) };
            let error = destination.put(&change).expect_err(name);
            assert!(matches!(&error, Error::BadName { name: told } if told == name), "{error:?}");
            assert!(!error.to_string().contains(['\n', '\0']), "{error}");
        }
        for name in of_a {
            let mut change = of_dags(&[("a", 1)]);
            change.dags.entry("a".into()).or_default().insert(name.into(), dag("a", 1)["a.py"].clone());
            assert!(matches!(destination.put(&change), Err(Error::BadName { .. })), "{name}");
        }
        // What we would not know again.
        for (name, of_all) in [("a.py", false), ("dagwright_x.py", true)] {
            let files = Files::from([(name.into(), b"print()".to_vec())]);
            let change = match of_all {
                true => Change { common: files, ..Change::default() },
                false => Change { dags: [("a".into(), files)].into(), ..Change::default() },
            };
            assert!(matches!(destination.put(&change), Err(Error::BadFile { .. })), "{name}");
        }
        assert_eq!(fs::read_dir(place.path()).map_or(0, Iterator::count), 0, "nothing was written");
    }
}

#[test]
fn strange_ids_have_tame_files() {
    for kind in Kind::ALL {
        let place = Place::new(kind);
        let destination = place.open(&Steps::default());
        let strange = ["../../etc/passwd", "a\nb", ".hidden", "-rf", "ä"];
        destination.put(&of_dags(&strange.map(|dag_id| (dag_id, 1)))).expect("put");
        check_seen(&place, &strange.map(|dag_id| dag(dag_id, 1)));
        destination.put(&without(&strange)).expect("put");
        assert!(place.seen().keys().all(|name| !name.ends_with(".py")));
    }
}

#[test]
fn leftovers_of_strange_names_are_none() {
    for kind in Kind::ALL {
        let place = Place::new(kind);
        let destination = place.open(&Steps::default());
        destination.put(&Change { common: anchor(), ..of_dags(&[("a", 1)]) }).expect("put");
        let outside = place.folder.path().join("outside");
        fs::create_dir_all(&outside).expect("a folder");
        let names = [
            "",
            ".",
            "..",
            "../outside",
            "a.py",
            "dagwright_anchor.py",
            "CURRENT",
            "repository.git",
            &plan_name("a", 1),
            &plan_name("a", 2),
            &format!("../{}", plan_name("a", 1)),
            &"0".repeat(64),
        ]
        .map(str::to_owned);
        for name in names {
            let leftover = Leftover { name, since: std::time::SystemTime::now() };
            destination.discard(&leftover).expect("nothing to be done");
        }
        check_seen(&place, &[anchor(), dag("a", 1)]);
        assert!(outside.is_dir());
    }
}

#[test]
fn links_are_not_followed() {
    let place = Place::new(Kind::Folder);
    let outside = place.folder.path().join("outside");
    fs::write(&outside, &dag("a", 1)["a.py"]).expect("a file");
    fs::create_dir(place.path()).expect("a folder");
    let destination = Folder::new(place.path());

    symlink(&outside, place.path().join("a.py")).expect("a link");
    assert!(matches!(destination.put(&of_dags(&[("a", 2)])), Err(Error::NotOurs { .. })));
    assert!(!destination.put(&without(&["a"])).expect("put").changed);
    fs::remove_file(place.path().join("a.py")).expect("removed");

    symlink(&outside, place.path().join(plan_name("a", 2))).expect("a link");
    assert!(matches!(destination.put(&of_dags(&[("a", 2)])), Err(Error::NotOurs { .. })));
    assert_eq!(destination.leftovers().expect("leftovers"), []);
    fs::remove_file(place.path().join(plan_name("a", 2))).expect("removed");

    // A pipe keeps nobody waiting; where an index may be, nothing counts as unused.
    mkfifo(&place.path().join("dagwright_index.json"), Mode::S_IRWXU).expect("a pipe");
    fs::write(place.path().join(plan_name("b", 1)), plan("b", 1).1).expect("a file");
    assert_eq!(destination.leftovers().expect("leftovers"), []);
    fs::remove_file(place.path().join("dagwright_index.json")).expect("removed");

    // The remains of a crash, as somebody may forge them.
    symlink(place.folder.path(), place.path().join(".dagwright-0.tmp")).expect("a link");
    destination.put(&of_dags(&[("a", 2)])).expect("put");
    check_seen(&place, &[dag("a", 2), [plan("b", 1)].into()]);
    assert_eq!(fs::read(&outside).expect("the file"), dag("a", 1)["a.py"]);

    fs::remove_file(place.path().join(".dagwright.lock")).expect("removed");
    symlink(&outside, place.path().join(".dagwright.lock")).expect("a link");
    assert!(matches!(destination.put(&of_dags(&[("a", 3)])), Err(Error::Io { .. })));
}

#[test]
fn who_waits_too_long_is_told() {
    let place = Place::new(Kind::Folder);
    let mut destination = Folder::new(place.path());
    destination.put(&of_dags(&[("a", 1)])).expect("put");
    let lock = fs::File::open(place.path().join(".dagwright.lock")).expect("the lock");
    lock.lock().expect("locked");
    destination.lock_wait = std::time::Duration::from_millis(30);
    let error = destination.put(&of_dags(&[("a", 2)])).expect_err("busy");
    assert!(matches!(error, Error::Busy { .. }), "{error:?}");
    assert_eq!((error.code(), error.is_retryable()), (Code::DeployFailed, true));
    drop(lock);
    destination.put(&of_dags(&[("a", 2)])).expect("put");
}
