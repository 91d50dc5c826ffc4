//! `rapport keys`: keys for callers.

use clap::{Args, Subcommand};

use crate::access::Key;

use super::{Failure, Finished, print};

#[derive(Args, Debug)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Make a key: its entry for the access file goes to standard error, and the key, which is kept nowhere, to standard
    /// output
    New,
}

pub(super) fn run(arguments: &Arguments) -> Result<Finished, Failure> {
    let Command::New = arguments.command;
    let key = Key::new().ok_or("the system has no randomness to make a key of")?;
    print::progress(format_args!("for \"keys\" in the access file: {}", serde_json::to_string(&key.entry())?));
    print::line(key.as_str());
    Ok(Finished::Well)
}
