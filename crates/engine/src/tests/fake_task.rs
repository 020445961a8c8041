//! A task program for tests: this test binary, started again by the engine.
//!
//! The variable `FAKE_SCRIPT` holds what each task does, as JSON: `{"load": ["log hello", "succeed"], "load#2": …}`,
//! the more exact key first. Its steps are the arms of [`perform`]. Without that variable the test does nothing.
//! The test harness writes to standard output as well, which the engine has to bear.

use std::{
    collections::{BTreeMap, HashMap},
    env,
    ffi::OsString,
    fs::OpenOptions,
    io::{self, BufRead, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process, thread,
};

use dagwright_model::{
    code::{Code, TaskExit},
    task::{Counts, Outcome, Status, TaskEvent, TaskRun},
};
use dagwright_wire::jsonl;

use super::fixture::{failed, split_in, succeeded};
use crate::Settings;

const SCRIPT: &str = "FAKE_SCRIPT";
const FOLDER: &str = "FAKE_FOLDER";

/// What a task does, by its id, or id and attempt.
pub(super) type Script = BTreeMap<String, Vec<String>>;

pub(super) fn script(rows: &[(&str, &[&str])]) -> Script {
    rows.iter()
        .map(|(task, steps)| ((*task).to_string(), steps.iter().map(|step| (*step).to_string()).collect()))
        .collect()
}

/// Returns settings for an engine whose tasks follow the script; they meet in `folder`.
pub(super) fn settings(script: &Script, folder: &Path) -> Settings {
    let mut settings = Settings::new(env::current_exe().expect("this program"));
    // The arguments that the engine adds come after `--`, where the harness takes them for names of tests.
    settings.arguments = ["tests::fake_task::fake_task", "--exact", "--nocapture", "--"].map(OsString::from).to_vec();
    let script = serde_json::to_string(script).expect("JSON");
    settings.environment.insert(SCRIPT.into(), script.into());
    settings.environment.insert(FOLDER.into(), folder.into());
    settings
}

/// Returns the socket at which tasks report and wait, see the step `gate`.
pub(super) fn gate(folder: &Path) -> PathBuf {
    folder.join("gate")
}

/// Returns the file with one line for each effect that was made.
pub(super) fn effects(folder: &Path) -> PathBuf {
    folder.join("effects")
}

#[test]
fn fake_task() {
    let Ok(script) = env::var(SCRIPT) else { return };
    let script: HashMap<String, Vec<String>> = serde_json::from_str(&script).expect("a script");
    assert_eq!(
        env::args().skip_while(|argument| argument != "--").skip(1).collect::<Vec<_>>(),
        ["run", "--spec", "-", "--lease-stdin"]
    );
    // Ends the line that the harness began.
    say(b"\n");
    if script.values().flatten().any(|step| step == "deaf") {
        process::exit(3);
    }
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).expect("a line");
    let run: TaskRun = serde_json::from_str(&line).expect("a task");
    let index = run.run.partition.as_ref().map(|partition| format!("[{}]", partition.index)).unwrap_or_default();
    let name = format!("{}{index}", run.task.id);
    let keys = [format!("{name}#{}", run.run.attempt), name.clone(), run.task.id.0.clone()];
    let steps = keys.iter().find_map(|key| script.get(key)).cloned().unwrap_or_default();
    if !steps.iter().any(|step| step == "stubborn") {
        thread::spawn(|| {
            io::copy(&mut io::stdin().lock(), &mut io::sink()).expect("reads");
            end(failed(Code::Cancelled));
        });
    }
    tell(&TaskEvent::Started { task: run.task.id.clone(), rows_expected: Some(2), bytes_expected: None });
    let folder = PathBuf::from(env::var_os(FOLDER).expect("a folder"));
    let (mut gates, mut repeated) = (Vec::new(), false);
    for step in &steps {
        let (verb, rest) = step.split_once(' ').unwrap_or((step, ""));
        match verb {
            "gate" => gates.push(pass_gate(&folder, &format!("{name}#{} {rest}", run.run.attempt))),
            "effect" => repeated = !make_effect(&folder, &format!("{}/{name}", run.run.effect)),
            _ => perform(verb, rest, &folder),
        }
    }
    end(Outcome { repeated, ..succeeded() });
}

fn perform(verb: &str, rest: &str, folder: &Path) {
    match verb {
        "succeed" => end(succeeded()),
        "split" => end(split_in(rest.parse().expect("a number"))),
        "fail" => end(failed(Code::try_from(rest.to_string()).expect("a code"))),
        "exit" => process::exit(rest.parse().expect("a number")),
        "abort" => process::abort(),
        "progress" => tell(&TaskEvent::Progress { rows_read: 1, bytes_read: 10, rows_written: 0 }),
        "warn" => failed(Code::SourceMalformed).problem.into_iter().for_each(|it| tell(&TaskEvent::Warning(it))),
        "junk" => say(b"hello\n{\"event\":\"unheard of\"}\n\xff\xfe\n[]\n\n"),
        "endless" => {
            let piece = vec![b'x'; 1 << 20];
            (0..2 * jsonl::LINE_BYTES_MAX / piece.len()).for_each(|_| say(&piece));
            say(b"\n");
        }
        "log" => eprintln!("{rest}"),
        "flood" => (0..50_000).for_each(|line| eprintln!("line {line}")),
        "facts" => {
            let mut names: Vec<_> = env::vars().map(|(name, _)| name).collect();
            names.sort();
            let leads = nix::unistd::getpgrp() == nix::unistd::getpid();
            std::fs::write(folder.join("facts"), format!("{} {leads}", names.join(" "))).expect("writes");
        }
        "hang" | "stubborn" => loop {
            thread::park();
        },
        other => panic!("no step {other:?}"),
    }
}

/// Says where it is, and waits until it may go on; the connection stays open until the process ends.
fn pass_gate(folder: &Path, words: &str) -> UnixStream {
    let mut stream = UnixStream::connect(gate(folder)).expect("a gate");
    writeln!(stream, "{words}").expect("writes");
    let mut leave = [0];
    if stream.read(&mut leave).is_ok_and(|count| count == 1) {
        return stream;
    }
    // The keeper of the gate is gone, so the engine is, too: the lease will end.
    loop {
        thread::park();
    }
}

/// Does what a sink does with an effect key: the first one counts. The one write makes it, so a kill at any moment
/// leaves all of it or nothing.
fn make_effect(folder: &Path, key: &str) -> bool {
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).open(effects(folder)).expect("the file of effects");
    file.lock().expect("the lock");
    let mut made = String::new();
    file.read_to_string(&mut made).expect("reads");
    let is_first = !made.lines().any(|line| line == key);
    if is_first {
        file.write_all(format!("{key}\n").as_bytes()).expect("writes");
    }
    is_first
}

fn end(outcome: Outcome) -> ! {
    let exit = match (outcome.status, &outcome.problem) {
        (Status::Succeeded, _) => TaskExit::Done,
        (_, Some(problem)) => problem.code.exit(),
        (_, None) => TaskExit::DataError,
    };
    debug_assert!(outcome.status == Status::Succeeded || outcome.counts == Counts::default());
    tell(&TaskEvent::Outcome(Box::new(outcome)));
    process::exit(exit.number().into());
}

fn tell(event: &TaskEvent) {
    say(jsonl::encode(event).as_bytes());
}

fn say(bytes: &[u8]) {
    // The engine may have gone.
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
}
