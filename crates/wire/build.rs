//! Generates the protobuf types from `/proto`; protox stands in for protoc, so nothing must be installed.

use std::{env, error::Error, path::PathBuf};

const FILES: [&str; 4] = ["common.proto", "task.proto", "negotiation.proto", "ledger.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    // Asked when it runs: a build folder may outlive the checkout that this script was compiled in.
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(FILES.map(|file| root.join("dagwright/v1").join(file)), [&root])?;
    // Ordered maps make the encoding of a value unique.
    prost_build::Config::new().btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
