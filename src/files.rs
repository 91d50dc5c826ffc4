//! Reading the files that operators name, such as keys, certificates and settings: regular files only, up to a limit, and
//! without waiting. A path may lead to a device without an end, or to a pipe that nobody writes to.

use std::{
    fs::File,
    io::{Error, ErrorKind, Read as _, Result},
    path::Path,
};

use rustix::fs::{Mode, OFlags};

/// One mebibyte, in bytes: the limit of most files.
pub(crate) const MEBIBYTE: u64 = 1024 * 1024;

/// The bytes of a file, if it is a regular file of at most `max_bytes`, a number of mebibytes.
pub(crate) fn bounded(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    // Opening a pipe would wait for its writer, and opening a terminal could make it ours.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let metadata = file.metadata()?;
    if metadata.is_dir() {
        return Err(ErrorKind::IsADirectory.into());
    }
    if !metadata.is_file() {
        return Err(Error::new(ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut bytes = Vec::new();
    // The file may grow while it is read, and some file systems tell no length.
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= max_bytes) {
        return Ok(bytes);
    }
    Err(Error::new(ErrorKind::FileTooLarge, format!("it is larger than {} MiB", max_bytes / MEBIBYTE)))
}

/// The text of a file, as [`bounded`] reads it.
pub(crate) fn bounded_text(path: &Path, max_bytes: u64) -> Result<String> {
    String::from_utf8(bounded(path, max_bytes)?)
        .map_err(|_| Error::new(ErrorKind::InvalidData, "stream did not contain valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, time::Instant};

    use super::*;

    #[test]
    fn only_regular_files_are_read_and_only_up_to_the_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let told = |name: &str| bounded(&path(name), MEBIBYTE).unwrap_err().to_string();
        std::fs::write(path("file"), "text").unwrap();
        symlink(path("file"), path("link")).unwrap();
        assert_eq!(bounded(&path("link"), MEBIBYTE).unwrap(), b"text");
        assert_eq!(bounded_text(&path("file"), 4).unwrap(), "text");
        assert!(bounded(&path("file"), 3).is_err());
        std::fs::write(path("bytes"), [0xff]).unwrap();
        assert_eq!(
            bounded_text(&path("bytes"), MEBIBYTE).unwrap_err().to_string(),
            "stream did not contain valid UTF-8"
        );
        File::create(path("large")).unwrap().set_len(MEBIBYTE + 1).unwrap();
        assert_eq!(told("large"), "it is larger than 1 MiB");
        symlink("/dev/zero", path("zero")).unwrap();
        let mode = Mode::RUSR | Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, path("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let began = Instant::now();
        assert_eq!([told("zero"), told("pipe")], ["it is no regular file"; 2].map(str::to_owned));
        assert!(began.elapsed().as_secs() < 5, "nobody waits for a writer");
        assert!(told(".").contains("directory"), "{}", told("."));
        assert!(told("none").starts_with("No such file"), "{}", told("none"));
        // Its length is told as 0.
        assert!(!bounded(Path::new("/proc/self/status"), MEBIBYTE).unwrap().is_empty());
    }
}
