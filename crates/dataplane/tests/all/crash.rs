//! A folder is replaced by a process that is killed at each of its steps.
//!
//! `strace` kills it: at the entry of the very system call that renames or removes a file in the sink's folder, so no
//! step is left out, and nothing in the program knows of it. A first run, which nobody kills, tells the steps. A removal
//! is known by its path, a renaming by its number, as its first path differs from process to process; `strace` counts
//! the calls of each thread, so the process gets one CPU, and with it one thread that renames.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use dagwright_model::{
    id::TaskId,
    spec::{FileFormat, Locator, SinkMode},
    task::{Output, Partition, PartitionRange, Publish, SinkWrite, TaskRun, Work, WriteStrategy},
};

use crate::memory::Bench;

/// The system calls by which files of a sink appear and go; folders that are cleared use others.
const STEPS: &str = "rename,unlink";

const SIGKILL: i32 = 9;

/// How many partitions the partitioned replace has.
const PARTITIONS: u32 = 3;

/// A folder that holds the numbers 1 to 100, and the task that puts others in their place.
struct Replacing {
    bench: Bench,
    /// The task that is killed.
    task: TaskRun,
}

// === impl Replacing ===

impl Replacing {
    /// One task writes and shows the new rows.
    fn at_once() -> Self {
        let mut replacing = Self::new();
        replacing.task = replacing.write("request-2", 1001, 1300, None);
        replacing
    }

    /// Partitions have staged the new rows; one task shows them.
    fn staged() -> Self {
        let mut replacing = Self::new();
        for index in 0..PARTITIONS {
            let range = PartitionRange::Files(Vec::new());
            let partition = Partition { index, count: PARTITIONS, range };
            let first = 1001 + 100 * i64::from(index);
            let stage = replacing.write("request-2", first, first + 99, Some(partition));
            succeeded(plain(&replacing.save(&stage)));
            replacing.task = stage;
        }
        let Work::Move(staged) = &replacing.task.task.work else { panic!("not a move") };
        let Some(Output::Sink(sink)) = staged.outputs.first().cloned() else { panic!("no sink") };
        let staged_by = TaskId("load".into());
        replacing.task.task.work = Work::Publish(Publish { sink, staged_by });
        replacing
    }

    fn new() -> Self {
        let bench = Bench::new();
        let mut replacing = Self { task: bench.task.clone(), bench };
        let old = replacing.write("request-1", 1, 100, None);
        succeeded(plain(&replacing.save(&old)));
        replacing
    }

    fn out(&self) -> PathBuf {
        // As the process itself will name it, whatever links lead there.
        self.bench.folder.path().canonicalize().unwrap().join("out")
    }

    /// A task that replaces what the folder holds by a range of numbers.
    fn write(&mut self, effect: &str, first: i64, last: i64, partition: Option<Partition>) -> TaskRun {
        let uri = format!("{}/", self.out().display());
        let bench = &mut self.bench;
        bench.task.run.effect = effect.into();
        bench.work().steps.clear();
        bench.work().outputs.clear();
        bench.step("numbers", &format!("SELECT value AS id FROM generate_series({first}, {last})"));
        let strategy = if partition.is_some() { WriteStrategy::PartitionStaging } else { WriteStrategy::Direct };
        let sink: &mut SinkWrite = bench.sink("out", "numbers", "id:int64");
        (sink.locator, sink.format, sink.mode) = (Locator::Uri(uri), Some(FileFormat::Ndjson), SinkMode::Replace);
        sink.strategy = strategy;
        let mut task = bench.task.clone();
        task.run.partition = partition;
        task
    }

    fn save(&self, task: &TaskRun) -> PathBuf {
        let path = self.bench.folder.path().join("task.json");
        fs::write(&path, serde_json::to_string(task).unwrap()).unwrap();
        path
    }

    /// The numbers that a reader sees who goes by the manifest, which names only files that are there and whole.
    fn seen(&self) -> BTreeSet<i64> {
        let manifest = fs::read(self.out().join("_dagwright/manifest.json")).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&manifest).unwrap();
        let mut seen = BTreeSet::new();
        for part in manifest["parts"].as_array().unwrap() {
            let text = fs::read_to_string(self.out().join(part["file"].as_str().unwrap())).unwrap();
            assert_eq!(part["rows"], text.lines().count());
            for line in text.lines() {
                let row: serde_json::Value = serde_json::from_str(line).unwrap();
                assert!(seen.insert(row["id"].as_i64().unwrap()), "a row twice: {line}");
            }
        }
        seen
    }

    /// How many files there are besides the manifest and those that it names.
    fn surplus(&self) -> usize {
        let manifest = fs::read_to_string(self.out().join("_dagwright/manifest.json")).unwrap();
        let named = |path: &&PathBuf| manifest.contains(&*path.file_name().unwrap().to_string_lossy());
        let files = files(&self.out());
        files.len() - 1 - files.iter().filter(named).count()
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn plain(spec: &Path) -> ExitStatus {
    command(env!("CARGO_BIN_EXE_dagwright-task"), &[], spec)
}

/// Runs the task under `strace` on one CPU.
fn traced(options: &[&str], spec: &Path) -> ExitStatus {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let allowed = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim();
    let cpu = allowed.split(['-', ',']).next().unwrap();
    let trace = format!("trace={STEPS}");
    let options: Vec<&str> = ["-c", cpu, "strace", "-f", "-qq", "-e", "signal=none", "-e", &trace]
        .into_iter()
        .chain(options.iter().copied())
        .chain(["--", env!("CARGO_BIN_EXE_dagwright-task")])
        .collect();
    command("taskset", &options, spec)
}

fn command(program: &str, options: &[&str], spec: &Path) -> ExitStatus {
    let mut command = Command::new(program);
    command
        .args(options)
        .args(["run", "--spec"])
        .arg(spec)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().unwrap_or_else(|error| panic!("{program}: {error}"))
}

#[track_caller]
fn succeeded(status: ExitStatus) {
    assert!(status.success(), "{status}; if there is no strace, run tests/scripts/tools.sh strace");
}

/// Returns the files of the sink's folder that the task renames to or removes, in that order; a renaming has its number.
fn steps(replacing: &Replacing) -> Vec<(Option<usize>, PathBuf)> {
    let log = replacing.bench.folder.path().join("steps.log");
    succeeded(traced(&["-o", &log.to_string_lossy()], &replacing.save(&replacing.task)));
    let log = fs::read_to_string(log).unwrap();
    let (mut steps, mut renamings, mut threads) = (Vec::new(), 0, BTreeSet::new());
    // `4711 rename("from", "to") = 0`: what counts is the last name.
    for line in log.lines() {
        let (Some(path), Some(thread)) = (line.rsplit('"').nth(1), line.split(' ').next()) else { continue };
        let renaming = line.contains(" rename(").then(|| {
            renamings += 1;
            threads.insert(thread);
            renamings
        });
        if let Ok(inside) = Path::new(path).strip_prefix(replacing.out()) {
            steps.push((renaming, inside.to_owned()));
        }
    }
    assert_eq!(threads.len(), 1, "several threads rename: {log}");
    steps
}

#[track_caller]
fn check(replacing: impl Fn() -> Replacing, steps_min: usize) {
    let (old, new): (BTreeSet<i64>, BTreeSet<i64>) = ((1..=100).collect(), (1001..=1300).collect());
    let whole = replacing();
    assert_eq!(whole.seen(), old);
    let steps = steps(&whole);
    assert_eq!((whole.seen(), whole.surplus()), (new.clone(), 0));
    let shown = steps.iter().position(|(_, step)| step.ends_with("_dagwright/manifest.json")).expect("a manifest");
    assert!(steps.len() >= steps_min && shown > 0 && shown + 1 < steps.len(), "{steps:?}");
    for (index, (renaming, step)) in steps.iter().enumerate() {
        let replacing = replacing();
        let spec = replacing.save(&replacing.task);
        let path = replacing.out().join(step);
        let status = match renaming {
            Some(number) => traced(&["-e", &format!("inject=rename:signal=SIGKILL:when={number}")], &spec),
            None => traced(&["-P", &path.to_string_lossy(), "-e", "inject=unlink:signal=SIGKILL"], &spec),
        };
        assert_eq!(status.signal(), Some(SIGKILL), "at {step:?}: {status}");
        let wanted = if index <= shown { &old } else { &new };
        assert_eq!(replacing.seen(), *wanted, "killed at {step:?}");
        succeeded(plain(&spec));
        assert_eq!((replacing.seen(), replacing.surplus()), (new.clone(), 0), "repeated after {step:?}");
    }
}

#[test]
fn a_folder_that_is_replaced_at_once_is_old_or_new() {
    check(Replacing::at_once, 3);
}

#[test]
fn a_folder_that_partitions_replace_is_old_or_new() {
    check(Replacing::staged, 2 * PARTITIONS as usize + 2);
}
