//! What a change means for the files of a destination, whatever kind that is; pure.
//!
//! Files are known by their names, which are those that the compiler gives, and a DAG file also by how it begins. What
//! has such a name and begins otherwise is somebody else's.

use std::collections::{BTreeMap, BTreeSet};

use dagwright_compiler::file_name::{self, DAG_FILE_START, PLAN_FILE_END};

use super::{Change, Error, Found};

/// What the names of files begin with that belong to all DAGs.
const COMMON_START: &str = "dagwright_";

/// What stands in the first line of such a file, where it is code.
const COMMON_MARK: &str = "Dagwright";

const NAME_BYTES_MAX: usize = 255;

/// What a file is for. In the order in which files appear: none is there before those that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Plan,
    Dag,
    CommonData,
    CommonCode,
}

/// The files of a change, with names that may be used.
#[derive(Debug)]
pub(super) struct Files<'a> {
    wanted: BTreeMap<&'a str, (Part, &'a [u8])>,
    /// The DAG files of DAGs that are to have none.
    gone: BTreeSet<String>,
    /// Of all DAGs of the change.
    stems: BTreeSet<String>,
}

/// What is to be done.
#[derive(Debug, Default)]
pub(super) struct Edits<'a> {
    /// The files to be written, in this order.
    pub(super) write: Vec<(Part, &'a str, &'a [u8])>,
    /// The DAG files to be removed.
    pub(super) remove: Vec<&'a str>,
    /// The plan files that were named until now by what is written or removed.
    pub(super) dropped: BTreeSet<String>,
}

// === impl Files ===

impl<'a> Files<'a> {
    /// Checks the names of a change.
    pub(super) fn of(change: &'a Change) -> Result<Self, Error> {
        let mut files = Self { wanted: BTreeMap::new(), gone: BTreeSet::new(), stems: BTreeSet::new() };
        for (dag_id, of_dag) in &change.dags {
            let stem = file_name::stem(dag_id);
            let dag_file = file_name::dag_file(&stem);
            for (name, bytes) in of_dag {
                let part = match file_name::plan_file_parts(name) {
                    Some((known, _)) if known == stem => Part::Plan,
                    None if *name == dag_file => Part::Dag,
                    Some(_) | None => return Err(bad_name(name)),
                };
                files.want(part, name, bytes)?;
            }
            if !of_dag.contains_key(&dag_file) {
                files.gone.insert(dag_file);
            }
            files.stems.insert(stem);
        }
        for dag_id in change.removed.iter().filter(|dag_id| !change.dags.contains_key(*dag_id)) {
            let stem = file_name::stem(dag_id);
            files.gone.insert(file_name::dag_file(&stem));
            files.stems.insert(stem);
        }
        for (name, bytes) in &change.common {
            if !is_common(name) {
                return Err(bad_name(name));
            }
            let part = if name.ends_with(".py") { Part::CommonCode } else { Part::CommonData };
            files.want(part, name, bytes)?;
        }
        Ok(files)
    }

    fn want(&mut self, part: Part, name: &'a str, bytes: &'a [u8]) -> Result<(), Error> {
        if !is_name(name) || self.wanted.contains_key(name) {
            return Err(bad_name(name));
        }
        if !is_ours(part, bytes) {
            return Err(Error::BadFile { name: name.into() });
        }
        self.wanted.insert(name, (part, bytes));
        Ok(())
    }

    /// Returns the names that the change is about.
    pub(super) fn names(&self) -> BTreeSet<&str> {
        self.wanted.keys().copied().chain(self.gone.iter().map(String::as_str)).collect()
    }

    /// Tells whether a file is to be there.
    pub(super) fn wants(&self, name: &str) -> bool {
        self.wanted.contains_key(name)
    }

    /// Tells whether the change is about the DAG of this stem.
    pub(super) fn has_stem(&self, stem: &str) -> bool {
        self.stems.contains(stem)
    }

    /// Compares with what is there. `look` is given a name, and the content that is wanted, if any.
    pub(super) fn edits(
        &self,
        mut look: impl FnMut(&str, Option<&[u8]>) -> Result<Found, Error>,
    ) -> Result<Edits<'_>, Error> {
        let (mut edits, mut before, mut after) = (Edits::default(), BTreeSet::new(), BTreeSet::new());
        for (name, (part, bytes)) in &self.wanted {
            match look(name, Some(bytes))? {
                Found::Same => {}
                Found::File(known) if known == *bytes => {}
                Found::Absent => edits.write.push((*part, name, bytes)),
                Found::File(known) if is_ours(*part, &known) => {
                    if *part != Part::Plan {
                        before.extend(plans_named(&known));
                    }
                    edits.write.push((*part, name, bytes));
                }
                Found::File(_) | Found::Other => return Err(Error::NotOurs { path: name.into() }),
            }
            match part {
                Part::Plan => {
                    after.insert((*name).to_owned());
                }
                Part::Dag | Part::CommonData | Part::CommonCode => after.extend(plans_named(bytes)),
            }
        }
        for name in &self.gone {
            match look(name, None)? {
                Found::File(known) if is_ours(Part::Dag, &known) => {
                    before.extend(plans_named(&known));
                    edits.remove.push(name);
                }
                // Ours is not there.
                Found::Absent | Found::Same | Found::File(_) | Found::Other => {}
            }
        }
        edits.write.sort_by_key(|(part, ..)| *part);
        edits.dropped = before.difference(&after).cloned().collect();
        Ok(edits)
    }
}

// === impl Edits ===

impl Edits<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.write.is_empty() && self.remove.is_empty()
    }
}

/// Returns the names of the files that have to be read to tell which plan files are named.
pub(super) fn referrers<'a>(names: impl IntoIterator<Item = &'a str> + Clone) -> BTreeSet<String> {
    let plans = names.clone().into_iter().filter_map(file_name::plan_file_parts);
    let dags = plans.map(|(stem, _)| file_name::dag_file(stem));
    dags.chain(names.into_iter().filter(|name| is_common(name)).map(str::to_owned)).collect()
}

/// Returns the plan files that neither their DAG file nor a file of all DAGs names. `texts` are the [`referrers`].
pub(super) fn unnamed<'a>(
    names: impl IntoIterator<Item = &'a str>,
    texts: &BTreeMap<String, Found>,
) -> BTreeSet<&'a str> {
    let named: BTreeSet<String> = texts
        .values()
        .flat_map(|found| match found {
            Found::File(bytes) => plans_named(bytes),
            Found::Absent | Found::Same | Found::Other => BTreeSet::new(),
        })
        .collect();
    // What cannot be read may name them.
    let all_obscure = texts.iter().any(|(name, found)| is_common(name) && *found == Found::Other);
    let obscure = |stem: &str| all_obscure || texts.get(&file_name::dag_file(stem)) == Some(&Found::Other);
    let plans = names.into_iter().filter_map(|name| file_name::plan_file_parts(name).map(|(stem, _)| (name, stem)));
    let unnamed = plans.filter(|(name, stem)| is_name(name) && !named.contains(*name) && !obscure(stem));
    unnamed.map(|(name, _)| name).collect()
}

/// Returns the names of plan files that stand in a text.
pub(super) fn plans_named(text: &[u8]) -> BTreeSet<String> {
    let end = PLAN_FILE_END.as_bytes();
    let mut named = BTreeSet::new();
    for at in text.windows(end.len()).enumerate().filter(|(_, window)| *window == end).map(|(at, _)| at) {
        let first = text[..at].iter().rposition(|byte| !is_allowed(*byte)).map_or(0, |before| before + 1);
        let name = String::from_utf8_lossy(&text[first..at + end.len()]).into_owned();
        if file_name::plan_file_parts(&name).is_some() {
            named.insert(name);
        }
    }
    named
}

/// Tells whether a name is one of a file that belongs to all DAGs.
pub(super) fn is_common(name: &str) -> bool {
    let ends = [".py", ".json"].iter().any(|end| name.ends_with(end));
    ends && name.starts_with(COMMON_START) && file_name::plan_file_parts(name).is_none()
}

/// Tells whether a content may be replaced, being ours.
fn is_ours(part: Part, bytes: &[u8]) -> bool {
    let compiled = bytes.starts_with(DAG_FILE_START.as_bytes());
    match part {
        // Nobody else has names like these.
        Part::Plan | Part::CommonData => true,
        Part::Dag => compiled,
        Part::CommonCode => {
            let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
            !compiled && line.windows(COMMON_MARK.len()).any(|window| window == COMMON_MARK.as_bytes())
        }
    }
}

/// Tells whether a name is safe everywhere: on a disk, on a command line, in `sha256sum`'s lines.
pub(super) fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.starts_with(['.', '-']) && name.bytes().all(is_allowed)
}

fn is_allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
}

fn bad_name(name: &str) -> Error {
    Error::BadName { name: name.into() }
}
