//! Generates the protobuf types from `/proto`; protox stands in for protoc, so nothing must be installed.

use std::{env, error::Error, path::PathBuf};

const FILES: [&str; 6] = [
    "dagwright/v1/common.proto",
    "dagwright/v1/task.proto",
    "dagwright/v1/negotiation.proto",
    "dagwright/v1/ledger.proto",
    "dagwright/v1/request.proto",
    "io/cloudevents/v1/cloudevents.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    // Asked when it runs: a build folder may outlive the checkout that this script was compiled in.
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(FILES.map(|file| root.join(file)), [&root])?;
    // Ordered maps make the encoding of a value unique.
    prost_build::Config::new().btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
