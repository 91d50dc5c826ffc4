//! Everything that can go wrong with the private PostgreSQL, as sentences a user can act upon.
//!
//! Each sentence is complete: it holds its cause, so printing the error alone says all.
//! No recovery is decided here.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::account;
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
        "the data folder {} holds no data of a Rapport server: name the folder of one with --data-dir, or set DATABASE_URL; \
         `rapport serve` makes a new one", .folder.display()
    )]
    NoData { folder: PathBuf },

    #[error(
        "the data folder {} is in use by another rapport: stop that one, \
         or choose another folder with --data-dir", .folder.display()
    )]
    FolderInUse { folder: PathBuf },

    #[error("cannot {action} {}: {cause}{remedy}", .path.display())]
    Files { action: &'static str, path: PathBuf, cause: io::Error, remedy: String },

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
        "{} belongs to {owner}: run rapport as that user or as root, \
         or choose another folder with --data-dir", .cluster.display()
    )]
    ForeignCluster { cluster: PathBuf, owner: String },

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

/// Names what was being done to which path of the data folder when the system refused, and what helps.
pub(super) fn cannot<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> EmbeddedError + use<'a> {
    move |cause| EmbeddedError::Files { action, path: path.to_owned(), remedy: remedy(path, &cause), cause }
}

/// Likewise, of what is not in the data folder.
pub(super) fn cannot_run(program: &Path) -> impl FnOnce(io::Error) -> EmbeddedError + use<'_> {
    move |cause| EmbeddedError::Files { action: "run", path: program.to_owned(), cause, remedy: String::new() }
}

/// What helps when the system refuses a path of the data folder; begins with its own punctuation.
fn remedy(path: &Path, cause: &io::Error) -> String {
    let what_helps = match cause.kind() {
        io::ErrorKind::PermissionDenied => barred(path),
        io::ErrorKind::ReadOnlyFilesystem => Some("its file system is read-only: ".to_owned()),
        io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => {
            Some("there is a file in its place: ".to_owned())
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some("make room there, or ".to_owned()),
        io::ErrorKind::NotFound => Some(String::new()),
        _ => return String::new(),
    };
    what_helps.map(|words| format!("; {words}choose another folder with --data-dir")).unwrap_or_default()
}

/// Whose the nearest thing on the way to a path is that can be looked at, and so who may let this user in.
fn barred(path: &Path) -> Option<String> {
    let (place, owner) = path.ancestors().find_map(|step| Some((step, fs::symlink_metadata(step).ok()?)))?;
    let (place, is_ours) = (place.display(), owner.uid() == rustix::process::geteuid().as_raw());
    Some(if is_ours {
        format!("{place} is closed to its owner (`chmod u+rwx {place}` opens it): open it, or ")
    } else {
        format!("{place} belongs to {}: run rapport as that user, or ", account::described(owner.uid()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(path: &Path, kind: io::ErrorKind) -> String {
        cannot("open", path)(kind.into()).to_string()
    }

    #[test]
    fn a_path_that_is_refused_is_told_with_whose_it_is_and_what_helps() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, end) = (folder.path().display(), "choose another folder with --data-dir");
        let lock = folder.path().join("none/lock");
        let expected = format!(
            "cannot open {0}: permission denied; {ours} is closed to its owner (`chmod u+rwx {ours}` opens it): open it, or {end}",
            lock.display()
        );
        assert_eq!(told(&lock, io::ErrorKind::PermissionDenied), expected);
        for (kind, words) in [
            (io::ErrorKind::ReadOnlyFilesystem, "its file system is read-only: "),
            (io::ErrorKind::AlreadyExists, "there is a file in its place: "),
            (io::ErrorKind::StorageFull, "make room there, or "),
            (io::ErrorKind::NotFound, ""),
        ] {
            let told = told(&lock, kind);
            assert!(told.ends_with(&format!("; {words}{end}")), "{told}");
        }
        let others = told(Path::new("/proc/1/rapport"), io::ErrorKind::PermissionDenied);
        let is_root = rustix::process::geteuid().is_root();
        assert!(
            is_root || others.contains("/proc/1 belongs to root (user id 0): run rapport as that user, or "),
            "{others}"
        );
        let run = cannot_run(Path::new("/bin/none"))(io::ErrorKind::PermissionDenied.into()).to_string();
        assert_eq!(run, "cannot run /bin/none: permission denied");
    }
}
