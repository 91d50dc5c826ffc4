//! Everything that can go wrong with the private PostgreSQL, as sentences a user can act upon.
//!
//! Each sentence is complete: it holds its cause, so printing the error alone says all.
//! No recovery is decided here.

use std::io;
use std::path::{Path, PathBuf};

use super::find::OLDEST_MAJOR;

/// Why the private PostgreSQL could not be started. Each variant's sentence says what its fields are.
#[expect(missing_docs, reason = "the sentences are the documentation")]
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(
        "there is no folder for the data, as neither XDG_DATA_HOME nor HOME is an absolute path: \
         choose one with --data-dir, or set DATABASE_URL"
    )]
    NoDataFolder,

    #[error(
        "the data folder {} is in use by another rapport: stop that one, \
         or choose another folder with --data-dir", .folder.display()
    )]
    FolderInUse { folder: PathBuf },

    #[error("cannot {action} {}: {cause}", .path.display())]
    Files { action: &'static str, path: PathBuf, cause: io::Error },

    #[error(
        "PostgreSQL refuses to run as root, and /etc/passwd knows neither postgres nor nobody to run it as: \
         create one (`useradd --system postgres`), run rapport as a plain user, or set DATABASE_URL"
    )]
    NoAccount,

    #[error(
        "PostgreSQL refuses to run as root and would run as {account}, who cannot enter {} on the way to {}: \
         choose another folder with --data-dir (for example /var/lib/rapport), or let others pass (`chmod o+x {}`)",
        .blocking.display(), .folder.display(), .blocking.display()
    )]
    FolderBlocked { account: String, blocking: PathBuf, folder: PathBuf },

    #[error(
        "{} belongs to the user with id {owner}: run rapport as that user or as root, \
         or choose another folder with --data-dir", .cluster.display()
    )]
    ForeignCluster { cluster: PathBuf, owner: u32 },

    #[error("the folder {} given for PostgreSQL's programs is of no use: {reason}", .folder.display())]
    BadProgramFolder { folder: PathBuf, reason: String },

    #[error(
        "the folder {} given for PostgreSQL's programs holds version {found}, older than {OLDEST_MAJOR}: \
         name a newer one", .folder.display()
    )]
    TooOld { folder: PathBuf, found: u32 },

    #[error(
        "the data in {} was made by PostgreSQL {wanted}, but the folder {} given for PostgreSQL's programs \
         holds version {found}: name one of version {wanted}, or choose another data folder with --data-dir",
        .cluster.display(), .folder.display()
    )]
    OtherVersion { cluster: PathBuf, wanted: u32, folder: PathBuf, found: u32 },

    #[error(
        "the data in {} was made by PostgreSQL {wanted}, which is not found on this machine: install it \
         (`apt-get install postgresql-{wanted}` or `brew install postgresql@{wanted}`), \
         or choose another folder with --data-dir", .cluster.display()
    )]
    VersionMissing { cluster: PathBuf, wanted: u32 },

    #[error(
        "PostgreSQL is not found on this machine and could not be fetched ({reason}): install it \
         (`apt-get install postgresql` or `brew install postgresql@18`), \
         or install pip for Python 3 so that it can be fetched, or set DATABASE_URL"
    )]
    NoPostgres { reason: String },

    #[error("{program} failed: {output}")]
    ProgramFailed { program: String, output: String },

    #[error(
        "the folder for PostgreSQL's socket, {}, is not a folder of ours: remove it, \
         or choose a data folder with a shorter path with --data-dir", .folder.display()
    )]
    SocketFolderRefused { folder: PathBuf },

    #[error("PostgreSQL did not start; the end of {} says: {lines}", .log.display())]
    NotStarted { log: PathBuf, lines: String },

    #[error("PostgreSQL was not ready within {seconds} s; the end of {} says: {lines}", .log.display())]
    NotReady { seconds: u64, log: PathBuf, lines: String },

    #[error(
        "a PostgreSQL left over by an earlier rapport (process {pid}) still runs on {} and does not stop: \
         end it (`kill -QUIT {pid}`) and try again", .cluster.display()
    )]
    LeftoverStays { pid: u32, cluster: PathBuf },
}

/// Names what was being done to which path when the system refused.
pub(super) fn cannot<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> EmbeddedError + use<'a> {
    move |cause| EmbeddedError::Files { action, path: path.to_owned(), cause }
}
