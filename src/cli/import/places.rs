//! Keeping the files of an import apart: what it writes must not be what it reads, by whatever name, link or folder the same
//! file is reached.

use std::{
    ffi::OsString,
    fs::{File, metadata},
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
};

/// Where a file is.
#[derive(PartialEq, Eq)]
enum Place {
    /// A file that is there: its device and its number there.
    There(u64, u64),
    /// A file that is to be made: the device and the number of its folder, and its name.
    New(u64, u64, OsString),
}

/// The place of a path; `None` for a path that no file can have, which opening it tells.
fn place(path: &Path) -> Option<Place> {
    if let Ok(found) = metadata(path) {
        return Some(Place::There(found.dev(), found.ino()));
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let folder = metadata(parent).ok()?;
    Some(Place::New(folder.dev(), folder.ino(), path.file_name()?.to_owned()))
}

/// The place of the input, which is standard input for `-`.
fn place_of_input(path: &Path) -> Option<Place> {
    if path != Path::new("-") {
        return place(path);
    }
    let found = File::from(io::stdin().as_fd().try_clone_to_owned().ok()?).metadata().ok()?;
    Some(Place::There(found.dev(), found.ino()))
}

/// Refuses to write rejected lines or the place to go on from over the input, or over one another.
pub(super) fn keep_apart(input: &Path, rejects: &Path, resume: Option<&Path>) -> Result<(), String> {
    let written = |path: &Path| match place(path) {
        // A terminal or /dev/null is not destroyed by being written to.
        Some(Place::There(..)) if !metadata(path).is_ok_and(|found| found.is_file()) => None,
        place => place,
    };
    // The place to go on from is written aside first.
    let aside = resume.map(|path| {
        let mut aside = path.as_os_str().to_owned();
        aside.push(super::resume::ASIDE);
        PathBuf::from(aside)
    });
    let resume = [resume, aside.as_deref()].into_iter().flatten();
    let mut known = vec![("the input", place_of_input(input))];
    for (flag, path) in std::iter::once(("--rejects", rejects)).chain(resume.map(|path| ("--resume", path))) {
        let place = written(path);
        if let Some((other, _)) = known.iter().find(|(_, other)| place.is_some() && *other == place) {
            return Err(format!("{flag}: {} is the same file as {other}; name another file", path.display()));
        }
        known.push((flag, place));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn what_is_written_is_kept_apart_from_what_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir(path("sub")).unwrap();
        fs::write(path("input"), "lines").unwrap();
        symlink(path("input"), path("link")).unwrap();
        fs::hard_link(path("input"), path("twin")).unwrap();
        symlink(folder.path(), path("sub/up")).unwrap();
        for same in ["input", "./input", "sub/../input", "link", "twin", "sub/up/input"] {
            for (rejects, resume, flag) in
                [(same, None, "--rejects"), ("new", Some(same), "--resume"), ("sub/new", Some(same), "--resume")]
            {
                let told = keep_apart(&path("input"), &path(rejects), resume.map(path).as_deref()).unwrap_err();
                assert!(told.starts_with(flag) && told.ends_with("the input; name another file"), "{same}: {told}");
            }
        }
        for (rejects, resume) in [("new", "./new"), ("new", "sub/up/new"), ("new.partial", "new"), ("a", "input/a")] {
            let told = keep_apart(&path("input"), &path(rejects), Some(&path(resume)));
            assert_eq!(told.is_err(), resume != "input/a", "{rejects} and {resume}");
        }
        assert_eq!(keep_apart(&path("input"), Path::new("/dev/null"), Some(&path("new"))), Ok(()));
        assert_eq!(keep_apart(&path("none"), &path("new"), None), Ok(()));
    }
}
