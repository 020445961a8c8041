//! What is seen when a change ends in the middle: by the process's death, or by a disk that is full.

use std::{
    fs, io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use super::{Files, Kind, Place, anchor, check_seen, dag, earlier, index, joined, of_dags, plan, plan_name};
use crate::airflow::deploy::{Change, Error, dir::Steps, files::plans_named};

/// More steps than a change of these tests has.
const STEPS_MAX: usize = 200;

/// Returns steps of which those fail whose number `fails` likes, and their count.
pub(super) fn failing(
    kind: io::ErrorKind,
    fails: impl Fn(usize) -> bool + Send + Sync + 'static,
) -> (Steps, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let taken = count.clone();
    let before = move |_: &'static str| match fails(taken.fetch_add(1, Ordering::SeqCst)) {
        true => Err(kind.into()),
        false => Ok(()),
    };
    (Steps { before: Some(Arc::new(before)) }, count)
}

/// Commands take their time, and what counts in Git is one push: there not each step is tried.
fn stride(kind: Kind) -> usize {
    if kind == Kind::Git { 3 } else { 1 }
}

/// Two DAGs are changed, one is added, one removed, and the files of all DAGs change.
fn old() -> Change {
    Change { common: joined(&[anchor(), index(&["old"])]), ..of_dags(&[("a", 1), ("b", 1), ("gone", 1), ("stays", 1)]) }
}

fn new() -> Change {
    let common = joined(&[anchor(), index(&["new"])]);
    Change { common, removed: vec!["gone".into()], ..of_dags(&[("a", 2), ("b", 2), ("c", 1)]) }
}

fn old_files() -> Files {
    joined(&[old().common, dag("a", 1), dag("b", 1), dag("gone", 1), dag("stays", 1)])
}

fn new_files(kind: Kind) -> Files {
    let unused = earlier(kind, &[("a", 1), ("b", 1), ("gone", 1)]);
    joined(&[new().common, dag("a", 2), dag("b", 2), dag("c", 1), dag("stays", 1), unused])
}

/// What Airflow may see: all as it was, or all as it is to be; in a folder that goes for each file, and a DAG has its plan.
fn check_whole(place: &Place, step: usize) {
    let (seen, old, new) = (place.seen(), old_files(), new_files(place.kind));
    if place.kind != Kind::Folder {
        assert!(seen == old || seen == new, "{:?}, step {step}: {:?}", place.kind, seen.keys());
        return;
    }
    for (name, bytes) in seen.iter().filter(|(name, _)| !name.starts_with('.')) {
        assert!(old.get(name) == Some(bytes) || new.get(name) == Some(bytes), "step {step}: {name}");
        if name.ends_with(".py") {
            let missing: Vec<_> = plans_named(bytes).into_iter().filter(|plan| !seen.contains_key(plan)).collect();
            assert!(missing.is_empty(), "step {step}: {name} without {missing:?}");
        }
    }
    for name in old.keys().filter(|name| new.contains_key(*name)) {
        assert!(seen.contains_key(name), "step {step}: {name} is missing");
    }
    assert!(seen.keys().all(|name| !name.starts_with('.') || !name.ends_with(".py")), "{:?}", seen.keys());
}

fn remains(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let names = entries.map(|name| name.into_string().expect("text"));
    names.filter(|name| name.starts_with(".dagwright-")).collect()
}

#[test]
fn a_process_that_dies_leaves_old_or_new_and_the_next_completes_it() {
    for kind in Kind::ALL {
        let mut died = 0;
        for step in (0..STEPS_MAX).step_by(stride(kind)) {
            let place = Place::new(kind);
            place.open(&Steps::default()).put(&old()).expect("put");
            // Whatever it tries from then on is not done either, as if it were dead.
            let (steps, _) = failing(io::ErrorKind::Other, move |number| number >= step);
            let ended = place.open(&steps).put(&new());
            check_whole(&place, step);
            // Half of the time by the same call, else by another.
            if step % 2 == 0 {
                assert!(place.open(&Steps::default()).put(&new()).is_ok(), "{kind:?}, step {step}");
            } else {
                place.open(&Steps::default()).put(&of_dags(&[("other", 1)])).expect("put");
                assert_eq!(remains(&place.path()), Vec::<String>::new(), "{kind:?}, step {step}");
                place.open(&Steps::default()).put(&new()).expect("put");
            }
            let other = if step % 2 == 0 { Files::new() } else { dag("other", 1) };
            check_seen(&place, &[new_files(kind), other]);
            assert_eq!(remains(&place.path()), Vec::<String>::new(), "{kind:?}, step {step}");
            if ended.is_ok() {
                break;
            }
            died += 1;
        }
        let least = if kind == Kind::Git { 3 } else { 20 };
        assert!((least..STEPS_MAX).contains(&died), "{kind:?} died {died} times");
    }
}

#[test]
fn a_full_disk_changes_nothing() {
    for kind in Kind::ALL {
        let mut failed = 0;
        for step in (0..STEPS_MAX).step_by(stride(kind)) {
            let place = Place::new(kind);
            place.open(&Steps::default()).put(&old()).expect("put");
            let (steps, count) = failing(io::ErrorKind::StorageFull, move |number| number == step);
            let destination = place.open(&steps);
            let ended = destination.put(&new());
            check_whole(&place, step);
            if count.load(Ordering::SeqCst) <= step {
                ended.expect("nothing failed");
                break;
            }
            if let Err(error) = &ended {
                assert!(
                    matches!(error, Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull),
                    "{error:?}"
                );
                failed += 1;
            }
            assert!(kind == Kind::Git || remains(&place.path()).is_empty(), "{kind:?}, step {step}");
            destination.put(&new()).expect("there is space again");
            check_seen(&place, &[new_files(kind)]);
        }
        let least = if kind == Kind::Git { 3 } else { 20 };
        assert!((least..STEPS_MAX).contains(&failed), "{kind:?} failed {failed} times");
    }
}

#[test]
fn all_files_of_a_folder_are_on_the_disk_before_the_first_appears() {
    let place = Place::new(Kind::Folder);
    place.open(&Steps::default()).put(&old()).expect("put");
    let log = Arc::new(std::sync::Mutex::new(Vec::new()));
    let taken = log.clone();
    let before = move |what: &'static str| {
        taken.lock().expect("the log").push(what);
        Ok(())
    };
    place.open(&Steps { before: Some(Arc::new(before)) }).put(&new()).expect("put");
    let log = log.lock().expect("the log");
    let first = log.iter().position(|what| *what == "rename").expect("a rename");
    let last = log.iter().rposition(|what| *what == "write").expect("a write");
    assert!(last < first, "{log:?}");
    // Plans, then the folder, then DAGs.
    let flushed = log[first..].iter().position(|what| *what == "flush").expect("a flush");
    assert_eq!(flushed, 3, "{log:?}");
    assert!(place.seen().contains_key(&plan_name("a", 1)) && plan("a", 1).1.len() > 64 << 10);
}
