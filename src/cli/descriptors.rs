//! `rapport descriptors`: the contract as programs such as Envoy read it.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
};

use clap::Args;

use crate::rpc::pb::DESCRIPTORS;

use super::{Failure, Finished};

#[derive(Args, Debug)]
#[command(
    after_help = "The result is an encoded google.protobuf.FileDescriptorSet: the API of this version of the program, all \
                  that it imports, and the details of its errors. Envoy's filter grpc_json_transcoder reads it, and grpcurl \
                  does with -protoset."
)]
pub(super) struct Arguments {
    /// Write into this file instead of to standard output
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> Result<Finished, Failure> {
    match &arguments.output {
        Some(path) => {
            fs::write(path, DESCRIPTORS).map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        }
        None if io::stdout().is_terminal() => {
            return Err("the result is binary: redirect standard output into a file, or name a file by --output".into());
        }
        None => write()?,
    }
    Ok(Finished::Well)
}

fn write() -> Result<(), Failure> {
    let mut out = io::stdout();
    let written = out.write_all(DESCRIPTORS).and_then(|()| out.flush());
    written.map_err(|error| format!("cannot write the result: {error}").into())
}
