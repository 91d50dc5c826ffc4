//! Making the cluster: the files of the private PostgreSQL, with its one role and one database.
//!
//! Running a server on it is in `server`.

use std::fs;
use std::io;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use super::account::RunAs;
use super::error::{EmbeddedError, cannot};
use super::find::Programs;
use super::folder::{DataFolder, make_folder_for, remove_tree};
use super::program::{last_words, postgres_command, run};
use super::socket::NAME;

const LIMIT: Duration = Duration::from_mins(2);

/// The major version that made the cluster, if there is one.
pub(super) fn major(cluster: &Path) -> Result<Option<u32>, EmbeddedError> {
    let path = cluster.join("PG_VERSION");
    match fs::read_to_string(&path) {
        Ok(text) => {
            let unreadable =
                |_| cannot("understand", &path)(io::Error::new(io::ErrorKind::InvalidData, "it holds no version"));
            text.trim().parse().map(Some).map_err(unreadable)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot("read", &path)(error)),
    }
}

/// Makes the cluster aside and renames it when it is complete, so that it is whole or not there.
pub(super) async fn create(data: &DataFolder, programs: &Programs, run_as: &RunAs) -> Result<(), EmbeddedError> {
    let cluster = data.cluster();
    tracing::info!("making a PostgreSQL {} cluster in {}", programs.major, cluster.display());
    let partial = data.partial_cluster();
    remove_tree(&partial)?;
    make_folder_for(&partial, run_as)?;
    initialise(&partial, programs, run_as).await?;
    create_database(&partial, programs, run_as).await?;
    fs::rename(&partial, &cluster).map_err(cannot("rename", &partial))?;
    data.sync()
}

/// The locale is C so that the order of texts is the same on every machine and never changes.
async fn initialise(cluster: &Path, programs: &Programs, run_as: &RunAs) -> Result<(), EmbeddedError> {
    let mut command = postgres_command(programs.folder.join("initdb"), run_as);
    command.args(["--username", NAME, "--auth=trust", "--encoding=UTF8", "--locale=C"]);
    command.args(["--data-checksums", "--no-instructions", "--pgdata"]).arg(cluster);
    succeed("initdb", run(command, run_as, b"", LIMIT).await)
}

/// In single-user mode, which needs no client. `exit_on_error` makes a refused statement a failure.
async fn create_database(cluster: &Path, programs: &Programs, run_as: &RunAs) -> Result<(), EmbeddedError> {
    let mut command = postgres_command(programs.folder.join("postgres"), run_as);
    command.args(["--single", "-c", "exit_on_error=true", "-D"]).arg(cluster).arg("postgres");
    let statement = format!("CREATE DATABASE {NAME}\n");
    succeed("postgres --single", run(command, run_as, statement.as_bytes(), LIMIT).await)
}

fn succeed(program: &str, result: io::Result<Output>) -> Result<(), EmbeddedError> {
    let output = match result {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => last_words(&output),
        Err(error) => error.to_string(),
    };
    Err(EmbeddedError::ProgramFailed { program: program.to_owned(), output })
}
