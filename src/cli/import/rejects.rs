//! The file of rejected lines: made when the first line is rejected.

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::PathBuf,
};

use serde_json::json;

use crate::cli::Failure;

pub(super) struct Rejects {
    path: PathBuf,
    file: Option<BufWriter<File>>,
}

impl Rejects {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// Keeps a line and why it was rejected.
    pub(super) fn keep(&mut self, number: i64, text: &str, reason: &str) -> Result<(), Failure> {
        let unwritable = |error: std::io::Error| format!("cannot write {}: {error}", self.path.display());
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(BufWriter::new(File::create(&self.path).map_err(unwritable)?)),
        };
        writeln!(file, "{}", json!({ "line": number, "reason": reason, "text": text })).map_err(unwritable)?;
        Ok(())
    }

    /// Where rejected lines are, if there are any; all of them are written when this returns.
    pub(super) fn finish(self) -> Result<Option<PathBuf>, Failure> {
        let Some(mut file) = self.file else { return Ok(None) };
        file.flush().map_err(|error| format!("cannot write {}: {error}", self.path.display()))?;
        Ok(Some(self.path))
    }
}
