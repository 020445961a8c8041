//! Goldens: `tests/golden/<target>` is a DAG folder in layout `file`; `tests/golden/loader` has what layout `loader` has beside
//! the same plan files. `UPDATE_GOLDEN=1 cargo test -p dagwright-compiler` writes it anew.
//!
//! `tests/tests/airflow.rs` imports both folders into real Airflows.

use std::{collections::BTreeMap, fs, path::Path};

use dagwright_compiler::{INDEX_FILE, LOADER_FILE, Layout, Target, compile, compile_for, loader_files, plan_file_name};

use crate::plans;

/// Compares a folder of goldens with what it should hold, or writes it anew.
#[track_caller]
fn check(folder: &str, wanted: &BTreeMap<String, Vec<u8>>) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        for (name, bytes) in wanted {
            fs::write(path.join(name), bytes).unwrap();
        }
    }
    let found: BTreeMap<String, Vec<u8>> = fs::read_dir(&path)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect();
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&found), names(wanted), "{folder}: UPDATE_GOLDEN=1 writes the files anew");
    for (name, bytes) in wanted {
        let (found, wanted) = (String::from_utf8_lossy(&found[name]), String::from_utf8_lossy(bytes));
        assert!(found == wanted, "{folder}/{name} differs; UPDATE_GOLDEN=1 writes it anew\n{wanted}");
    }
}

fn deployed() -> BTreeMap<String, String> {
    plans::all().iter().map(|plan| (plan.dag_id.clone(), plan_file_name(&plan.dag_id, &plan.hash()))).collect()
}

#[test]
fn dags_are_as_reviewed() {
    for target in Target::ALL {
        let artifacts = plans::all().into_iter().flat_map(|plan| compile(&plan, *target));
        check(&target.to_string(), &artifacts.map(|artifact| (artifact.name, artifact.bytes)).collect());
    }
}

#[test]
fn the_loader_and_its_index_are_as_reviewed() {
    let artifacts = loader_files(&deployed());
    check("loader", &artifacts.into_iter().map(|artifact| (artifact.name, artifact.bytes)).collect());
}

#[test]
fn layout_loader_has_the_plan_files_of_layout_file_and_an_index_of_them() {
    let [loader, index] = loader_files(&deployed());
    assert_eq!((loader.name.as_str(), index.name.as_str()), (LOADER_FILE, INDEX_FILE));
    let index: serde_json::Value = serde_json::from_slice(&index.bytes).unwrap();
    assert_eq!(index["dags"].as_object().unwrap().len(), plans::all().len());
    for plan in plans::all() {
        for target in Target::ALL {
            let [plan_file] = compile_for(&plan, *target, Layout::Loader).try_into().unwrap();
            assert_eq!(compile_for(&plan, *target, Layout::File), compile(&plan, *target));
            assert_eq!(Some(&plan_file), compile(&plan, *target).last());
            assert_eq!(index["dags"][&plan.dag_id], plan_file.name);
            assert_eq!(plan_file_name(&plan.dag_id, &plan.hash()), plan_file.name);
        }
    }
    let [_, empty] = loader_files(&BTreeMap::new());
    assert_eq!(String::from_utf8(empty.bytes).unwrap(), "{\n  \"dags\": {},\n  \"version\": 1\n}\n");
}

#[test]
fn layouts_are_named() {
    for layout in Layout::ALL {
        assert_eq!(layout.to_string().parse(), Ok(*layout));
    }
    assert_eq!(Layout::default().to_string(), "file");
    assert!("files".parse::<Layout>().is_err());
}

#[test]
fn the_same_plan_gives_the_same_bytes() {
    for plan in plans::all() {
        let read: dagwright_model::plan::Plan = serde_json::from_slice(&serde_json::to_vec(&plan).unwrap()).unwrap();
        for target in Target::ALL {
            assert_eq!(compile(&plan, *target), compile(&read, *target));
        }
    }
}

#[test]
fn a_plan_file_holds_the_plan_and_its_hash() {
    for plan in plans::all() {
        let [dag_file, plan_file] = compile(&plan, Target::Airflow3).try_into().unwrap();
        let document: serde_json::Value = serde_json::from_slice(&plan_file.bytes).unwrap();
        // What makes the DAG comes first: the loader reads no further.
        assert!(plan_file.bytes.starts_with(b"{\n  \"dag\": {\n"));
        assert_eq!(document["dag"]["dag_id"], plan.dag_id);
        assert_eq!(document["hash"], plan.hash().0);
        let read: dagwright_model::plan::Plan = serde_json::from_value(document["plan"].clone()).unwrap();
        assert_eq!(read, plan);
        assert_eq!(plan_file.name, format!("{}.{}.plan.json", plan.dag_id, plan.hash().short()));
        let dag = String::from_utf8(dag_file.bytes).unwrap();
        assert!(dag.contains(&format!("PLAN = \"{}\"\n", plan_file.name)), "{dag}");
    }
}
