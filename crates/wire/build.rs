//! Generates the protobuf types from `/proto`; protox stands in for protoc, so nothing must be installed.

use std::{error::Error, path::Path};

const FILES: [&str; 4] = ["common.proto", "task.proto", "negotiation.proto", "ledger.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto");
    println!("cargo::rerun-if-changed={}", root.display());
    let descriptors = protox::compile(FILES.map(|file| root.join("dagwright/v1").join(file)), [&root])?;
    // Ordered maps make the encoding of a value unique.
    prost_build::Config::new().btree_map(["."]).compile_fds(descriptors)?;
    Ok(())
}
