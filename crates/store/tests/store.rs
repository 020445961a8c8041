//! Both stores conform; the one on disk also survives its process, keeps others out, and refuses what is not its own.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use dagwright_model::{
    code::Code,
    id::{PlanHash, RequestId},
    record::{Accepted, Cancelled, DagCompiled, Ingress, Purpose, Record, RecordBody},
};
use dagwright_store::{
    Cache, Entry, Error, MemoryStore, Register, Retention, SledCache, SledStore, Store, conformance,
};

/// Tells a child process of these tests what to do.
const CHILD_FOLDER: &str = "DAGWRIGHT_STORE_TEST_FOLDER";

/// How often the writer is killed; each round takes some ten milliseconds.
const KILLS: u64 = 25;

fn open(path: &Path) -> Result<SledStore, Error> {
    SledStore::open(path, Duration::ZERO)
}

fn record(sequence: u64) -> Record {
    let body = if sequence == 0 {
        RecordBody::Accepted(Box::new(Accepted {
            pipeline: "p".into(),
            spec_text: String::new(),
            spec_hash: "0".repeat(64),
            ingress: Ingress::CommandLine,
            purpose: Purpose::Run,
            base: None,
            params: Default::default(),
            interval: None,
            backfill: false,
            revision: None,
            identity: None,
            requester: None,
            traceparent: None,
            follows: None,
        }))
    } else {
        RecordBody::DagCompiled(DagCompiled {
            plan_hash: PlanHash("1".repeat(64)),
            target: "airflow3".into(),
            // Lengths that differ, so that records lie across sled's segments in every way.
            file: "x".repeat((sequence * 37 % 9000) as usize + 1),
            file_hash: "2".repeat(64),
        })
    };
    Record { request: RequestId("r".into()), sequence, at: sequence, body }
}

#[test]
fn memory_conforms() {
    conformance::check(MemoryStore::default);
}

#[test]
fn sled_conforms() {
    let folders = tempfile::tempdir().expect("a folder");
    let mut opened = 0;
    conformance::check(|| {
        opened += 1;
        open(&folders.path().join(opened.to_string())).expect("opens")
    });
}

#[test]
fn sled_conforms_behind_its_writer() {
    let folders = tempfile::tempdir().expect("a folder");
    let mut opened = 0;
    conformance::check(|| {
        opened += 1;
        SledCache::open(&folders.path().join(opened.to_string()), Duration::ZERO).expect("opens")
    });
}

#[test]
fn records_outlive_the_store() {
    let folder = tempfile::tempdir().expect("a folder");
    open(folder.path()).expect("opens").append(&[record(0), record(1)]).expect("appends");
    assert_eq!(open(folder.path()).expect("opens").read(&RequestId("r".into()), 0).expect("reads").len(), 2);
}

#[test]
fn what_a_cache_took_in_outlives_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = SledCache::open(folder.path(), Duration::ZERO).expect("opens");
    cache.absorb("log", 2, &[record(0), record(1)].map(Entry::Record)).expect("takes in");
    drop(cache);
    let store = open(folder.path()).expect("opens");
    assert_eq!(store.read(&RequestId("r".into()), 0).expect("reads").len(), 2);
    assert_eq!(store.reached("log").expect("reads"), Some(2));
}

#[test]
fn a_snapshot_that_was_not_finished_does_no_harm() {
    let folder = tempfile::tempdir().expect("a folder");
    open(folder.path()).expect("opens").append(&[record(0), record(1)]).expect("appends");
    for (unfinished, content) in
        [("snap.00000000000FFFFF.generating", ""), ("snap.0000000000000001.generating", "half")]
    {
        fs::write(folder.path().join("ledger").join(unfinished), content).expect("writes");
    }
    let store = open(folder.path()).expect("opens");
    assert_eq!(store.read(&RequestId("r".into()), 0).expect("reads").len(), 2);
}

#[test]
fn one_process_owns_a_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    let owner = open(folder.path()).expect("opens");
    let refused = open(folder.path()).expect_err("refused");
    assert!(matches!(refused, Error::Busy { .. }), "{refused}");
    assert_eq!(refused.code(), Code::StoreBusy);
    // Who waits gets it as soon as the owner lets go.
    thread::scope(|scope| {
        let (begun, begins) = mpsc::sync_channel(1);
        let path = folder.path();
        let waiter = scope.spawn(move || {
            begun.send(()).expect("heard");
            SledStore::open(path, Duration::from_secs(60)).map(|_| ())
        });
        begins.recv().expect("begun");
        drop(owner);
        waiter.join().expect("no panic").expect("opens");
    });
}

#[test]
fn other_folders_are_refused_and_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("thesis.tex"), "precious").expect("writes");
    let refused = open(folder.path()).expect_err("refused");
    assert!(matches!(refused, Error::Foreign { .. }), "{refused}");
    assert_eq!(refused.code(), Code::StoreUnusable);
    assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 1);

    let file = folder.path().join("thesis.tex");
    assert_eq!(open(&file).expect_err("refused").code(), Code::StoreUnusable);
    assert_eq!(fs::read(&file).expect("reads"), b"precious");
}

#[test]
fn what_a_task_wrote_after_a_disk_was_lost_is_no_other_folder() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(folder.path().join("staging/flights")).expect("makes");
    drop(open(folder.path()).expect("opens"));
    fs::remove_file(folder.path().join("lock")).expect("removes");
    fs::remove_file(folder.path().join("format")).expect("removes");
    let refused = open(folder.path()).expect_err("the ledger of nobody knows what");
    assert!(matches!(refused, Error::Foreign { .. }), "{refused}");
}

#[test]
fn another_format_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(open(folder.path()).expect("opens"));
    fs::write(folder.path().join("format"), "dagwright-store 99\n").expect("writes");
    let refused = open(folder.path()).expect_err("refused");
    assert!(matches!(refused, Error::Format { .. }), "{refused}");
    assert_eq!(refused.code(), Code::StoreUnusable);
}

#[test]
fn a_damaged_ledger_is_an_error_and_no_panic() {
    // Whole files of junk, and single bytes turned over across the file.
    let damages: [fn(&mut Vec<u8>); 4] = [
        |bytes| bytes.iter_mut().for_each(|byte| *byte = 0xa5),
        |bytes| bytes.truncate(bytes.len() / 2 + 1),
        |bytes| bytes.iter_mut().step_by(97).for_each(|byte| *byte ^= 0x40),
        |bytes| bytes.iter_mut().take(64).for_each(|byte| *byte = 0xff),
    ];
    for (number, damage) in damages.iter().enumerate() {
        for file in ["conf", "db"] {
            let folder = tempfile::tempdir().expect("a folder");
            let store = open(folder.path()).expect("opens");
            store.append(&(0..200).map(record).collect::<Vec<_>>()).expect("appends");
            drop(store);
            let path = folder.path().join("ledger").join(file);
            let mut bytes = fs::read(&path).expect("reads");
            damage(&mut bytes);
            fs::write(&path, bytes).expect("writes");
            // What sled repairs by forgetting is found as records that are missing; anything else is coded.
            let outcome = open(folder.path()).and_then(|store| store.read(&RequestId("r".into()), 0));
            if let Err(error) = outcome {
                assert_eq!(error.code(), Code::StoreUnusable, "damage {number} to {file}: {error}");
            }
        }
    }
}

#[test]
fn what_was_acknowledged_outlives_kill_9_at_any_moment() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut next = 0;
    for round in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["child_appends_until_killed", "--exact", "--nocapture"])
            .env(CHILD_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut acknowledged = None;
        // Kill at another moment in each round: while it opens, or after some appends.
        let appends = round * 7 % 23;
        if round % 5 != 4 {
            while acknowledged.is_none_or(|sequence| sequence < next + appends) {
                let line = lines.next().expect("the child lives").expect("reads");
                acknowledged = line.strip_prefix("appended ").map(|text| text.parse::<u64>().expect("a number"));
            }
        }
        child.kill().expect("kills");
        child.wait().expect("ends");
        for line in lines.map_while(Result::ok) {
            let sequence = line.strip_prefix("appended ").and_then(|text| text.parse::<u64>().ok());
            acknowledged = sequence.or(acknowledged);
        }
        let store = open(folder.path()).expect("opens after kill -9");
        let records = store.read(&RequestId("r".into()), 0).expect("reads");
        assert_eq!(records, (0..records.len() as u64).map(record).collect::<Vec<_>>(), "round {round}");
        assert!(acknowledged.is_none_or(|sequence| sequence < records.len() as u64), "round {round}: {acknowledged:?}");
        assert_eq!(records.len() % 3, 0, "round {round}: a batch of three is torn");
        next = records.len() as u64;
    }
    assert!(next > 0, "the writer was never heard of");
}

/// Not a test by itself: the process that the test above kills.
#[test]
fn child_appends_until_killed() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let store = SledStore::open(Path::new(&folder), Duration::from_secs(60)).expect("opens");
    let mut next = store.request(&RequestId("r".into())).expect("reads").map_or(0, |summary| summary.next_sequence);
    loop {
        store.append(&[record(next), record(next + 1), record(next + 2)]).expect("appends");
        next += 3;
        println!("appended {}", next - 1);
    }
}

/// How often the one who forgets is killed.
const FORGETTING_KILLS: usize = 15;

#[test]
fn what_is_forgotten_goes_whole_also_with_kill_9_at_any_moment() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut known = 0;
    for round in 0..FORGETTING_KILLS {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args(["child_forgets_until_killed", "--exact", "--nocapture"])
            .env(CHILD_FOLDER, folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("starts");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        for _ in 0..round * 7 % 13 {
            while !lines.next().expect("the child lives").expect("reads").starts_with("forgot ") {}
        }
        child.kill().expect("kills");
        child.wait().expect("ends");
        let store = open(folder.path()).expect("opens after kill -9");
        let recent = store.recent(None, None, 10_000).expect("reads");
        assert_eq!(store.requests("p", 10_000).expect("reads"), recent, "round {round}: the indexes differ");
        for summary in &recent {
            let records = store.read(&summary.request, 0).expect("reads");
            assert_eq!(records.len() as u64, summary.next_sequence, "round {round}: {summary:?}");
        }
        assert_eq!(store.open_requests().expect("reads"), []);
        if let Some(newest) = recent.first() {
            assert_eq!(store.pipeline("p").expect("reads").map(|known| known.newest), Some(newest.request.clone()));
            known = newest.accepted_at;
        }
    }
    assert!(known > 20, "the one who forgets was never heard of");
}

/// Not a test by itself: the process that the test above kills.
#[test]
fn child_forgets_until_killed() {
    let Some(folder) = std::env::var_os(CHILD_FOLDER) else { return };
    let store = SledStore::open(Path::new(&folder), Duration::from_secs(60)).expect("opens");
    let newest = store.recent(None, None, 1).expect("reads");
    let mut next = newest.first().map_or(1, |summary| summary.accepted_at + 1);
    loop {
        for at in next..next + 5 {
            let request = RequestId(format!("r{at}"));
            let mut records: Vec<_> =
                (0..at % 9 + 2).map(|sequence| Record { request: request.clone(), at, ..record(sequence) }).collect();
            let body = RecordBody::Cancelled(Cancelled::default());
            records.push(Record { request, sequence: records.len() as u64, at, body });
            store.append(&records).expect("appends");
        }
        next += 5;
        let old = store.forgettable(next, None, 100).expect("reads");
        let old: Vec<_> = old.requests.into_iter().map(|summary| summary.request).collect();
        println!("forgot {}", store.forget(&old).expect("forgets"));
    }
}
