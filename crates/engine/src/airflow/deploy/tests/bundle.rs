//! The versioned bundle alone.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, symlink},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use dagwright_model::code::Code;

use super::{Kind, Place, anchor, check_seen, dag, of_dags, plan_name, without};
use crate::airflow::deploy::{Bundle, Change, Destination as _, Error, dir::Steps};

/// What docs/airflow.md tells people to check a snapshot with.
const ONE_LINER: &str = "find . -type f -printf '%P\\0' | LC_ALL=C sort -z | xargs -0r sha256sum | sha256sum";

/// Copies a snapshot as Airflow's machines do, which verifies it. The module needs nothing of Airflow.
const READER: &str = r"
import importlib.util, pathlib, sys
spec = importlib.util.spec_from_file_location('snapshots', sys.argv[1])
snapshots = sys.modules['snapshots'] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(snapshots)
root, target = map(pathlib.Path, sys.argv[2:])
version = snapshots.current(root)
snapshots.copy(root, version, target / version)
print(version, end='')
";

fn output(command: &mut Command) -> String {
    let output = command.output().expect("a process");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[track_caller]
fn check_readers(place: &Place, version: &str) {
    let said = output(Command::new("sh").args(["-c", ONE_LINER]).current_dir(place.path().join(version)));
    assert_eq!(said.split_whitespace().next(), Some(version));

    let module = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/airflow/src/dagwright_airflow/snapshots.py");
    let copies = place.folder.path().join("copies");
    let said = output(Command::new("python3").args(["-B", "-c", READER]).arg(module).arg(place.path()).arg(&copies));
    assert_eq!(said, version);
    assert_eq!(super::read(&copies.join(version)), place.seen());
}

#[test]
fn readers_accept_every_version() {
    let place = Place::new(Kind::Bundle);
    let destination = Bundle::new(place.path());
    let mut changes = vec![Change { common: anchor(), ..of_dags(&[("a", 1), ("x.b", 1), ("Z", 1), ("a_b", 1)]) }];
    changes.extend([of_dags(&[("a", 2)]), without(&["x.b"]), without(&["a", "Z", "a_b"])]);
    for change in &changes {
        let placed = destination.put(change).expect("put");
        check_readers(&place, &placed.version.expect("a version"));
    }
    check_seen(&place, &[anchor()]);
    assert_eq!(destination.leftovers().expect("leftovers").len(), changes.len() - 1);
}

#[test]
fn what_stays_is_linked_and_not_read_again() {
    let place = Place::new(Kind::Bundle);
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = reads.clone();
    let before = move |what: &'static str| {
        counted.fetch_add(usize::from(what == "read"), Ordering::SeqCst);
        Ok(())
    };
    let steps = Steps { before: Some(Arc::new(before)) };
    let mut destination = Bundle::new(place.path());
    destination.steps = steps.clone();
    let ids: Vec<_> = (0..100).map(|number| format!("dag_{number}")).collect();
    let first = destination.put(&of_dags(&ids.iter().map(|id| (id.as_str(), 1)).collect::<Vec<_>>())).expect("put");

    reads.store(0, Ordering::SeqCst);
    let second = destination.put(&of_dags(&[("dag_7", 2)])).expect("put");
    assert!(reads.load(Ordering::SeqCst) <= 4, "{} reads", reads.load(Ordering::SeqCst));
    let inode = |placed: &Option<String>, name: &str| {
        let version = placed.as_deref().expect("a version");
        fs::metadata(place.path().join(version).join(name)).expect("a file").ino()
    };
    assert_eq!(inode(&first.version, "dag_8.py"), inode(&second.version, "dag_8.py"));
    assert_ne!(inode(&first.version, "dag_7.py"), inode(&second.version, "dag_7.py"));

    // Another process reads all once.
    let mut other = Bundle::new(place.path());
    other.steps = steps;
    for (version, reads_max) in [(3, 210), (4, 4)] {
        reads.store(0, Ordering::SeqCst);
        other.put(&of_dags(&[("dag_7", version)])).expect("put");
        assert!(reads.load(Ordering::SeqCst) <= reads_max, "{} reads", reads.load(Ordering::SeqCst));
    }
    // And so does this one, which did not make what is shown now.
    let last = destination.put(&of_dags(&[("dag_7", 5)])).expect("put");
    check_readers(&place, &last.version.expect("a version"));
}

#[test]
fn going_back_shows_the_earlier_version_again() {
    let place = Place::new(Kind::Bundle);
    let destination = Bundle::new(place.path());
    let first = destination.put(&of_dags(&[("a", 1)])).expect("put").version.expect("a version");
    let second = destination.put(&of_dags(&[("a", 2)])).expect("put").version.expect("a version");
    // Damaged while it was not shown, which matters to nobody until it is again.
    fs::write(place.path().join(&first).join("a.py"), "evil").expect("a file");
    let back = destination.put(&of_dags(&[("a", 1)])).expect("put");
    assert_eq!(back.version.as_deref(), Some(first.as_str()));
    check_readers(&place, &first);
    let again = destination.put(&of_dags(&[("a", 2)])).expect("put");
    assert_eq!(again.version.as_deref(), Some(second.as_str()));
    check_readers(&place, &second);
}

#[test]
fn a_snapshot_is_left_over_since_it_is_not_shown() {
    let place = Place::new(Kind::Bundle);
    let destination = Bundle::new(place.path());
    let first = destination.put(&of_dags(&[("a", 1)])).expect("put").version.expect("a version");
    let folder = fs::File::open(place.path().join(&first)).expect("the snapshot");
    folder.set_modified(SystemTime::UNIX_EPOCH).expect("a time");
    assert_eq!(destination.leftovers().expect("leftovers"), []);
    destination.put(&of_dags(&[("a", 2)])).expect("put");
    let leftovers = destination.leftovers().expect("leftovers");
    assert_eq!(leftovers.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), [first.as_str()]);
    assert!(leftovers[0].since > SystemTime::UNIX_EPOCH);

    // Shown again meanwhile, it stays.
    destination.put(&of_dags(&[("a", 1)])).expect("put");
    destination.discard(&leftovers[0]).expect("discard");
    check_seen(&place, &[dag("a", 1)]);
}

#[test]
fn nothing_is_taken_over_from_what_was_changed() {
    for known in [false, true] {
        for name in ["b.py".to_owned(), plan_name("b", 1)] {
            let place = Place::new(Kind::Bundle);
            let mut destination = Bundle::new(place.path());
            let version = destination.put(&of_dags(&[("a", 1), ("b", 1)])).expect("put").version.expect("a version");
            if !known {
                destination = Bundle::new(place.path());
            }
            fs::write(place.path().join(&version).join(&name), "evil").expect("a file");
            let error = destination.put(&of_dags(&[("a", 2)])).expect_err("a damaged snapshot");
            assert!(matches!(error, Error::Damaged { .. }), "{error:?}");
            assert_eq!(error.code(), Code::DeployRefused);
            assert_eq!(fs::read_to_string(place.path().join("CURRENT")).expect("CURRENT"), format!("{version}\n"));

            // Without it, all is deployed anew; as long as it is needed, it is made whole again under its name.
            fs::remove_file(place.path().join("CURRENT")).expect("removed");
            let placed = destination.put(&of_dags(&[("a", 1), ("b", 1)])).expect("put");
            assert_eq!(placed.version.as_deref(), Some(version.as_str()));
            check_readers(&place, &version);
        }
    }
}

#[test]
fn a_file_that_was_touched_is_read_again_and_copied() {
    let place = Place::new(Kind::Bundle);
    let destination = Bundle::new(place.path());
    let first = destination.put(&of_dags(&[("a", 1), ("b", 1)])).expect("put").version.expect("a version");
    let file = fs::File::options().write(true).open(place.path().join(&first).join("b.py")).expect("a file");
    file.set_modified(SystemTime::UNIX_EPOCH).expect("a time");
    let second = destination.put(&of_dags(&[("a", 2)])).expect("put").version.expect("a version");
    check_readers(&place, &second);
}

#[test]
fn links_in_the_root_are_not_followed() {
    let place = Place::new(Kind::Bundle);
    let destination = Bundle::new(place.path());
    let version = destination.put(&of_dags(&[("a", 1)])).expect("put").version.expect("a version");
    let outside = place.folder.path().join("outside");
    fs::rename(place.path().join(&version), &outside).expect("renamed");
    symlink(&outside, place.path().join(&version)).expect("a link");
    assert!(matches!(Bundle::new(place.path()).put(&of_dags(&[("a", 2)])), Err(Error::NotOurs { .. })));

    let other = "0".repeat(64);
    symlink(&outside, place.path().join(&other)).expect("a link");
    assert_eq!(destination.leftovers().expect("leftovers"), []);

    for text in ["../outside", "", "0123"] {
        fs::write(place.path().join("CURRENT"), text).expect("a file");
        assert!(matches!(destination.put(&of_dags(&[("a", 2)])), Err(Error::NotOurs { .. })), "{text}");
    }
    fs::remove_file(place.path().join("CURRENT")).expect("removed");
    symlink(outside.join("a.py"), place.path().join("CURRENT")).expect("a link");
    assert!(matches!(destination.put(&of_dags(&[("a", 2)])), Err(Error::NotOurs { .. })));
    assert!(outside.join("a.py").is_file());
}
