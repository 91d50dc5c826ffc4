//! The file of rejected lines: made when the first line is rejected.

use std::{
    fs::File,
    io::{self, BufWriter, Seek as _, SeekFrom, Write as _},
    path::PathBuf,
};

use serde_json::json;

use crate::cli::Failure;

pub(super) struct Rejects {
    path: PathBuf,
    /// How much of the file an earlier attempt wrote that is gone on with.
    earlier_bytes: u64,
    file: Option<BufWriter<File>>,
}

impl Rejects {
    pub(super) fn new(path: PathBuf, earlier_bytes: u64) -> Self {
        Self { path, earlier_bytes, file: None }
    }

    /// Keeps a line and why it was rejected.
    pub(super) fn keep(&mut self, number: i64, text: &str, reason: &str) -> Result<(), Failure> {
        self.write(|file| writeln!(file, "{}", json!({ "line": number, "reason": reason, "text": text })))
    }

    /// Writes what is kept, and tells how long the file is.
    pub(super) fn flush(&mut self) -> Result<u64, Failure> {
        if self.file.is_none() {
            return Ok(self.earlier_bytes);
        }
        self.write(|file| file.flush().and_then(|()| file.stream_position()))
    }

    /// Where rejected lines are.
    pub(super) fn path(&self) -> &std::path::Path {
        &self.path
    }

    fn write<T>(&mut self, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<T>) -> Result<T, Failure> {
        let file = match &mut self.file {
            Some(file) => Ok(file),
            none => go_on(&self.path, self.earlier_bytes).map(|file| none.insert(BufWriter::new(file))),
        };
        Ok(file
            .and_then(write)
            .map_err(|error| format!("cannot write {}: {error}; --rejects names another file", self.path.display()))?)
    }
}

/// Opens the file behind what an earlier attempt is known to have written; the rest is rejected again.
fn go_on(path: &std::path::Path, earlier_bytes: u64) -> io::Result<File> {
    let mut file = File::options().write(true).create(true).truncate(false).open(path)?;
    file.set_len(file.metadata()?.len().min(earlier_bytes))?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}
