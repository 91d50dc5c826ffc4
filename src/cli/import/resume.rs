//! How far an import came, kept in a file so that it can go on from there.

use std::{fs, io, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::Totals;
use crate::{
    cli::Failure,
    files::{MEBIBYTE, bounded},
};

/// What the name of the file that is written aside ends with.
pub(super) const ASIDE: &str = ".partial";

/// A place in an input, and what came of the lines up to it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Place {
    /// The name of the input.
    input: String,
    /// The last line that was dealt with.
    pub line: i64,
    /// What came of the lines.
    pub totals: Totals,
    /// How long the file of rejected lines is.
    pub rejects_bytes: u64,
}

pub(super) struct Resume {
    path: Option<PathBuf>,
    pub place: Place,
}

impl Resume {
    /// The place in `path` if it is there, else the beginning.
    pub(super) fn open(path: Option<PathBuf>, input: &str) -> Result<Self, Failure> {
        let beginning = Place { input: input.to_owned(), ..Place::default() };
        let Some(path) = path else { return Ok(Self { path: None, place: beginning }) };
        let place = match bounded(&path, MEBIBYTE) {
            Ok(text) => serde_json::from_slice(&text).map_err(|_| {
                format!("{} does not say how far an import came; --resume names another file", path.display())
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => beginning,
            Err(error) => return Err(format!("cannot read {}: {error}", path.display()).into()),
        };
        if place.input != input {
            return Err(format!(
                "{} is about importing {}, not {input}; --resume names another file",
                path.display(),
                place.input
            )
            .into());
        }
        Ok(Self { path: Some(path), place })
    }

    /// Keeps the place.
    pub(super) fn save(&self) -> Result<(), Failure> {
        let Some(path) = &self.path else { return Ok(()) };
        // Written aside first, so that a break leaves the old place or the new one.
        let mut aside = path.clone().into_os_string();
        aside.push(ASIDE);
        let written = fs::write(&aside, serde_json::to_vec(&self.place)?).and_then(|()| fs::rename(&aside, path));
        Ok(written.map_err(|error| format!("cannot write {}: {error}; --resume names another file", path.display()))?)
    }

    /// Forgets the place, as there is nothing to go on with.
    pub(super) fn finish(&self) {
        if let Some(path) = &self.path {
            // Nothing is lost when it stays: going on from the end finds nothing to do.
            let _ = fs::remove_file(path);
        }
    }
}
