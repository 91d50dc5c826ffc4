//! Reading lines: from a file or standard input, gzip or not, in one of three formats.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Cursor, Read},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use clap::ValueEnum;
use flate2::read::MultiGzDecoder;
use serde_json::Value;

use super::mapping::{FIELDS, Fields, Line, Mapping};
use crate::cli::Failure;

/// The longest line taken in, in bytes; longer ones are rejected.
const MAX_LINE_BYTES: u64 = 1024 * 1024;

/// How a file is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Comma-separated values below a heading
    Csv,
    /// Tab-separated values below a heading
    Tsv,
    /// JSON Lines: an object a line
    Jsonl,
}

impl Format {
    /// The format that a file's name speaks of.
    pub(super) fn of_name(name: &str) -> Self {
        let name = name.to_lowercase();
        let (_, extension) = name.trim_end_matches(".gz").rsplit_once('.').unwrap_or_default();
        match extension {
            "csv" => Self::Csv,
            "json" | "jsonl" | "ndjson" => Self::Jsonl,
            _ => Self::Tsv,
        }
    }
}

/// A line as it was read.
pub(super) struct ReadLine {
    /// Its number, from 1; a heading counts.
    pub number: i64,
    /// Its text, for the rejects.
    pub text: String,
    /// What it amounts to.
    pub line: Line,
}

/// Lines to import.
pub(in crate::cli) struct Input {
    reader: Box<dyn BufRead + Send>,
    format: Format,
    mapping: Mapping,
    /// The last line to pass over.
    after: i64,
    size: Option<u64>,
    consumed: Arc<AtomicU64>,
}

/// Counts what is read, before it is unpacked.
struct Counting<R> {
    inner: R,
    consumed: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.consumed.fetch_add(u64::try_from(count).unwrap_or(u64::MAX), Ordering::Relaxed);
        Ok(count)
    }
}

impl Input {
    /// The sample that comes with the program.
    pub(in crate::cli) fn sample(bytes: &'static [u8]) -> Self {
        let mapping = Mapping { id_prefix: "sample".to_owned(), ..Mapping::default() };
        let size = u64::try_from(bytes.len()).ok();
        Self::new(Cursor::new(bytes), size, Format::Jsonl, mapping, 0).unwrap_or_else(|_| Self {
            reader: Box::new(io::empty()),
            format: Format::Jsonl,
            mapping: Mapping::default(),
            after: 0,
            size: None,
            consumed: Arc::default(),
        })
    }

    /// A file, or standard input for `-`, from behind line `after` on.
    pub(super) fn open(path: &Path, format: Format, mapping: Mapping, after: i64) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self::new(io::stdin(), None, format, mapping, after)?);
        }
        let file = File::open(path).map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        let size = file.metadata().ok().map(|metadata| metadata.len());
        Ok(Self::new(file, size, format, mapping, after)?)
    }

    fn new(
        inner: impl Read + Send + 'static,
        size: Option<u64>,
        format: Format,
        mapping: Mapping,
        after: i64,
    ) -> io::Result<Self> {
        let consumed = Arc::new(AtomicU64::new(0));
        let mut reader = BufReader::new(Counting { inner, consumed: Arc::clone(&consumed) });
        let is_gzip = reader.fill_buf()?.starts_with(&[0x1f, 0x8b]);
        let reader: Box<dyn BufRead + Send> =
            if is_gzip { Box::new(BufReader::new(MultiGzDecoder::new(reader))) } else { Box::new(reader) };
        Ok(Self { reader, format, mapping, after, size, consumed })
    }

    /// How many bytes there are to read, packed, when that is known; and how many were.
    pub(super) fn size(&self) -> (Option<u64>, Arc<AtomicU64>) {
        (self.size, Arc::clone(&self.consumed))
    }

    /// Hands every line on until there are no more or nobody takes them.
    pub(super) fn read(mut self, mut hand_on: impl FnMut(ReadLine) -> bool) -> Result<(), Failure> {
        let mut columns = None;
        let mut number = 0;
        while let Some(text) = self.next_text()? {
            number += 1;
            let Ok(text) = text else {
                let line = Line::Rejected("the line is not UTF-8, or longer than 1 MiB".to_owned());
                if number > self.after && !hand_on(ReadLine { number, text: String::new(), line }) {
                    return Ok(());
                }
                continue;
            };
            if self.format != Format::Jsonl && columns.is_none() {
                columns = Some(self.columns(&text)?);
                continue;
            }
            if number <= self.after || text.is_empty() {
                continue;
            }
            let line = match self.fields(&text, columns.as_deref().unwrap_or_default()) {
                Ok(fields) => self.mapping.line(fields, number, &text),
                Err(reason) => Line::Rejected(reason),
            };
            if !hand_on(ReadLine { number, text, line }) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The next line without its end; `None` after the last; an error within when it is no text.
    fn next_text(&mut self) -> Result<Option<Result<String, ()>>, Failure> {
        let mut bytes = Vec::new();
        let unreadable = |error: io::Error| format!("the input cannot be read: {error}");
        (&mut self.reader).take(MAX_LINE_BYTES).read_until(b'\n', &mut bytes).map_err(unreadable)?;
        if bytes.is_empty() {
            return Ok(None);
        }
        if !bytes.ends_with(b"\n") && u64::try_from(bytes.len()) == Ok(MAX_LINE_BYTES) {
            self.reader.skip_until(b'\n').map_err(unreadable)?;
            return Ok(Some(Err(())));
        }
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        Ok(Some(String::from_utf8(bytes).map_err(|_| ())))
    }

    /// For each column of a heading, the field that it holds.
    fn columns(&self, heading: &str) -> Result<Vec<Option<&'static str>>, Failure> {
        let titles = self.split(heading)?;
        let field =
            |title: &String| FIELDS.into_iter().find(|field| self.mapping.names(field).contains(&title.as_str()));
        let columns: Vec<_> = titles.iter().map(field).collect();
        for needed in ["actor", "recipients", "time"] {
            if !columns.contains(&Some(needed)) {
                return Err(format!(
                    "no column holds {needed}; --columns {needed}=COLUMN names one of {}",
                    titles.join(", ")
                )
                .into());
            }
        }
        Ok(columns)
    }

    fn fields(&self, text: &str, columns: &[Option<&'static str>]) -> Result<Fields, String> {
        if self.format == Format::Jsonl {
            return self.json_fields(text);
        }
        let values = self.split(text)?;
        if values.len() != columns.len() {
            return Err(format!("the line has {} columns, and the heading {}", values.len(), columns.len()));
        }
        let several = |field: &str, value: String| match field {
            "recipients" | "topics" => value.split(';').filter(|part| !part.is_empty()).map(str::to_owned).collect(),
            _ => vec![value],
        };
        let named = columns.iter().zip(values).filter_map(|(field, value)| field.map(|field| (field, value)));
        Ok(named.map(|(field, value)| (field, several(field, value))).collect())
    }

    fn split(&self, text: &str) -> Result<Vec<String>, String> {
        if self.format == Format::Tsv {
            return Ok(text.split('\t').map(str::to_owned).collect());
        }
        let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
        let record = reader.records().next().ok_or("the line is empty")?;
        let record = record.map_err(|_| "the line is not well-formed CSV")?;
        Ok(record.iter().map(str::to_owned).collect())
    }

    fn json_fields(&self, text: &str) -> Result<Fields, String> {
        let object: serde_json::Map<String, Value> =
            serde_json::from_str(text).map_err(|_| "the line is not a JSON object")?;
        let mut fields = Fields::new();
        for field in FIELDS {
            let names = self.mapping.names(field);
            if let Some(value) = names.iter().find_map(|name| object.get(*name)) {
                fields.insert(field, values(field, value)?);
            }
        }
        Ok(fields)
    }
}

fn values(field: &str, value: &Value) -> Result<Vec<String>, String> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Number(number) => Ok(vec![number.to_string()]),
        Value::Bool(flag) => Ok(vec![flag.to_string()]),
        Value::Array(list) => {
            Ok(list.iter().map(|value| values(field, value)).collect::<Result<Vec<_>, _>>()?.concat())
        }
        Value::Object(_) => Err(format!("{field} must be a text, a number, a truth value or a list")),
    }
}
