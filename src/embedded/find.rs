//! Finding PostgreSQL's programs: which folders may hold them, which one is taken.
//!
//! Fetching them when there are none is in `fetch`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::process::Command;

use super::account::RunAs;
use super::error::EmbeddedError;
use super::program::{last_words, postgres_command, run};

/// The oldest major version Rapport works on.
pub(super) const OLDEST_MAJOR: u32 = 15;
/// The newest major version Rapport was tested on.
const NEWEST_MAJOR: u32 = 18;
const PROGRAMS: [&str; 2] = ["initdb", "postgres"];
const ASKING_LIMIT: Duration = Duration::from_secs(10);

/// A folder with working `initdb` and `postgres`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Programs {
    pub(super) folder: PathBuf,
    pub(super) major: u32,
}

/// Folders named by a pattern: `<parent>/<prefix>*/<below>`.
#[derive(Debug)]
pub(super) struct Pattern {
    pub(super) parent: PathBuf,
    pub(super) prefix: &'static str,
    pub(super) below: &'static str,
}

/// Where PostgreSQL is looked for, the first place first. A test gives its own.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The program to ask, with `--bindir`.
    pg_config: Option<PathBuf>,
    patterns: Vec<Pattern>,
}

/// The order of preference among found versions: the greatest is taken.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Preference {
    /// Newer than any tested: the oldest of these is the nearest to what was tested.
    Untested(std::cmp::Reverse<u32>),
    Tested(u32),
}

impl Places {
    /// The folders of Debian, Homebrew and PostgreSQL's own RPM packages.
    pub(super) fn of_system() -> Self {
        let pattern = |parent: &str, prefix| Pattern { parent: parent.into(), prefix, below: "bin" };
        Self {
            pg_config: Some("pg_config".into()),
            patterns: vec![
                pattern("/usr/lib/postgresql", ""),
                pattern("/opt/homebrew/opt", "postgresql"),
                pattern("/usr/local/opt", "postgresql"),
                pattern("/home/linuxbrew/.linuxbrew/opt", "postgresql"),
                pattern("/usr", "pgsql-"),
            ],
        }
    }

    /// Looks there as well, last.
    pub(super) fn and(mut self, pattern: Pattern) -> Self {
        self.patterns.push(pattern);
        self
    }

    async fn folders(&self) -> Vec<PathBuf> {
        let mut folders = Vec::new();
        if let Some(program) = &self.pg_config {
            folders.extend(configured_folder(program).await);
        }
        for folder in self.patterns.iter().flat_map(Pattern::folders) {
            if !folders.contains(&folder) {
                folders.push(folder);
            }
        }
        folders
    }
}

impl Pattern {
    fn folders(&self) -> Vec<PathBuf> {
        let mut folders: Vec<PathBuf> = fs::read_dir(&self.parent)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(self.prefix))
            .map(|entry| entry.path().join(self.below))
            .filter(|folder| folder.is_dir())
            .collect();
        folders.sort();
        folders
    }
}

/// The best programs among the places: of the version that made the cluster, if there is one, else
/// the newest tested version, else an untested newer one. Of two equals the first place wins.
pub(super) async fn search(places: &Places, cluster_major: Option<u32>, run_as: &RunAs) -> Option<Programs> {
    let mut best: Option<Programs> = None;
    for folder in places.folders().await {
        let programs = match probe(&folder, run_as).await {
            Ok(programs) => programs,
            Err(reason) => {
                tracing::debug!(folder = %folder.display(), reason, "no PostgreSQL in this folder");
                continue;
            }
        };
        let better = best.as_ref().is_none_or(|best| preference(programs.major) > preference(best.major));
        if acceptable(programs.major, cluster_major) && better {
            best = Some(programs);
        }
    }
    best
}

/// The programs of the folder the user named, or what is wrong with it.
pub(super) async fn named(
    folder: &Path,
    cluster: &Path,
    cluster_major: Option<u32>,
    run_as: &RunAs,
) -> Result<Programs, EmbeddedError> {
    let programs = probe(folder, run_as)
        .await
        .map_err(|reason| EmbeddedError::BadProgramFolder { folder: folder.to_owned(), reason })?;
    let (found, folder) = (programs.major, folder.to_owned());
    match cluster_major {
        Some(wanted) if wanted != found => {
            Err(EmbeddedError::OtherVersion { cluster: cluster.to_owned(), wanted, folder, found })
        }
        None if found < OLDEST_MAJOR => Err(EmbeddedError::TooOld { folder, found }),
        _ => Ok(programs),
    }
}

/// Says so when a version is used that Rapport was not tested on.
pub(super) fn warn_if_untested(programs: &Programs) {
    if programs.major > NEWEST_MAJOR {
        tracing::warn!(
            folder = %programs.folder.display(),
            "PostgreSQL {} is newer than any Rapport was tested on ({OLDEST_MAJOR} to {NEWEST_MAJOR})", programs.major
        );
    }
}

fn acceptable(major: u32, cluster_major: Option<u32>) -> bool {
    cluster_major.map_or(major >= OLDEST_MAJOR, |wanted| major == wanted)
}

fn preference(major: u32) -> Preference {
    if major > NEWEST_MAJOR { Preference::Untested(std::cmp::Reverse(major)) } else { Preference::Tested(major) }
}

/// Checks that `folder` holds both programs and that the user who shall run them can.
pub(super) async fn probe(folder: &Path, run_as: &RunAs) -> Result<Programs, String> {
    for program in PROGRAMS {
        if !is_executable(&folder.join(program)) {
            return Err(format!("it holds no program {program}"));
        }
    }
    let mut command = postgres_command(folder.join("postgres"), run_as);
    command.arg("--version");
    let unfit = |reason| format!("{} cannot run the postgres in it ({reason})", run_as.name());
    let output = run(command, run_as, b"", ASKING_LIMIT).await.map_err(|error| unfit(error.to_string()))?;
    if !output.status.success() {
        return Err(unfit(last_words(&output)));
    }
    let answer = String::from_utf8_lossy(&output.stdout);
    let major = parse_version(&answer).ok_or_else(|| format!("its postgres gives no version but {answer:?}"))?;
    Ok(Programs { folder: folder.to_owned(), major })
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// From `postgres (PostgreSQL) 15.13 (Debian …)`, `… 19beta1` or `… 18devel`.
fn parse_version(answer: &str) -> Option<u32> {
    let number = answer.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    number.split(|digit: char| !digit.is_ascii_digit()).next()?.parse().ok()
}

async fn configured_folder(pg_config: &Path) -> Option<PathBuf> {
    let mut command = Command::new(pg_config);
    command.arg("--bindir");
    let output = run(command, &RunAs::ourselves(), b"", ASKING_LIMIT).await.ok()?;
    let folder = PathBuf::from(String::from_utf8_lossy(&output.stdout).trim());
    (output.status.success() && folder.is_absolute()).then_some(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The shell writes the scripts: a file this process held open for writing while another test
    /// forks could not be run ("text file busy").
    fn script(path: &Path, line: &str) {
        let write = "mkdir -p \"$(dirname \"$0\")\"; printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$0\"; chmod 755 \"$0\"";
        let status = std::process::Command::new("sh").arg("-c").arg(write).arg(path).arg(line).status().unwrap();
        assert!(status.success());
    }

    fn install(folder: &Path, version: &str) {
        script(&folder.join("initdb"), "");
        script(&folder.join("postgres"), &format!("echo 'postgres (PostgreSQL) {version} (Test 1.2)'"));
    }

    fn places(root: &Path) -> Places {
        Places::default().and(Pattern { parent: root.to_owned(), prefix: "", below: "bin" })
    }

    async fn chosen(places: &Places, cluster_major: Option<u32>) -> Option<u32> {
        search(places, cluster_major, &RunAs::ourselves()).await.map(|programs| programs.major)
    }

    #[tokio::test]
    async fn the_newest_tested_version_is_taken() {
        let root = tempfile::tempdir().unwrap();
        for version in ["14.2", "15.13", "17.1", "19beta1", "20devel"] {
            install(&root.path().join(version).join("bin"), version);
        }
        assert_eq!(chosen(&places(root.path()), None).await, Some(17));
    }

    #[tokio::test]
    async fn the_nearest_untested_version_serves_where_there_is_no_other() {
        let root = tempfile::tempdir().unwrap();
        for version in ["14.2", "20devel", "19beta1"] {
            install(&root.path().join(version).join("bin"), version);
        }
        assert_eq!(chosen(&places(root.path()), None).await, Some(19));
    }

    #[tokio::test]
    async fn the_cluster_decides_the_version() {
        let root = tempfile::tempdir().unwrap();
        install(&root.path().join("16/bin"), "16.9");
        install(&root.path().join("18/bin"), "18.0");
        assert_eq!(chosen(&places(root.path()), Some(16)).await, Some(16));
        assert_eq!(chosen(&places(root.path()), Some(17)).await, None);
    }

    #[tokio::test]
    async fn pg_config_is_asked_first() {
        let root = tempfile::tempdir().unwrap();
        let configured = root.path().join("configured");
        install(&configured, "16.1");
        install(&root.path().join("other/16/bin"), "16.2");
        let pg_config = root.path().join("pg_config");
        script(&pg_config, &format!("echo '{}'", configured.display()));
        let places = Places { pg_config: Some(pg_config), ..places(&root.path().join("other")) };
        let found = search(&places, None, &RunAs::ourselves()).await.unwrap();
        assert_eq!(found.folder, configured);
    }

    #[tokio::test]
    async fn folders_that_hold_too_little_are_passed_over() {
        let root = tempfile::tempdir().unwrap();
        script(&root.path().join("a/bin/postgres"), "echo 'postgres (PostgreSQL) 18.1'");
        script(&root.path().join("b/bin/postgres"), "exit 1");
        script(&root.path().join("b/bin/initdb"), "");
        fs::create_dir_all(root.path().join("c/bin")).unwrap();
        let places = Places { pg_config: Some(root.path().join("missing")), ..places(root.path()) };
        assert_eq!(chosen(&places, None).await, None);
    }

    #[tokio::test]
    async fn a_named_folder_is_judged_aloud() {
        let root = tempfile::tempdir().unwrap();
        let (folder, cluster) = (root.path().join("bin"), root.path().join("cluster"));
        let ourselves = RunAs::ourselves();
        let error = named(&folder, &cluster, None, &ourselves).await.unwrap_err();
        assert!(error.to_string().contains(folder.to_str().unwrap()), "{error}");
        install(&folder, "14.1");
        let error = named(&folder, &cluster, None, &ourselves).await.unwrap_err();
        assert!(matches!(error, EmbeddedError::TooOld { found: 14, .. }));
        let error = named(&folder, &cluster, Some(15), &ourselves).await.unwrap_err();
        assert!(matches!(error, EmbeddedError::OtherVersion { wanted: 15, found: 14, .. }));
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_version("postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)"), Some(15));
        assert_eq!(parse_version("postgres (PostgreSQL) 19beta1"), Some(19));
        assert_eq!(parse_version("postgres"), None);
    }
}
