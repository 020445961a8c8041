//! Who may depend on whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
    sync::OnceLock,
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use dagwright_tests::repository;

use crate::assert_none;

/// What each crate may use of the others; the table in `docs/ARCHITECTURE.md`.
const EDGES: [(&str, &[&str]); 12] = [
    ("model", &[]),
    ("telemetry", &[]),
    ("wire", &["model"]),
    ("negotiation", &["model"]),
    ("compiler", &["model", "wire"]),
    ("airflow", &["model"]),
    ("store", &["model", "telemetry", "wire"]),
    ("bus", &["model", "telemetry", "wire"]),
    ("engine", &["model", "telemetry", "wire", "compiler", "airflow", "store"]),
    ("agents", &["model", "telemetry", "wire", "negotiation", "compiler", "airflow", "store", "bus", "engine"]),
    ("dataplane", &["model", "telemetry", "wire"]),
    (
        "daemon",
        &["model", "telemetry", "wire", "negotiation", "compiler", "airflow", "store", "bus", "engine", "agents"],
    ),
];

/// Libraries, by the start of their name, that only these crates may use directly.
const RESERVED: [(&str, &[&str]); 8] = [
    ("actix", &["agents", "daemon"]),
    ("rdkafka", &["bus"]),
    ("sled", &["store"]),
    ("arrow", &["dataplane"]),
    ("datafusion", &["dataplane"]),
    ("parquet", &["dataplane"]),
    ("object_store", &["dataplane"]),
    ("tokio-postgres", &["dataplane"]),
];

/// Crates that are pure functions over data.
const PURE: [&str; 3] = ["model", "negotiation", "compiler"];

/// Libraries, by the start of their name, that bring a runtime, randomness, or I/O.
const IMPURE: [&str; 17] = [
    "actix",
    "async-std",
    "crossbeam",
    "fastrand",
    "futures-executor",
    "getrandom",
    "hyper",
    "mio",
    "rand",
    "rayon",
    "reqwest",
    "rustix",
    "smol",
    "socket2",
    "tempfile",
    "tokio",
    "uuid",
];

/// Libraries that nothing may bring in. `deny.toml` has them too, and knows who alone may use `openssl-sys`.
const BANNED: [&str; 4] = ["async-std", "native-tls", "openssl", "serde_yaml"];

fn metadata() -> &'static Metadata {
    static METADATA: OnceLock<Metadata> = OnceLock::new();
    METADATA.get_or_init(|| {
        let manifest = repository().join("Cargo.toml");
        let locked = vec!["--locked".to_owned()];
        MetadataCommand::new().manifest_path(manifest).other_options(locked).exec().expect("cargo metadata")
    })
}

fn members() -> BTreeMap<String, &'static Package> {
    let members = metadata().workspace_packages().into_iter();
    members.map(|package| (package.name.trim_start_matches("dagwright-").to_owned(), package)).collect()
}

/// The packages that a member links, directly or not: neither what its tests nor what its build scripts use.
fn linked(id: &PackageId) -> BTreeSet<&'static str> {
    let resolve = metadata().resolve.as_ref().expect("a resolved graph");
    let nodes: BTreeMap<_, _> = resolve.nodes.iter().map(|node| (&node.id, node)).collect();
    let (mut seen, mut open) = (BTreeSet::new(), vec![id]);
    while let Some(id) = open.pop() {
        if !seen.insert(id) {
            continue;
        }
        let normal =
            nodes[id].deps.iter().filter(|dep| dep.dep_kinds.iter().any(|info| info.kind == DependencyKind::Normal));
        open.extend(normal.map(|dep| &dep.pkg));
    }
    let procedural =
        |package: &Package| package.targets.iter().all(|target| target.is_proc_macro() || target.is_custom_build());
    seen.iter()
        .map(|id| &metadata()[*id])
        .filter(|package| !procedural(package))
        .map(|package| package.name.as_str())
        .collect()
}

fn is_of(name: &str, family: &str) -> bool {
    name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

#[test]
fn crates_use_only_what_lies_below_them() {
    let mut findings = Vec::new();
    for (name, package) in members().iter().filter(|(name, _)| *name != "tests") {
        let Some((_, allowed)) = EDGES.iter().find(|(known, _)| known == name) else {
            findings.push(format!("{name} is not in the table of crates"));
            continue;
        };
        let own = package.dependencies.iter().filter(|dep| dep.kind != DependencyKind::Development);
        for dep in own.filter_map(|dep| dep.name.strip_prefix("dagwright-")).filter(|dep| !allowed.contains(dep)) {
            findings.push(format!("{name} uses {dep}"));
        }
    }
    assert_none("edges between crates that the architecture does not have", findings);
}

#[test]
fn crates_are_where_their_names_say() {
    let mut findings = Vec::new();
    for (name, package) in members() {
        let folder = package.manifest_path.parent().expect("a folder");
        let wanted = if name == "tests" { repository().join("tests") } else { repository().join("crates").join(&name) };
        if folder.canonicalize().ok() != wanted.canonicalize().ok() || !package.name.starts_with("dagwright-") {
            findings.push(format!("{} in {folder}", package.name));
        }
    }
    assert_none("crates that are not dagwright-<name> in crates/<name>", findings);
}

#[test]
fn libraries_with_a_place_stay_in_it() {
    let mut findings = Vec::new();
    for (name, package) in members() {
        let own = package.dependencies.iter().filter(|dep| dep.kind == DependencyKind::Normal);
        for dep in own {
            let reserved = RESERVED.iter().find(|(family, _)| is_of(&dep.name, family));
            if reserved.is_some_and(|(_, places)| !places.contains(&name.as_str())) {
                findings.push(format!("{name} uses {}", dep.name));
            }
        }
    }
    assert_none("libraries used outside their crate", findings);
}

#[test]
fn the_daemon_links_neither_datafusion_nor_arrow() {
    let daemon = members()["daemon"];
    let foreign = ["arrow", "datafusion", "parquet", "dagwright-dataplane"];
    let found = linked(&daemon.id).into_iter().filter(|name| foreign.iter().any(|family| is_of(name, family)));
    assert_none("the daemon's tree holds data-plane libraries", found.map(Into::into).collect());
}

#[test]
fn pure_crates_link_nothing_impure() {
    let mut findings = Vec::new();
    for name in PURE {
        let package = members()[name];
        let impure = linked(&package.id).into_iter().filter(|name| IMPURE.iter().any(|family| is_of(name, family)));
        findings.extend(impure.map(|library| format!("{name} links {library}")));
    }
    assert_none("impure libraries in pure crates", findings);
}

#[test]
fn banned_libraries_are_nowhere() {
    let found = metadata().packages.iter().map(|package| package.name.as_str());
    let found = found.filter(|name| BANNED.contains(name));
    assert_none("banned libraries", found.map(Into::into).collect());
    let arrows = metadata()
        .packages
        .iter()
        .filter(|package| matches!(package.name.as_str(), "arrow" | "datafusion" | "parquet"));
    let mut versions = BTreeMap::<&str, Vec<String>>::new();
    for package in arrows {
        versions.entry(package.name.as_str()).or_default().push(package.version.to_string());
    }
    let twice = versions.into_iter().filter(|(_, versions)| versions.len() > 1);
    assert_none("libraries in two versions", twice.map(|(name, versions)| format!("{name}: {versions:?}")).collect());
}

#[test]
fn members_take_versions_and_lints_from_the_workspace() {
    let mut findings = Vec::new();
    for (name, package) in members() {
        let manifest = std::fs::read_to_string(&package.manifest_path).expect("a readable manifest");
        if !manifest.contains("[lints]\nworkspace = true") {
            findings.push(format!("{name} does not inherit the lints, which forbid unsafe code"));
        }
        let mut in_dependencies = false;
        for line in manifest.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
            if line.starts_with('[') {
                in_dependencies = line.ends_with("dependencies]");
            } else if in_dependencies && line.contains('=') && !line.contains("workspace = true") {
                findings.push(format!("{name}: {line}"));
            }
        }
    }
    let root = std::fs::read_to_string(repository().join("Cargo.toml")).expect("a readable manifest");
    if !root.contains("unsafe_code = \"forbid\"") {
        findings.push("the workspace does not forbid unsafe code".into());
    }
    assert_none("manifests that do not follow the workspace", findings);
}

#[test]
fn the_lock_file_is_current() {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--locked", "--format-version", "1", "--no-deps"]).current_dir(repository());
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
