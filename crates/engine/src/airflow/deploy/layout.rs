//! In which layout a destination has its DAGs: a file for each, or one loader for all of them.
//!
//! Which one is decided of what is there, while nobody else writes, so that daemons which share a destination agree without
//! asking each other. When the layout changes, all DAGs of ours go with it in one change: the plan files stay as they are, and
//! what was in files is then in the index, or the reverse. Whatever of such a change is seen, no DAG is made twice: the loader
//! makes none that has a file of its own, so a DAG changes hands at the moment at which that file comes or goes.
//!
//! A DAG whose plan cannot be read stays where it is, in either direction; so does a file that is none of ours.

use std::collections::{BTreeMap, BTreeSet};

use dagwright_compiler::{
    Artifact, INDEX_FILE, LOADER_FILE, Layout, Target, can_be_loaded, compile,
    file_name::{self, DAG_FILE_START},
    loader_files, read_index,
};
use dagwright_model::{id::PlanHash, plan::Plan};
use serde::Deserialize;

use super::{Change, Error, Found, View, files::plans_named};

/// Which layout is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// What suits the number of DAGs.
    Auto,
    /// This one.
    Fixed(Layout),
}

/// How the layout is chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which is wanted.
    pub choice: Choice,
    /// From how many DAGs on [`Choice::Auto`] has one loader for all. It goes back to files below half as many, so that a
    /// pipeline that comes and goes does not move all others each time.
    pub loader_from: usize,
}

/// What is wished of the DAGs.
#[derive(Debug, Default)]
pub(crate) struct Wish {
    /// These are to be there, by `dag_id`.
    pub(crate) plans: BTreeMap<String, Compiled>,
    /// These are to be no more; one that is among `plans` too stays.
    pub(crate) removed: BTreeSet<String>,
    /// Files that belong to all DAGs whatever the layout.
    pub(crate) common: BTreeMap<String, Vec<u8>>,
    /// The Airflow that reads them; where it is not known, no DAG goes from the loader to a file.
    pub(crate) target: Option<Target>,
}

/// A plan as compiled for layout `file`, which has all that layout `loader` needs too.
#[derive(Debug)]
pub(crate) struct Compiled {
    dag: Artifact,
    plan: Artifact,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) change: Change,
    /// The layout from then on.
    pub(crate) layout: Layout,
    /// The name of the DAG file that makes each DAG of the wish.
    pub(crate) dag_files: BTreeMap<String, String>,
    /// A DAG that the loader makes now and then, and of which nothing is wished.
    pub(crate) sibling: Option<String>,
    /// How many DAGs of which nothing is wished go to the other layout.
    pub(crate) moved: usize,
}

/// What is there.
struct There<'a> {
    view: &'a dyn View,
    /// The plan file of each DAG of the loader, by `dag_id`; `None` where there is no index.
    index: Option<BTreeMap<String, String>>,
    /// The stems of DAGs that have a file of their own.
    filed: BTreeSet<String>,
}

/// The part of a plan file that Airflow makes a DAG of.
#[derive(Deserialize)]
struct Document {
    dag: DagPart,
}

#[derive(Deserialize)]
struct DagPart {
    dag_id: String,
}

/// A whole plan file.
#[derive(Deserialize)]
struct Sealed {
    hash: PlanHash,
    plan: Plan,
}

/// Decides what a wish means for what is there.
pub(crate) fn decide(wish: &Wish, rule: Rule, view: &dyn View) -> Result<Decided, Error> {
    let there = There::of(view)?;
    match rule.layout(there.layout(), there.count(wish)) {
        Layout::File => there.in_files(wish),
        Layout::Loader => there.in_loader(wish),
    }
}

// === impl Rule ===

impl Rule {
    /// Returns the layout for so many DAGs, where it is this one now.
    fn layout(&self, now: Layout, dags: usize) -> Layout {
        match (self.choice, now) {
            (Choice::Fixed(layout), _) => layout,
            (Choice::Auto, Layout::File) if dags >= self.loader_from => Layout::Loader,
            (Choice::Auto, Layout::Loader) if dags < self.loader_from / 2 => Layout::File,
            (Choice::Auto, now) => now,
        }
    }
}

// === impl Compiled ===

impl Compiled {
    pub(crate) fn new(plan: &Plan, target: Target) -> Self {
        let mut files = compile(plan, target).into_iter();
        match (files.next(), files.next()) {
            (Some(dag), Some(plan)) => Self { dag, plan },
            _ => unreachable!("a plan is compiled to a DAG file and a plan file"),
        }
    }

    fn files(&self) -> BTreeMap<String, Vec<u8>> {
        [&self.dag, &self.plan].map(|file| (file.name.clone(), file.bytes.clone())).into()
    }

    fn plan_file(&self) -> BTreeMap<String, Vec<u8>> {
        [(self.plan.name.clone(), self.plan.bytes.clone())].into()
    }
}

// === impl There ===

impl<'a> There<'a> {
    fn of(view: &'a dyn View) -> Result<Self, Error> {
        let index = match read_one(view, INDEX_FILE)? {
            Found::File(bytes) => {
                let index = read_index(&bytes);
                Some(index.map_err(|source| Error::BadIndex { path: INDEX_FILE.into(), source })?)
            }
            Found::Absent | Found::Same => None,
            Found::Other => return Err(Error::NotOurs { path: INDEX_FILE.into() }),
        };
        // By name alone: to read them all would take longer the more there are.
        let names = view.names()?;
        let stems = names.iter().filter_map(|name| file_name::plan_file_parts(name)).map(|(stem, _)| stem);
        let filed = stems.filter(|stem| names.contains(&file_name::dag_file(stem))).map(str::to_owned).collect();
        Ok(Self { view, index, filed })
    }

    fn layout(&self) -> Layout {
        let is_used = self.index.as_ref().is_some_and(|index| !index.is_empty());
        if is_used { Layout::Loader } else { Layout::File }
    }

    /// Returns how many DAGs there will be.
    fn count(&self, wish: &Wish) -> usize {
        let loaded = self.index.iter().flat_map(BTreeMap::keys).map(|dag_id| file_name::stem(dag_id));
        let mut stems: BTreeSet<String> = loaded.chain(self.filed.iter().cloned()).collect();
        for dag_id in &wish.removed {
            stems.remove(&file_name::stem(dag_id));
        }
        stems.extend(wish.plans.keys().map(|dag_id| file_name::stem(dag_id)));
        stems.len()
    }

    /// Has a file for each DAG.
    fn in_files(&self, wish: &Wish) -> Result<Decided, Error> {
        let mut decided = Decided::of(wish, Layout::File);
        for (dag_id, compiled) in &wish.plans {
            decided.file(dag_id, compiled.files(), &compiled.dag.name);
        }
        let Some(index) = &self.index else { return Ok(decided) };
        let mut loaded = index.clone();
        loaded.retain(|dag_id, _| !wish.names(dag_id));
        let mut moving = BTreeMap::new();
        loaded.retain(|dag_id, plan_file| {
            // What has a file of its own is made by that already.
            let stays = !self.filed.contains(&file_name::stem(dag_id));
            if stays && wish.target.is_some() {
                moving.insert(dag_id.clone(), plan_file.clone());
            }
            stays
        });
        if let Some(target) = wish.target {
            let texts = self.view.read(moving.values().cloned().collect())?;
            for (dag_id, plan_file) in moving {
                let Some(compiled) = recompiled(&dag_id, &plan_file, texts.get(&plan_file), target) else {
                    tracing::warn!(dag_id, "a plan that cannot be read stays in the loader until it is deployed again");
                    continue;
                };
                decided.change.dags.insert(dag_id.clone(), compiled.files());
                decided.moved += 1;
                loaded.remove(&dag_id);
            }
        }
        decided.load(&loaded);
        decided.sibling = loaded.into_keys().next();
        Ok(decided)
    }

    /// Has one loader for all DAGs.
    fn in_loader(&self, wish: &Wish) -> Result<Decided, Error> {
        let mut decided = Decided::of(wish, Layout::Loader);
        let mut loaded = self.index.clone().unwrap_or_default();
        loaded.retain(|dag_id, _| !wish.names(dag_id));
        decided.sibling = loaded.keys().find(|dag_id| !self.filed.contains(&file_name::stem(dag_id))).cloned();
        for (dag_id, plan_file) in self.filed_plans(wish)? {
            decided.change.dags.insert(dag_id.clone(), BTreeMap::new());
            decided.moved += 1;
            // Where it is in the index too, its own file is what Airflow sees.
            loaded.insert(dag_id, plan_file);
        }
        for (dag_id, compiled) in &wish.plans {
            if can_be_loaded(dag_id, &compiled.plan.name) {
                decided.file(dag_id, compiled.plan_file(), LOADER_FILE);
                loaded.insert(dag_id.clone(), compiled.plan.name.clone());
            } else {
                decided.file(dag_id, compiled.files(), &compiled.dag.name);
            }
        }
        decided.load(&loaded);
        Ok(decided)
    }

    /// Returns the plan file of each DAG that has a file of its own, and of which nothing is wished.
    fn filed_plans(&self, wish: &Wish) -> Result<BTreeMap<String, String>, Error> {
        let wished: BTreeSet<String> =
            wish.plans.keys().chain(&wish.removed).map(|dag_id| file_name::stem(dag_id)).collect();
        let stems = || self.filed.iter().filter(|stem| !wished.contains(*stem));
        let texts = self.view.read(stems().map(|stem| file_name::dag_file(stem)).collect())?;
        let mut plan_files = BTreeMap::new();
        for stem in stems() {
            let Some(Found::File(text)) = texts.get(&file_name::dag_file(stem)) else { continue };
            let mut named = plans_named(text).into_iter();
            match (text.starts_with(DAG_FILE_START.as_bytes()), named.next(), named.next()) {
                (true, Some(plan_file), None) => {
                    plan_files.insert(plan_file, stem.clone());
                }
                // It is none of ours, or somebody changed it.
                _ => continue,
            }
        }
        let texts = self.view.read(plan_files.keys().cloned().collect())?;
        let mut plans = BTreeMap::new();
        for (plan_file, stem) in plan_files {
            match texts.get(&plan_file).and_then(dag_id_of) {
                Some(dag_id) if file_name::stem(&dag_id) == stem && can_be_loaded(&dag_id, &plan_file) => {
                    plans.insert(dag_id, plan_file);
                }
                _ => tracing::warn!(
                    plan_file,
                    "a plan that cannot be read keeps its DAG file until it is deployed again"
                ),
            }
        }
        Ok(plans)
    }
}

// === impl Wish ===

impl Wish {
    fn names(&self, dag_id: &str) -> bool {
        self.plans.contains_key(dag_id) || self.removed.contains(dag_id)
    }
}

// === impl Decided ===

impl Decided {
    fn of(wish: &Wish, layout: Layout) -> Self {
        let removed = wish.removed.iter().cloned().collect();
        let change = Change { removed, common: wish.common.clone(), dags: BTreeMap::new() };
        Self { change, layout, dag_files: BTreeMap::new(), sibling: None, moved: 0 }
    }

    fn file(&mut self, dag_id: &str, files: BTreeMap<String, Vec<u8>>, dag_file: &str) {
        self.change.dags.insert(dag_id.to_owned(), files);
        self.dag_files.insert(dag_id.to_owned(), dag_file.to_owned());
    }

    fn load(&mut self, plan_files: &BTreeMap<String, String>) {
        let files = loader_files(plan_files).into_iter().map(|file| (file.name, file.bytes));
        self.change.common.extend(files);
    }
}

fn read_one(view: &dyn View, name: &str) -> Result<Found, Error> {
    Ok(view.read([name.to_owned()].into())?.remove(name).unwrap_or(Found::Absent))
}

fn dag_id_of(found: &Found) -> Option<String> {
    let Found::File(bytes) = found else { return None };
    Some(serde_json::from_slice::<Document>(bytes).ok()?.dag.dag_id)
}

/// Returns the files of a plan, if it is what its name says.
fn recompiled(dag_id: &str, plan_file: &str, found: Option<&Found>, target: Target) -> Option<Compiled> {
    let Some(Found::File(bytes)) = found else { return None };
    let Sealed { hash, plan } = serde_json::from_slice(bytes).ok()?;
    let compiled = Compiled::new(&plan, target);
    (plan.hash() == hash && plan.dag_id == dag_id && compiled.plan.name == plan_file).then_some(compiled)
}

#[cfg(test)]
mod tests {
    use dagwright_compiler::Layout::{File, Loader};

    use super::{Choice, Rule};

    #[test]
    fn the_number_of_dags_chooses_and_does_not_flap() {
        let rule = Rule { choice: Choice::Auto, loader_from: 10 };
        for (now, dags, then) in [
            (File, 0, File),
            (File, 9, File),
            (File, 10, Loader),
            (Loader, 10, Loader),
            (Loader, 9, Loader),
            (Loader, 5, Loader),
            (Loader, 4, File),
            (Loader, 0, File),
        ] {
            assert_eq!(rule.layout(now, dags), then, "{now:?}, {dags}");
        }
        for fixed in [File, Loader] {
            let rule = Rule { choice: Choice::Fixed(fixed), ..rule };
            assert!([File, Loader].iter().all(|now| [0, 1000].iter().all(|dags| rule.layout(*now, *dags) == fixed)));
        }
    }
}
