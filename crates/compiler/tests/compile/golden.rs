//! Goldens: `tests/golden/<target>` is a DAG folder. `UPDATE_GOLDEN=1 cargo test -p dagwright-compiler` writes it anew.
//!
//! `tests/tests/airflow.rs` imports both folders into real Airflows.

use std::{collections::BTreeMap, fs, path::Path};

use dagwright_compiler::{Target, compile};

use crate::plans;

#[test]
fn dags_are_as_reviewed() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for target in Target::ALL {
        let folder = root.join(target.to_string());
        let wanted: BTreeMap<String, Vec<u8>> = plans::all()
            .iter()
            .flat_map(|plan| compile(plan, *target))
            .map(|artifact| (artifact.name, artifact.bytes))
            .collect();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            let _ = fs::remove_dir_all(&folder);
            fs::create_dir_all(&folder).unwrap();
            for (name, bytes) in &wanted {
                fs::write(folder.join(name), bytes).unwrap();
            }
        }
        let found: BTreeMap<String, Vec<u8>> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().unwrap().is_file())
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
            .collect();
        let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&found), names(&wanted), "{target}: UPDATE_GOLDEN=1 writes the files anew");
        for (name, bytes) in &wanted {
            let (found, wanted) = (String::from_utf8_lossy(&found[name]), String::from_utf8_lossy(bytes));
            assert!(found == wanted, "{target}/{name} differs; UPDATE_GOLDEN=1 writes it anew\n{wanted}");
        }
    }
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
        assert_eq!(document["hash"], plan.hash().0);
        let read: dagwright_model::plan::Plan = serde_json::from_value(document["plan"].clone()).unwrap();
        assert_eq!(read, plan);
        assert_eq!(plan_file.name, format!("{}.{}.plan.json", plan.dag_id, plan.hash().short()));
        let dag = String::from_utf8(dag_file.bytes).unwrap();
        assert!(dag.contains(&format!("with_name(\"{}\")", plan_file.name)), "{dag}");
    }
}
