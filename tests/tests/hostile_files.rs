//! Files that change while they are read, and lines without an end.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use dagwright_tests::{Ended, Workspace, tools};

/// How many rows a file has that is still being read when a test has looked: some seconds of work for this build.
const ROWS: usize = 1_000_000;

const SPEC: &str = "\
version: 1
pipeline: hostile
source: { uri: in.csv }
sink: { uri: out/all.csv, mode: replace }
";

fn rows(first: usize, count: usize) -> String {
    let mut rows = String::new();
    for id in first..first + count {
        writeln!(rows, "{id},row number {id}").expect("a string grows");
    }
    rows
}

/// A workspace with [`ROWS`] rows, and retries as given.
fn workspace(retries: &str) -> Workspace {
    let workspace = Workspace::new();
    workspace.write("in.csv", format!("id,text\n{}", rows(0, ROWS)));
    workspace.write("spec.yaml", format!("{SPEC}retries: {retries}\n"));
    workspace
}

/// A process that is held in the middle of reading a file.
struct Held {
    process: u32,
}

impl Held {
    /// Waits until the worker of `run` reads `file`, and stops it there.
    fn reading(run: &mut Child, file: &Path) -> Self {
        let size = fs::metadata(file).expect("a file").len();
        loop {
            assert!(run.try_wait().expect("a child").is_none(), "the run ended before its file was seen being read");
            let reads = |process: &u32| position(*process, file).is_some_and(|position| position > 0);
            let Some(process) = workers(run.id()).into_iter().find(reads) else {
                thread::yield_now();
                continue;
            };
            assert!(signal("-STOP", process), "could not stop the worker");
            while state(process) != Some('T') {
                thread::yield_now();
            }
            let position = position(process, file).expect("it is stopped with the file open");
            assert!(position < size, "the file is too small: all of it was read at once");
            return Self { process };
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        // It may have been killed meanwhile.
        let _ = signal("-CONT", self.process);
    }
}

/// Sends a signal; tells whether there was a process to take it.
fn signal(signal: &str, process: u32) -> bool {
    // The shell's own `kill` is there on the smallest system.
    Command::new("sh").args(["-c", "kill \"$0\" \"$1\"", signal, &process.to_string()]).status().expect("sh").success()
}

/// Returns the state and the parent of a process.
fn status(process: u32) -> Option<(char, u32)> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split(' ');
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn state(process: u32) -> Option<char> {
    status(process).map(|(state, _)| state)
}

/// Returns the processes that `dagwright-task run` is, of a parent.
fn workers(parent: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("Linux").flatten();
    let processes = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_worker = |process: &u32| {
        let command = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        status(*process).is_some_and(|(_, of)| of == parent) && command.split(|byte| *byte == 0).nth(1) == Some(b"run")
    };
    processes.filter(is_worker).collect()
}

/// Returns how far a process has read a file; `None` when it has not opened it.
fn position(process: u32, file: &Path) -> Option<u64> {
    let descriptors = fs::read_dir(format!("/proc/{process}/fd")).ok()?.flatten();
    let mut open = descriptors.filter(|entry| fs::read_link(entry.path()).is_ok_and(|target| target == file));
    let descriptor = open.next()?.file_name();
    let info = fs::read_to_string(format!("/proc/{process}/fdinfo/{}", descriptor.to_str()?)).ok()?;
    info.lines().find_map(|line| line.strip_prefix("pos:"))?.trim().parse().ok()
}

/// Runs the spec, changes its file while that is read, and returns how the run ended.
fn run_and_change(workspace: &Workspace, change: impl FnOnce(&Path)) -> Ended {
    let file = fs::canonicalize(workspace.path("in.csv")).expect("a file");
    let mut run = workspace.dagwright();
    let mut run = run.args(["run", "spec.yaml"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
    let held = Held::reading(&mut run, &file);
    change(&file);
    drop(held);
    run.wait_with_output().expect("ended").into()
}

fn append(file: &Path, text: &str) {
    let mut file = OpenOptions::new().append(true).open(file).expect("opens");
    file.write_all(text.as_bytes()).expect("appends");
}

#[track_caller]
fn check_change(change: impl FnOnce(&Path)) {
    let workspace = workspace("{ max: 0 }");
    run_and_change(&workspace, change).expect_problem(1, "DW0304");
    assert_eq!(workspace.list("out"), [""; 0], "nothing became visible");
}

#[test]
fn a_file_that_grows_while_it_is_read_is_told() {
    check_change(|file| append(file, "7,one more\n"));
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_told() {
    check_change(|file| {
        let file = OpenOptions::new().write(true).open(file).expect("opens");
        file.set_len(1000).expect("truncates");
    });
}

#[test]
fn a_file_that_is_overwritten_while_it_is_read_is_told() {
    check_change(|file| {
        let mut file = OpenOptions::new().write(true).open(file).expect("opens");
        file.write_all(b"id,TEXT\n").expect("overwrites");
    });
}

#[test]
fn a_file_that_is_removed_while_it_is_read_is_told() {
    check_change(|file| fs::remove_file(file).expect("removed"));
}

#[test]
fn a_file_that_changed_is_read_again_from_its_start() {
    let workspace = workspace("{ max: 1, backoff: 1s }");
    let ended = run_and_change(&workspace, |file| append(file, &rows(ROWS, 10)));
    ended.expect(0);
    assert!(ended.stderr.contains("DW0304") && ended.stderr.contains("try 2"), "{}", ended.stderr);
    let loaded = fs::read_to_string(workspace.path("out/all.csv")).expect("a file");
    assert_eq!(loaded.lines().count(), 1 + ROWS + 10);
}

// === lines without an end ===

/// The length of the line; nobody has the memory for it, and nobody needs the disk.
const LINE_BYTES: u64 = 10 << 30;

/// The most memory that any process of a run may take to find out.
const MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Writes a head and lets the file seem to go on for [`LINE_BYTES`].
fn sparse(path: PathBuf, head: &[u8], filler: &[u8]) {
    let mut file = File::create(path).expect("a file");
    file.write_all(head).expect("written");
    // More than the longest record: whoever gave up there has not seen the hole behind it.
    for _ in 0..(32 << 20) / filler.len() {
        file.write_all(filler).expect("written");
    }
    file.set_len(LINE_BYTES).expect("a file system with sparse files");
}

/// Writes a head and a line of [`LINE_BYTES`], compressed: gzip files may follow each other in one file.
fn compressed(path: PathBuf, head: &str) {
    let piece_bytes = 64 << 20;
    let piece = path.with_extension("piece");
    fs::write(&piece, vec![b'a'; piece_bytes]).expect("written");
    let gzip = |file: &Path| {
        let output = Command::new("gzip").arg("-c").arg(file).output().expect("gzip");
        assert!(output.status.success(), "{output:?}");
        output.stdout
    };
    let line = gzip(&piece);
    fs::write(&piece, head).expect("written");
    let mut file = File::create(path).expect("a file");
    file.write_all(&gzip(&piece)).expect("written");
    for _ in 0..LINE_BYTES / piece_bytes as u64 {
        file.write_all(&line).expect("written");
    }
}

/// Runs a spec over the file, and expects the code, in bounded memory, with nothing visible.
#[track_caller]
fn check_line(workspace: &Workspace, file: &str, code: &str) {
    workspace.write("spec.yaml", format!("{}retries: {{ max: 0 }}\n", SPEC.replace("in.csv", file)));
    // The largest of its descendants, as the kernel counted.
    let program = "import resource, subprocess, sys
code = subprocess.call(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
sys.exit(code)";
    let run = workspace.dagwright();
    let mut measured = Command::new(tools().join("tools/bin/python"));
    measured.current_dir(run.get_current_dir().expect("a folder")).args(["-c", program]).arg(run.get_program());
    for (variable, _) in run.get_envs() {
        measured.env_remove(variable);
    }
    let ended = measured.args(["run", "spec.yaml"]).output().expect("run tests/scripts/tools.sh python");
    let ended = Ended::from(ended);
    ended.expect_problem(1, code);
    let kibibytes: u64 = ended.stderr.lines().last().and_then(|line| line.parse().ok()).expect("the measured memory");
    assert!(kibibytes << 10 < MEMORY_BYTES_MAX, "{file} took {kibibytes} KiB");
    assert_eq!(workspace.list("out"), [""; 0], "nothing became visible");
}

#[test]
fn a_line_without_end_takes_bounded_memory() {
    let workspace = Workspace::new();
    sparse(workspace.path("plain.csv"), b"id\n", b"aaaaaaaa");
    check_line(&workspace, "plain.csv", "DW0308");
    sparse(workspace.path("quoted.csv"), b"id,text\n1,\"", b"line\n");
    check_line(&workspace, "quoted.csv", "DW0308");
    sparse(workspace.path("object.ndjson"), b"{\"id\":\"", b"aaaaaaaa");
    check_line(&workspace, "object.ndjson", "DW0308");
    compressed(workspace.path("packed.csv.gz"), "id\n");
    check_line(&workspace, "packed.csv.gz", "DW0308");
}

#[test]
fn a_hole_is_no_text() {
    let workspace = Workspace::new();
    sparse(workspace.path("hole.csv"), b"id\n", b"\0\0\0\0\0\0\0\0");
    check_line(&workspace, "hole.csv", "DW0306");
}
