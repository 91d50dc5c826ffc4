//! The folder of PostgreSQL's only way in, a unix socket: where it is, that it is ours, its address.
//!
//! Who may enter it is the whole access control: the server itself trusts whoever connects.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::account::RunAs;
use super::error::{EmbeddedError, cannot};
use super::folder::{DataFolder, make_folder_for};

/// The role and the database every cluster has.
pub(super) const NAME: &str = "rapport";
/// Only part of the socket's name: no port is opened.
pub(super) const PORT: &str = "5432";
/// macOS takes 103 bytes, Linux 107.
const LONGEST_ADDRESS: usize = 99;
/// Not TMPDIR: a restart must find the same folder, and its path must be short.
const SHORT_PLACE: &str = "/tmp";

/// A folder that holds the socket and nothing else.
#[derive(Debug, Clone)]
pub(super) struct SocketFolder {
    path: PathBuf,
    is_outside: bool,
}

impl SocketFolder {
    /// In the data folder, or under /tmp when its path is too long for a socket's address.
    pub(super) fn choose(data: &DataFolder) -> Self {
        let path = data.path().join("socket");
        if is_addressable(&path) {
            return Self { path, is_outside: false };
        }
        let uid = rustix::process::geteuid().as_raw();
        let mark = stable_hash(data.path().as_os_str().as_bytes());
        Self { path: Path::new(SHORT_PLACE).join(format!("rapport-{uid}-{mark:016x}")), is_outside: true }
    }

    /// Makes the folder, for the user PostgreSQL runs as and nobody else.
    pub(super) fn make(&self, run_as: &RunAs) -> Result<(), EmbeddedError> {
        match fs::symlink_metadata(&self.path) {
            Ok(found) if !found.is_dir() || !is_ours(&found, run_as) => {
                return Err(EmbeddedError::SocketFolderRefused { folder: self.path.clone() });
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cannot("look at", &self.path)(error)),
            _ => {}
        }
        make_folder_for(&self.path, run_as)
    }

    /// Leaves nothing behind outside the data folder. A folder that is not empty stays.
    pub(super) fn tidy(&self) {
        if self.is_outside
            && let Err(error) = fs::remove_dir(&self.path)
        {
            tracing::debug!(folder = %self.path.display(), %error, "the socket's folder stays");
        }
    }

    /// The setting `unix_socket_directories`, a list with commas: quoted, this path is one item of it.
    pub(super) fn setting(&self) -> String {
        format!("\"{}\"", self.path.to_string_lossy().replace('"', "\"\""))
    }

    /// Says all that the environment (`PGPORT`, `PGSSLMODE`) could otherwise change.
    pub(super) fn url(&self) -> String {
        let host = percent_encode(self.path.as_os_str().as_bytes());
        format!("postgresql://{NAME}@localhost:{PORT}/{NAME}?host={host}&sslmode=disable")
    }
}

/// The path must be short, and UTF-8 for the URL.
fn is_addressable(folder: &Path) -> bool {
    let address = folder.join(format!(".s.PGSQL.{PORT}"));
    address.to_str().is_some_and(|address| address.len() <= LONGEST_ADDRESS)
}

/// Root makes the folder before it gives it away: killed in between, it is still root's.
fn is_ours(folder: &fs::Metadata, run_as: &RunAs) -> bool {
    [run_as.uid(), rustix::process::geteuid().as_raw()].contains(&folder.uid())
}

/// FNV-1a, 64 bits: the same in every release, unlike std's hasher.
fn stable_hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn percent_encode(bytes: &[u8]) -> String {
    let encode = |byte: &u8| match char::from(*byte) {
        plain if plain.is_ascii_alphanumeric() || "-._~".contains(plain) => plain.to_string(),
        _ => format!("%{byte:02X}"),
    };
    bytes.iter().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(stable_hash(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(stable_hash(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn the_url_says_where_and_who() {
        let socket = SocketFolder { path: "/a b/é".into(), is_outside: false };
        assert_eq!(socket.url(), "postgresql://rapport@localhost:5432/rapport?host=%2Fa%20b%2F%C3%A9&sslmode=disable");
    }

    #[test]
    fn a_link_or_a_file_in_the_place_of_the_folder_is_refused() {
        let root = tempfile::tempdir().unwrap();
        for (name, make) in [("link", true), ("file", false)] {
            let path = root.path().join(name);
            if make {
                std::os::unix::fs::symlink(root.path(), &path).unwrap();
            } else {
                fs::write(&path, "").unwrap();
            }
            let socket = SocketFolder { path, is_outside: true };
            let error = socket.make(&RunAs::ourselves()).unwrap_err();
            assert!(matches!(error, EmbeddedError::SocketFolderRefused { .. }), "{error}");
        }
    }

    #[test]
    fn the_longest_address_is_kept() {
        assert!(is_addressable(Path::new(&format!("/{}", "a".repeat(84)))));
        assert!(!is_addressable(Path::new(&format!("/{}", "a".repeat(85)))));
    }
}
