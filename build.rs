//! Compiles the wire contract, without protoc, into Rust and into the descriptor set that reflection serves.
use std::{env, error::Error, fs, path::PathBuf};

#[expect(clippy::disallowed_methods, reason = "cargo tells build scripts their folder through the environment")]
fn main() -> Result<(), Box<dyn Error>> {
    // Naming any path means naming all: without the second line new migrations would not be embedded.
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=src/store/migrations");
    let mut contract = protox::Compiler::new(["proto", "proto/vendor"])?;
    contract.include_imports(true).include_source_info(true).open_files([
        "rapport/v1/relationship_service.proto",
        "rapport/v1/policy_service.proto",
        "rapport/v1/error_reason.proto",
        // The details of errors are told as `Any`, so no other file imports them.
        "google/rpc/error_details.proto",
    ])?;
    // Encoded by the compiler, the set keeps options such as `google.api.http`, which prost's types have no room for.
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("rapport.binpb"), contract.encode_file_descriptor_set())?;
    // Options describe the API to other programs. No code here reads their types, so none is generated.
    let mut used = contract.file_descriptor_set();
    used.file.retain(|file| file.package() != "google.api");
    tonic_prost_build::configure().extern_path(".google.rpc", "::tonic_types::pb").compile_fds(used)?;
    Ok(())
}
