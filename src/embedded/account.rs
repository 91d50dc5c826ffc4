//! Under which user PostgreSQL's programs run, and what that user may enter.
//!
//! They refuse root, so root hands them to another user; a plain user keeps them.
//! What the programs do lives elsewhere.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use tokio::process::Command;

use super::error::{EmbeddedError, cannot};

const PASSWD: &str = "/etc/passwd";
/// In the order they are tried.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];
const OWNER_ONLY: u32 = 0o700;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Account {
    name: String,
    uid: u32,
    gid: u32,
}

/// The user PostgreSQL's programs run as: ourselves, or a chosen account when we are root.
#[derive(Debug, Clone)]
pub(super) struct RunAs(Option<Account>);

impl RunAs {
    /// Our own user, whatever it is.
    pub(super) fn ourselves() -> Self {
        Self(None)
    }

    /// For root: the owner of the existing cluster (an account installed later must not lock us out
    /// of it), else `postgres`, else `nobody`. For others: themselves, who must own the cluster.
    pub(super) fn choose(cluster: &Path) -> Result<Self, EmbeddedError> {
        let owner = owner_of(cluster)?;
        let us = rustix::process::geteuid().as_raw();
        if us != 0 {
            return match owner {
                Some((owner, _)) if owner != us => {
                    Err(EmbeddedError::ForeignCluster { cluster: cluster.to_owned(), owner: described(owner) })
                }
                _ => Ok(Self::ourselves()),
            };
        }
        match owner {
            Some((uid, gid)) if uid != 0 => Ok(Self(Some(Account { name: format!("user id {uid}"), uid, gid }))),
            _ => {
                // Without the file there is nobody to choose.
                choose_account(&fs::read_to_string(PASSWD).unwrap_or_default())
                    .map(|account| Self(Some(account)))
                    .ok_or(EmbeddedError::NoAccount)
            }
        }
    }

    /// The user id the programs run under.
    pub(super) fn uid(&self) -> u32 {
        self.0.as_ref().map_or_else(|| rustix::process::geteuid().as_raw(), |account| account.uid)
    }

    /// A word for messages.
    pub(super) fn name(&self) -> &str {
        self.0.as_ref().map_or("this user", |account| &account.name)
    }

    /// Makes `command` run as this user; std also drops root's supplementary groups then.
    pub(super) fn apply(&self, command: &mut Command) {
        if let Some(account) = &self.0 {
            command.uid(account.uid).gid(account.gid);
        }
    }

    /// Makes the existing folder `path` this user's alone.
    pub(super) fn give(&self, path: &Path) -> Result<(), EmbeddedError> {
        fs::set_permissions(path, fs::Permissions::from_mode(OWNER_ONLY)).map_err(cannot("set the mode of", path))?;
        if let Some(account) = &self.0 {
            lchown(path, Some(account.uid), Some(account.gid)).map_err(cannot("change the owner of", path))?;
        }
        Ok(())
    }

    /// Fails, naming the folder in the way, when this user cannot enter `folder` (a canonical path).
    pub(super) fn check_entry(&self, folder: &Path) -> Result<(), EmbeddedError> {
        let Some(account) = &self.0 else { return Ok(()) };
        for step in folder.ancestors() {
            let metadata = fs::metadata(step).map_err(cannot("look at", step))?;
            if !account.may_enter(&metadata) {
                return Err(EmbeddedError::FolderBlocked {
                    account: account.name.clone(),
                    blocking: step.to_owned(),
                    folder: folder.to_owned(),
                });
            }
        }
        Ok(())
    }
}

impl Account {
    /// By mode bits only: the supplementary groups are dropped, access lists are not looked at.
    fn may_enter(&self, folder: &Metadata) -> bool {
        let bit = if folder.uid() == self.uid {
            0o100
        } else if folder.gid() == self.gid {
            0o010
        } else {
            0o001
        };
        folder.mode() & bit != 0
    }
}

fn owner_of(path: &Path) -> Result<Option<(u32, u32)>, EmbeddedError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some((metadata.uid(), metadata.gid()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(cannot("look at", path)(error)),
    }
}

/// A user as people know them: `postgres (user id 101)`.
pub(super) fn described(uid: u32) -> String {
    let passwd = fs::read_to_string(PASSWD).unwrap_or_default();
    let account = passwd.lines().filter_map(parse_account).find(|account| account.uid == uid);
    account.map_or_else(|| format!("user id {uid}"), |account| format!("{} (user id {uid})", account.name))
}

fn choose_account(passwd: &str) -> Option<Account> {
    let accounts: Vec<Account> = passwd.lines().filter_map(parse_account).collect();
    CANDIDATES
        .iter()
        .find_map(|name| accounts.iter().find(|account| account.name == *name && account.uid != 0))
        .cloned()
}

fn parse_account(line: &str) -> Option<Account> {
    let mut fields = line.split(':');
    let name = fields.next()?.to_owned();
    let uid = parse_id(fields.nth(1)?)?;
    let gid = parse_id(fields.next()?)?;
    Some(Account { name, uid, gid })
}

/// macOS writes nobody's id as -2.
fn parse_id(text: &str) -> Option<u32> {
    let id: i64 = text.parse().ok()?;
    u32::try_from(id).or_else(|_| u32::try_from(id + (1 << 32))).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: &str = "root:x:0:0:root:/root:/bin/sh\n# a comment\nnobody:x:65534:65533::/:/bin/false\n\
                        postgres:x:101:104:PostgreSQL:/var/lib/postgresql:/bin/bash\n";

    fn ids(passwd: &str) -> Option<(u32, u32)> {
        choose_account(passwd).map(|account| (account.uid, account.gid))
    }

    #[test]
    fn postgres_is_preferred_to_nobody() {
        assert_eq!(ids(BOTH), Some((101, 104)));
    }

    #[test]
    fn nobody_serves_where_postgres_is_unknown() {
        assert_eq!(
            ids("nobody:*:-2:-2:Unprivileged User:/var/empty:/usr/bin/false"),
            Some((4_294_967_294, 4_294_967_294))
        );
    }

    #[test]
    fn root_by_another_name_is_not_taken() {
        assert_eq!(ids("postgres:x:0:0::/:/bin/sh"), None);
        assert_eq!(ids(""), None);
    }

    #[test]
    fn a_closed_folder_on_the_way_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let closed = folder.path().canonicalize().unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(OWNER_ONLY)).unwrap();
        let inner = closed.join("inner");
        fs::create_dir(&inner).unwrap();
        let stranger = RunAs(Some(Account { name: "stranger".into(), uid: 4_000_000, gid: 4_000_000 }));
        let error = stranger.check_entry(&inner).unwrap_err();
        assert!(matches!(error, EmbeddedError::FolderBlocked { blocking, .. } if blocking == closed));
    }
}
