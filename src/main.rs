//! The program `rapport`. What it can do is in the library's `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    rapport::cli::run()
}
