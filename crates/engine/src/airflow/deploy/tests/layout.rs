//! Which layout a destination gets, and what is seen while it changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io, thread,
};

use dagwright_compiler::{
    INDEX_FILE, LOADER_FILE, Layout, Target,
    file_name::{self, DAG_FILE_START},
    read_index,
};
use dagwright_model::{code::Code, plan::Plan};

use super::{Files, Kind, Place, anchor, crash::failing};
use crate::{
    airflow::deploy::{
        Choice, Destination, Error, Placed, Rule,
        dir::Steps,
        files::plans_named,
        layout::{Compiled, Decided, Wish, decide},
    },
    tests::fixture,
};

const AUTO: Rule = Rule { choice: Choice::Auto, loader_from: 4 };

const FILES: Rule = Rule { choice: Choice::Fixed(Layout::File), ..AUTO };

const LOADER: Rule = Rule { choice: Choice::Fixed(Layout::Loader), ..AUTO };

fn plan(dag_id: &str, version: u32) -> Plan {
    Plan { dag_id: dag_id.into(), description: Some(version.to_string()), ..fixture::plan(Vec::new()) }
}

fn wish(plans: &[(&str, u32)], removed: &[&str]) -> Wish {
    let compiled = |(dag_id, version): &(&str, u32)| {
        ((*dag_id).to_owned(), Compiled::new(&plan(dag_id, *version), Target::Airflow3))
    };
    Wish {
        plans: plans.iter().map(compiled).collect(),
        removed: removed.iter().map(|dag_id| (*dag_id).to_owned()).collect(),
        common: anchor(),
        target: Some(Target::Airflow3),
    }
}

fn put(destination: &dyn Destination, wish: &Wish, rule: Rule) -> Result<(Placed, Decided), Error> {
    let mut decided = None;
    let placed = destination.update(&mut |view| {
        let made = decided.insert(decide(wish, rule, view)?);
        Ok(made.change.clone())
    })?;
    Ok((placed, decided.expect("it was asked")))
}

/// Returns the plan file of each DAG, and whether the loader makes it, as package `dagwright-airflow` reads a folder.
#[track_caller]
fn made_of(seen: &Files) -> BTreeMap<String, (String, bool)> {
    let mut made = BTreeMap::new();
    let compiled: BTreeMap<_, _> = seen
        .iter()
        .filter(|(name, bytes)| name.ends_with(".py") && bytes.starts_with(DAG_FILE_START.as_bytes()))
        .collect();
    for (name, bytes) in &compiled {
        let plan_file = plans_named(bytes).into_iter().next().expect("a plan");
        made.insert(name.trim_end_matches(".py").to_owned(), (plan_file, false));
    }
    if seen.contains_key(LOADER_FILE) {
        for (dag_id, plan_file) in read_index(&seen[INDEX_FILE]).expect("an index") {
            if !compiled.contains_key(&file_name::dag_file(&file_name::stem(&dag_id))) {
                assert!(made.insert(dag_id, (plan_file, true)).is_none(), "made twice");
            }
        }
    }
    for (plan_file, _) in made.values() {
        assert!(seen.contains_key(plan_file), "{plan_file} is missing");
    }
    made
}

/// Checks which DAGs there are, each of which version, and whether all are made by the loader.
#[track_caller]
fn check(place: &Place, plans: &[(&str, u32)], layout: Layout) {
    let wanted = plans.iter().map(|(dag_id, version)| {
        let plan = plan(dag_id, *version);
        let plan_file = dagwright_compiler::plan_file_name(dag_id, &plan.hash());
        ((*dag_id).to_owned(), (plan_file, layout == Layout::Loader))
    });
    assert_eq!(made_of(&place.seen()), wanted.collect(), "{:?}", place.kind);
}

#[test]
fn many_dags_get_a_loader_and_few_get_files_again() {
    for kind in Kind::ALL {
        let place = Place::new(kind);
        let destination = place.open(&Steps::default());
        let go =
            |plans: &[(&str, u32)], removed: &[&str]| put(&*destination, &wish(plans, removed), AUTO).expect("put").1;
        assert_eq!(go(&[("a", 1), ("b", 1), ("x.c", 1)], &[]).moved, 0);
        check(&place, &[("a", 1), ("b", 1), ("x.c", 1)], Layout::File);
        assert!(!place.seen().contains_key(INDEX_FILE), "nothing of the loader is needed");

        let fourth = go(&[("d", 1)], &[]);
        assert_eq!((fourth.layout, fourth.moved, fourth.sibling), (Layout::Loader, 3, None));
        assert_eq!(fourth.dag_files["d"], LOADER_FILE);
        check(&place, &[("a", 1), ("b", 1), ("d", 1), ("x.c", 1)], Layout::Loader);

        // It does not go back at once, and a change of one is none of others.
        let less = go(&[("a", 2)], &["b"]);
        assert_eq!((less.layout, less.moved, less.sibling.as_deref()), (Layout::Loader, 0, Some("d")));
        check(&place, &[("a", 2), ("d", 1), ("x.c", 1)], Layout::Loader);
        go(&[], &["d"]);
        check(&place, &[("a", 2), ("x.c", 1)], Layout::Loader);

        let last = go(&[], &["x.c"]);
        assert_eq!((last.layout, last.moved), (Layout::File, 1));
        check(&place, &[("a", 2)], Layout::File);
        // What is no longer named is left over, and nothing else.
        for leftover in destination.leftovers().expect("leftovers") {
            destination.discard(&leftover).expect("discard");
        }
        check(&place, &[("a", 2)], Layout::File);
        assert_eq!(place.seen().keys().filter(|name| name.ends_with(".plan.json")).count(), 1);
    }
}

#[test]
fn what_is_there_is_not_written_again() {
    for kind in Kind::ALL {
        for rule in [FILES, LOADER] {
            let place = Place::new(kind);
            let all = wish(&[("a", 1), ("b", 1)], &["gone"]);
            assert!(put(&*place.open(&Steps::default()), &all, rule).expect("put").0.changed);
            let before = place.seen();
            for same in [&all, &wish(&[("b", 1)], &[]), &wish(&[], &["gone"]), &Wish { target: None, ..wish(&[], &[]) }]
            {
                assert!(!put(&*place.open(&Steps::default()), same, rule).expect("put").0.changed, "{kind:?}");
            }
            assert_eq!(place.seen(), before);
        }
    }
}

#[test]
fn plans_stay_as_they_are_when_the_layout_changes() {
    for kind in Kind::ALL {
        let place = Place::new(kind);
        let plans = [("a", 1), ("b", 1)];
        put(&*place.open(&Steps::default()), &wish(&plans, &[]), FILES).expect("put");
        let in_files = place.seen();
        // As a daemon does when it starts, which need not know Airflow for that.
        let nothing = Wish { target: None, ..wish(&[], &[]) };
        assert_eq!(put(&*place.open(&Steps::default()), &nothing, LOADER).expect("put").1.moved, 2);
        check(&place, &plans, Layout::Loader);
        // To write DAG files, it needs to.
        assert!(!put(&*place.open(&Steps::default()), &nothing, FILES).expect("put").0.changed);
        assert_eq!(put(&*place.open(&Steps::default()), &wish(&[], &[]), FILES).expect("put").1.moved, 2);
        check(&place, &plans, Layout::File);
        let mut back = place.seen();
        back.retain(|name, _| ![LOADER_FILE, INDEX_FILE].contains(&name.as_str()));
        assert_eq!(back, in_files, "{kind:?}");
    }
}

#[test]
fn whatever_is_seen_of_a_changing_layout_no_dag_is_made_twice_or_lost() {
    let before = [("a", 1), ("b", 1), ("gone", 1), ("stays", 1)];
    let after = [("a", 2), ("b", 1), ("new", 1), ("stays", 1)];
    let versions = |dag_id: &str| -> BTreeSet<String> {
        let of = |plans: &[(&str, u32)]| plans.iter().find(|(id, _)| *id == dag_id).map(|(_, version)| *version);
        let versions = [of(&before), of(&after)].into_iter().flatten();
        versions.map(|version| dagwright_compiler::plan_file_name(dag_id, &plan(dag_id, version).hash())).collect()
    };
    for kind in Kind::ALL {
        for (from, to, layout) in [(FILES, LOADER, Layout::Loader), (LOADER, FILES, Layout::File)] {
            let (mut died, stride) = (0, if kind == Kind::Git { 3 } else { 1 });
            for step in (0..400).step_by(stride) {
                let place = Place::new(kind);
                put(&*place.open(&Steps::default()), &wish(&before, &[]), from).expect("put");
                let change = wish(&[("a", 2), ("new", 1)], &["gone"]);
                let (steps, _) = failing(io::ErrorKind::Other, move |number| number >= step);
                let ended = put(&*place.open(&steps), &change, to);
                let seen = place.seen();
                let made = made_of(&seen);
                for (dag_id, (plan_file, _)) in &made {
                    assert!(versions(dag_id).contains(plan_file), "{kind:?}, step {step}: {plan_file}");
                }
                for dag_id in ["a", "b", "stays"] {
                    assert!(made.contains_key(dag_id), "{kind:?}, step {step}: {dag_id} is lost");
                }
                // Another daemon goes on, which wants something else, and then the first again.
                if step % 2 == 1 {
                    put(&*place.open(&Steps::default()), &wish(&[("stays", 1)], &[]), to).expect("put");
                }
                put(&*place.open(&Steps::default()), &change, to).expect("put");
                check(&place, &after, layout);
                if ended.is_ok() {
                    break;
                }
                died += 1;
            }
            assert!((if kind == Kind::Git { 3 } else { 20 }..400).contains(&died), "{kind:?} died {died} times");
        }
    }
}

#[test]
fn daemons_that_share_a_destination_share_its_index() {
    for kind in Kind::ALL {
        let place = Place::new(kind);
        thread::scope(|scope| {
            for writer in 0..4 {
                let destination = place.open(&Steps::default());
                scope.spawn(move || {
                    for version in 0..3 {
                        let (own, gone) = (format!("dag_{writer}"), format!("gone_{writer}"));
                        put(&*destination, &wish(&[(&own, version), (&gone, 0)], &[]), AUTO).expect("put");
                        put(&*destination, &wish(&[], &[&gone]), AUTO).expect("put");
                    }
                });
            }
        });
        let names: Vec<_> = (0..4).map(|writer| format!("dag_{writer}")).collect();
        let plans: Vec<_> = names.iter().map(|name| (name.as_str(), 2)).collect();
        check(&place, &plans, Layout::Loader);
    }
}

#[test]
fn a_plan_that_cannot_be_read_stays_where_it_is() {
    for kind in [Kind::Folder, Kind::Git] {
        let place = Place::new(kind);
        put(&*place.open(&Steps::default()), &wish(&[("a", 1), ("b", 1)], &[]), FILES).expect("put");
        let plan_file = dagwright_compiler::plan_file_name("b", &plan("b", 1).hash());
        let whole = String::from_utf8(place.seen()[&plan_file].clone()).expect("text");
        place.put_foreign(&plan_file, "{");
        assert_eq!(put(&*place.open(&Steps::default()), &wish(&[], &[]), LOADER).expect("put").1.moved, 1);
        let made = made_of(&place.seen());
        assert!(made["a"].1 && !made["b"].1, "{made:?}");

        // The same on the way back.
        place.put_foreign(&plan_file, &whole);
        put(&*place.open(&Steps::default()), &wish(&[], &[]), LOADER).expect("put");
        place.put_foreign(&plan_file, &whole.replace("\"description\": \"1\"", "\"description\": \"2\""));
        put(&*place.open(&Steps::default()), &wish(&[], &[]), FILES).expect("put");
        let made = made_of(&place.seen());
        assert!(!made["a"].1 && made["b"].1, "{made:?}");
        // Deployed anew, it goes where it belongs.
        put(&*place.open(&Steps::default()), &wish(&[("b", 1)], &[]), FILES).expect("put");
        check(&place, &[("a", 1), ("b", 1)], Layout::File);
    }
}

#[test]
fn what_is_not_ours_is_neither_loaded_nor_removed() {
    for kind in [Kind::Folder, Kind::Git] {
        let place = Place::new(kind);
        put(&*place.open(&Steps::default()), &wish(&[("a", 1)], &[]), FILES).expect("put");
        place.put_foreign("a.py", "print('mine')\n");
        put(&*place.open(&Steps::default()), &wish(&[("b", 1)], &[]), LOADER).expect("put");
        assert_eq!(place.seen()["a.py"], b"print('mine')\n");
        check(&place, &[("b", 1)], Layout::Loader);
    }
}

#[test]
fn an_index_that_says_nothing_is_refused() {
    for kind in Kind::ALL {
        for index in ["", "[]", r#"{"dags": {}, "version": 2}"#, r#"{"dags": {"a": "../a"}, "version": 1}"#] {
            let place = Place::new(kind);
            place.put_foreign(INDEX_FILE, index);
            let before = place.seen();
            let error = put(&*place.open(&Steps::default()), &wish(&[("a", 1)], &[]), AUTO).expect_err("a bad index");
            assert!(matches!(&error, Error::BadIndex { path, .. } if path.ends_with(INDEX_FILE)), "{error:?}");
            assert_eq!((error.code(), error.is_retryable()), (Code::DeployRefused, false));
            assert_eq!(place.seen(), before);
        }
    }
}

#[test]
fn one_deployment_reads_and_writes_little_however_many_there_are() {
    let ids: Vec<_> = (0..100).map(|number| format!("dag_{number}")).collect();
    let all: Vec<_> = ids.iter().map(|id| (id.as_str(), 1)).collect();
    for kind in [Kind::Folder, Kind::Bundle] {
        for rule in [FILES, LOADER] {
            let place = Place::new(kind);
            let counted = std::sync::Arc::new(std::sync::Mutex::new(BTreeMap::<&str, usize>::new()));
            let taken = counted.clone();
            let before = move |what: &'static str| {
                *taken.lock().expect("counts").entry(what).or_default() += 1;
                Ok(())
            };
            let destination = place.open(&Steps { before: Some(std::sync::Arc::new(before)) });
            put(&*destination, &wish(&all, &[]), rule).expect("put");
            counted.lock().expect("counts").clear();
            assert!(put(&*destination, &wish(&[("dag_7", 2)], &[]), rule).expect("put").0.changed);
            let counts = counted.lock().expect("counts").clone();
            for what in ["read", "write", "flush", "rename", "touch", "remove"] {
                let count = counts.get(what).copied().unwrap_or_default();
                assert!(count <= 16, "{kind:?}, {rule:?}: {count} × {what}");
            }
        }
    }
}

#[test]
fn earlier_plans_of_the_loader_are_left_over() {
    for kind in [Kind::Folder, Kind::Git] {
        let place = Place::new(kind);
        put(&*place.open(&Steps::default()), &wish(&[("a", 1), ("b", 1)], &[]), LOADER).expect("put");
        put(&*place.open(&Steps::default()), &wish(&[("a", 2)], &["b"]), LOADER).expect("put");
        let names: BTreeSet<_> =
            place.open(&Steps::default()).leftovers().expect("leftovers").into_iter().map(|it| it.name).collect();
        let wanted = ["a", "b"].map(|dag_id| dagwright_compiler::plan_file_name(dag_id, &plan(dag_id, 1).hash()));
        assert_eq!(names, wanted.into());
    }
}
