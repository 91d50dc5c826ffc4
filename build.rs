//! Compiles the wire contract, without protoc, into Rust and into the descriptor set that reflection serves.
use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

#[expect(clippy::disallowed_methods, reason = "cargo tells build scripts their folder through the environment")]
fn main() -> Result<(), Box<dyn Error>> {
    // Naming any path means naming all: without the second line new migrations would not be embedded.
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=src/store/migrations");
    let descriptors = protox::compile(
        ["rapport/v1/relationship_service.proto", "rapport/v1/policy_service.proto", "rapport/v1/error_reason.proto"],
        ["proto", "proto/vendor"],
    )?;
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("rapport.binpb"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .compile_fds(descriptors)?;
    Ok(())
}
