//! The data folder: where it is, what is in it, who owns it.
//!
//! What PostgreSQL keeps in its cluster is made in `cluster`.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::account::RunAs;
use super::error::{EmbeddedError, cannot};

const OF_ROOT: &str = "/var/lib/rapport";
const PARTIAL: &str = ".partial";
const CLUSTER: &str = "cluster";
/// What the folders of fetched programs begin with.
pub(super) const FETCHED_PREFIX: &str = "postgresql-";
/// The log is put aside at a start that finds it larger.
const LOG_LIMIT_BYTES: u64 = 16 * 1024 * 1024;

/// Where the data is kept unless the user says otherwise: `rapport` under the XDG data home, else
/// under `~/.local/share`. For root `/var/lib/rapport`, as PostgreSQL runs as another user then,
/// who cannot enter root's home. As the XDG specification asks, relative paths are passed over.
///
/// # Errors
/// [`EmbeddedError::NoDataFolder`] when there is neither folder.
pub fn default_data_dir(
    is_root: bool,
    xdg_data_home: Option<PathBuf>,
    home: Option<PathBuf>,
) -> Result<PathBuf, EmbeddedError> {
    let absolute = |path: &PathBuf| path.is_absolute();
    if let Some(data_home) = xdg_data_home.filter(absolute) {
        return Ok(data_home.join("rapport"));
    }
    if is_root {
        return Ok(OF_ROOT.into());
    }
    home.filter(absolute).map(|home| home.join(".local/share/rapport")).ok_or(EmbeddedError::NoDataFolder)
}

/// True where a data folder has a cluster, and where that cannot be told.
pub(super) fn holds_data(path: &Path) -> bool {
    path.join(CLUSTER).try_exists().unwrap_or(true)
}

/// The data folder, by its canonical path.
#[derive(Debug, Clone)]
pub(super) struct DataFolder(PathBuf);

/// Held as long as the folder is ours; the system lets go of it when we die.
#[derive(Debug)]
pub(super) struct FolderLock(#[expect(dead_code, reason = "held, not read")] File);

impl DataFolder {
    /// Makes the folder if need be. A new or empty one is closed to others, except that root lets
    /// them pass (not list), for PostgreSQL runs as one of them.
    pub(super) fn open(path: &Path) -> Result<Self, EmbeddedError> {
        let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(cannot("make the folder", parent))?;
        }
        make_folder(path, mode)?;
        let path = path.canonicalize().map_err(cannot("look at", path))?;
        let is_empty = fs::read_dir(&path).map_err(cannot("list", &path))?.next().is_none();
        if is_empty {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).map_err(cannot("set the mode of", &path))?;
        }
        Ok(Self(path))
    }

    /// Makes us the only owner of the folder, or fails at once.
    pub(super) fn lock(&self) -> Result<FolderLock, EmbeddedError> {
        let path = self.0.join("lock");
        let mut options = OpenOptions::new();
        let file =
            options.write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(cannot("open", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(FolderLock(file)),
            Err(TryLockError::WouldBlock) => Err(EmbeddedError::FolderInUse { folder: self.0.clone() }),
            Err(TryLockError::Error(error)) => Err(cannot("lock", &path)(error)),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn cluster(&self) -> PathBuf {
        self.0.join(CLUSTER)
    }

    pub(super) fn log(&self) -> PathBuf {
        self.0.join("postgresql.log")
    }

    /// Where the cluster is being made.
    pub(super) fn partial_cluster(&self) -> PathBuf {
        self.partial(CLUSTER)
    }

    /// Where `name` is being made before it is renamed to its own name.
    pub(super) fn partial(&self, name: &str) -> PathBuf {
        self.0.join(format!("{name}{PARTIAL}"))
    }

    /// Removes what a start killed in the middle left half-made.
    pub(super) fn remove_partials(&self) -> Result<(), EmbeddedError> {
        for entry in fs::read_dir(&self.0).map_err(cannot("list", &self.0))? {
            let entry = entry.map_err(cannot("list", &self.0))?;
            if is_partial_of_ours(&entry.file_name().to_string_lossy()) {
                remove_tree(&entry.path())?;
            }
        }
        Ok(())
    }

    /// Puts a log that has grown large aside, so that two of them at most are kept.
    pub(super) fn rotate_log(&self) -> Result<(), EmbeddedError> {
        let log = self.log();
        if fs::metadata(&log).is_ok_and(|metadata| metadata.len() > LOG_LIMIT_BYTES) {
            fs::rename(&log, self.0.join("postgresql.log.1")).map_err(cannot("rename", &log))?;
        }
        Ok(())
    }

    /// Makes renames in the folder survive a power cut.
    pub(super) fn sync(&self) -> Result<(), EmbeddedError> {
        File::open(&self.0).and_then(|folder| folder.sync_all()).map_err(cannot("sync", &self.0))
    }
}

/// The user may keep other things in the folder.
fn is_partial_of_ours(name: &str) -> bool {
    name.strip_suffix(PARTIAL).is_some_and(|whole| whole == CLUSTER || whole.starts_with(FETCHED_PREFIX))
}

/// Makes the folder unless it exists.
pub(super) fn make_folder(path: &Path, mode: u32) -> Result<(), EmbeddedError> {
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        result => result.map_err(cannot("make the folder", path)),
    }
}

/// Makes the folder, empty, for the user PostgreSQL runs as.
pub(super) fn make_folder_for(path: &Path, run_as: &RunAs) -> Result<(), EmbeddedError> {
    make_folder(path, 0o700)?;
    run_as.give(path)
}

/// Removes the folder and all in it, if it exists.
pub(super) fn remove_tree(path: &Path) -> Result<(), EmbeddedError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(cannot("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(is_root: bool, xdg: Option<&str>, home: Option<&str>) -> Option<PathBuf> {
        default_data_dir(is_root, xdg.map(PathBuf::from), home.map(PathBuf::from)).ok()
    }

    #[test]
    fn the_data_folder_follows_the_xdg_specification() {
        assert_eq!(chosen(false, Some("/data"), Some("/home/a")), Some("/data/rapport".into()));
        assert_eq!(chosen(false, Some(""), Some("/home/a")), Some("/home/a/.local/share/rapport".into()));
        assert_eq!(chosen(false, None, None), None);
    }

    #[test]
    fn root_keeps_its_data_where_others_can_enter() {
        assert_eq!(chosen(true, None, Some("/root")), Some("/var/lib/rapport".into()));
        assert_eq!(chosen(true, Some("/data"), Some("/root")), Some("/data/rapport".into()));
    }

    #[test]
    fn only_partials_of_ours_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let data = DataFolder::open(root.path()).unwrap();
        for name in ["cluster", "cluster.partial/base", "postgresql-18.6.3.partial", "film.partial"] {
            fs::create_dir_all(root.path().join(name)).unwrap();
        }
        data.remove_partials().unwrap();
        let mut left: Vec<_> = fs::read_dir(root.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["cluster", "film.partial"]);
    }
}
