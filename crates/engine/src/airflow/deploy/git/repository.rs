//! The bare repository, and what is asked of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{GitSettings, command::Command};
use crate::airflow::deploy::{Error, Found};

/// The last commit of the remote's branch that is here.
const BASE: &str = "refs/dagwright/base";

/// The commit that is being made.
const DRAFT: &str = "refs/dagwright/draft";

/// How many loose objects may gather before they are packed; git's own default.
const LOOSE_MAX: &str = "gc.auto=6700";

/// The repository.
#[derive(Debug)]
pub(super) struct Repository<'a> {
    command: &'a Command,
    path: PathBuf,
    settings: &'a GitSettings,
}

/// What the remote's branch ends in.
#[derive(Debug)]
pub(super) struct Tip {
    /// The commit; none where there is no such branch yet.
    pub(super) commit: Option<String>,
    /// What is in the subfolder.
    pub(super) files: BTreeMap<String, Entry>,
}

/// An entry of a folder in a commit.
#[derive(Debug)]
pub(super) struct Entry {
    mode: String,
    object: String,
}

/// What became of a push.
#[derive(Debug)]
pub(super) enum Pushed {
    Done,
    Refused(String),
}

// === impl Repository ===

impl<'a> Repository<'a> {
    /// Opens the repository at `path`, and makes it where there is none.
    pub(super) fn open(command: &'a Command, path: PathBuf, settings: &'a GitSettings) -> Result<Self, Error> {
        let repository = Self { command, path, settings };
        if !repository.path.join("HEAD").is_file() {
            let path = repository.path.to_str().ok_or(Error::BadSetting { setting: "path", reason: "is no text" })?;
            let arguments = ["init", "--quiet", "--bare", "--template=", "--", path];
            command.succeed("make a repository", None, &arguments, Vec::new())?;
        }
        Ok(repository)
    }

    /// Returns the commit that the remote's branch ends in, or `None` where there is no such branch.
    pub(super) fn remote(&self) -> Result<Option<String>, Error> {
        let branch = self.branch();
        let arguments = ["ls-remote", "--quiet", "--", &self.settings.url, &branch];
        let output = self.run("ask for the branch", &arguments, Vec::new())?;
        let output = String::from_utf8_lossy(&output);
        let found = output.lines().filter_map(|line| line.split_once('\t')).find(|(_, name)| *name == branch);
        found.map(|(object, _)| checked(object)).transpose()
    }

    /// Fetches the last commit of the remote's branch, unless it is here, and lists what is in the subfolder.
    pub(super) fn tip(&self) -> Result<Tip, Error> {
        let Some(remote) = self.remote()? else { return Ok(Tip { commit: None, files: BTreeMap::new() }) };
        let commit = match self.base()? {
            Some(base) if base == remote => base,
            _ => {
                let refs = format!("+{}:{BASE}", self.branch());
                let arguments = ["fetch", "--quiet", "--depth=1", "--no-tags", "--", &self.settings.url, &refs];
                self.run("fetch the branch", &arguments, Vec::new())?;
                self.base()?.ok_or_else(|| unreadable("fetch the branch"))?
            }
        };
        let files = self.list(&commit)?;
        Ok(Tip { commit: Some(commit), files })
    }

    /// Returns what a tip has under these names.
    pub(super) fn read(&self, tip: &Tip, names: BTreeSet<String>) -> Result<BTreeMap<String, Found>, Error> {
        const ACTION: &str = "read files";
        let wanted = names.iter().filter_map(|name| tip.files.get(name).filter(|entry| entry.is_file()));
        let input: String = wanted.map(|entry| format!("{}\n", entry.object)).collect();
        let output =
            if input.is_empty() { Vec::new() } else { self.run(ACTION, &["cat-file", "--batch"], input.into_bytes())? };
        let mut rest = output.as_slice();
        let mut found = BTreeMap::new();
        for name in names {
            let entry = match tip.files.get(&name) {
                None => Found::Absent,
                Some(entry) if !entry.is_file() => Found::Other,
                Some(entry) => {
                    let (bytes, after) = blob(rest, &entry.object).ok_or_else(|| unreadable(ACTION))?;
                    rest = after;
                    Found::File(bytes.to_vec())
                }
            };
            found.insert(name, entry);
        }
        Ok(found)
    }

    /// Makes a commit on top of a tip.
    pub(super) fn commit(
        &self,
        tip: &Tip,
        message: &str,
        write: &[(String, Vec<u8>)],
        remove: &[String],
    ) -> Result<String, Error> {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        // Without `from`, the branch starts anew.
        let mut stream = format!("feature done\nreset {DRAFT}\n\ncommit {DRAFT}\nmark :1\n").into_bytes();
        stream.extend(format!("committer {} {seconds} +0000\n", self.settings.author).bytes());
        data(&mut stream, message.as_bytes());
        if let Some(base) = &tip.commit {
            stream.extend(format!("from {base}\n").bytes());
        }
        for (name, bytes) in write {
            stream.extend(format!("M 100644 inline {}\n", self.inner(name)).bytes());
            data(&mut stream, bytes);
        }
        for name in remove {
            stream.extend(format!("D {}\n", self.inner(name)).bytes());
        }
        stream.extend(b"\nget-mark :1\ndone\n");
        let output = self.run("make a commit", &["fast-import", "--quiet", "--force"], stream)?;
        checked(String::from_utf8_lossy(&output).trim())
    }

    /// Pushes a commit to the remote's branch.
    pub(super) fn push(&self, commit: &str) -> Result<Pushed, Error> {
        let refs = format!("{commit}:{}", self.branch());
        let arguments = ["push", "--porcelain", "--no-verify", "--", &self.settings.url, &refs];
        let ended = self.command.run("push", Some(&self.path), &arguments, Vec::new())?;
        if !ended.status.success() {
            let output = String::from_utf8_lossy(&ended.output);
            // `!`, the refs, and in words why.
            let refused = output.lines().find_map(|line| line.strip_prefix("!\t")?.split_once('\t'));
            let Some((_, why)) = refused else { return Err(Error::Git { action: "push", said: ended.said }) };
            let why: String = why.chars().filter(|letter| !letter.is_control()).collect();
            return Ok(Pushed::Refused(format!("{why}; {}", ended.said)));
        }
        self.run("note what was pushed", &["update-ref", BASE, commit], Vec::new())?;
        // It was pushed; a repository that grows is no reason to say otherwise.
        let packed = self.run("pack", &["-c", LOOSE_MAX, "gc", "--auto", "--quiet"], Vec::new());
        if let Err(error) = packed {
            tracing::warn!(error = %error, "could not pack the repository that DAGs are deployed from");
        }
        Ok(Pushed::Done)
    }

    /// Returns where files are, for people: within the repository.
    pub(super) fn below(&self) -> PathBuf {
        self.settings.subfolder.as_deref().unwrap_or_default().into()
    }

    fn base(&self) -> Result<Option<String>, Error> {
        let arguments = ["rev-parse", "--quiet", "--verify", BASE];
        let ended = self.command.run("read its refs", Some(&self.path), &arguments, Vec::new())?;
        if !ended.status.success() {
            return Ok(None);
        }
        checked(String::from_utf8_lossy(&ended.output).trim()).map(Some)
    }

    /// Lists the subfolder, which must be one as far as it is there.
    fn list(&self, commit: &str) -> Result<BTreeMap<String, Entry>, Error> {
        const ACTION: &str = "list files";
        let mut path = String::new();
        let mut input = String::new();
        for part in self.settings.subfolder.iter().flat_map(|subfolder| subfolder.split('/')) {
            path = if path.is_empty() { part.to_owned() } else { format!("{path}/{part}") };
            input.push_str(&format!("{commit}:{path}\n"));
        }
        if !input.is_empty() {
            let output = self.run(ACTION, &["cat-file", "--batch-check=%(objecttype)"], input.into_bytes())?;
            for kind in String::from_utf8_lossy(&output).lines() {
                match kind {
                    "tree" => {}
                    missing if missing.ends_with(" missing") => return Ok(BTreeMap::new()),
                    // A file, or a link.
                    _ => return Err(Error::NotOurs { path: self.below() }),
                }
            }
        }
        let output = self.run(ACTION, &["ls-tree", "-z", &format!("{commit}:{path}")], Vec::new())?;
        let mut entries = BTreeMap::new();
        for line in output.split(|byte| *byte == 0).filter(|line| !line.is_empty()) {
            // What is no text is none of ours.
            let Ok(line) = str::from_utf8(line) else { continue };
            let (facts, name) = line.split_once('\t').ok_or_else(|| unreadable(ACTION))?;
            let mut facts = facts.split(' ');
            let (Some(mode), Some(_), Some(object)) = (facts.next(), facts.next(), facts.next()) else {
                return Err(unreadable(ACTION));
            };
            entries.insert(name.to_owned(), Entry { mode: mode.to_owned(), object: checked(object)? });
        }
        Ok(entries)
    }

    fn run(&self, action: &'static str, arguments: &[&str], input: Vec<u8>) -> Result<Vec<u8>, Error> {
        self.command.succeed(action, Some(&self.path), arguments, input)
    }

    fn branch(&self) -> String {
        format!("refs/heads/{}", self.settings.branch)
    }

    fn inner(&self, name: &str) -> String {
        match &self.settings.subfolder {
            Some(subfolder) => format!("{subfolder}/{name}"),
            None => name.to_owned(),
        }
    }
}

// === impl Entry ===

impl Entry {
    pub(super) fn is_file(&self) -> bool {
        matches!(self.mode.as_str(), "100644" | "100755")
    }
}

fn data(stream: &mut Vec<u8>, bytes: &[u8]) {
    stream.extend(format!("data {}\n", bytes.len()).bytes());
    stream.extend(bytes);
    stream.push(b'\n');
}

/// Splits a blob off what `cat-file --batch` prints.
fn blob<'a>(output: &'a [u8], object: &str) -> Option<(&'a [u8], &'a [u8])> {
    let end = output.iter().position(|byte| *byte == b'\n')?;
    let bytes: usize =
        str::from_utf8(&output[..end]).ok()?.strip_prefix(object)?.strip_prefix(" blob ")?.parse().ok()?;
    let (content, rest) = output[end + 1..].split_at_checked(bytes)?;
    Some((content, rest.strip_prefix(b"\n")?))
}

/// Returns the name of an object, which then is safe as an argument.
fn checked(object: &str) -> Result<String, Error> {
    let is_name = matches!(object.len(), 40 | 64) && object.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_name { Ok(object.to_owned()) } else { Err(unreadable("name an object")) }
}

fn unreadable(action: &'static str) -> Error {
    Error::Git { action, said: "its answer cannot be read".into() }
}
