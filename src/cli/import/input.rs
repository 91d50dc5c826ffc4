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
const MAX_LINE_BYTES: usize = 1024 * 1024;
const TOO_LONG: &str = "the line is longer than 1 MiB";
/// What some programs begin a UTF-8 file with.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

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

/// A line as it was read; several lines when a quoted field of CSV goes on over them.
pub(super) struct ReadLine {
    /// Its number, from 1; a heading counts.
    pub number: i64,
    /// Its text, for the rejects.
    pub text: String,
    /// What it amounts to.
    pub line: Line,
    /// How many of its ids and words were cleaned.
    pub cleaned: u64,
}

/// A line that cannot be made sense of, and why.
struct Unreadable {
    reason: &'static str,
    text: String,
}

/// A numbered line, if it can be made sense of.
type NumberedText = (i64, Result<String, Unreadable>);

/// Lines to import.
pub(in crate::cli) struct Input {
    reader: Box<dyn BufRead + Send>,
    /// How many lines were read.
    lines: i64,
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
    pub(in crate::cli) fn sample(bytes: &'static [u8]) -> io::Result<Self> {
        let mapping = Mapping { id_prefix: "sample".to_owned(), ..Mapping::default() };
        Self::new(Cursor::new(bytes), u64::try_from(bytes.len()).ok(), Format::Jsonl, mapping, 0)
    }

    /// A file, or standard input for `-`, from behind line `after` on.
    pub(super) fn open(path: &Path, format: Format, mapping: Mapping, after: i64) -> Result<Self, Failure> {
        if path == Path::new("-") {
            return Ok(Self::new(io::stdin(), None, format, mapping, after)?);
        }
        let unreadable = |error: io::Error| format!("cannot read {}: {error}", path.display());
        let file = File::open(path).map_err(unreadable)?;
        let size = file.metadata().ok().map(|metadata| metadata.len());
        Ok(Self::new(file, size, format, mapping, after).map_err(unreadable)?)
    }

    pub(super) fn new(
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
        Ok(Self { reader, lines: 0, format, mapping, after, size, consumed })
    }

    /// How many bytes there are to read, packed, when that is known; and how many were.
    pub(super) fn size(&self) -> (Option<u64>, Arc<AtomicU64>) {
        (self.size, Arc::clone(&self.consumed))
    }

    /// Hands every line on until there are no more or nobody takes them.
    pub(super) fn read(mut self, mut hand_on: impl FnMut(ReadLine) -> bool) -> Result<(), Failure> {
        let columns = if self.format == Format::Jsonl { Vec::new() } else { self.heading()? };
        while let Some((number, text)) = self.next_text()? {
            if number <= self.after {
                continue;
            }
            let (text, (line, cleaned)) = match text {
                Err(Unreadable { reason, text }) => (text, (Line::Rejected(reason.to_owned()), 0)),
                Ok(text) => {
                    let read = match self.fields(&text, &columns) {
                        Ok(fields) => self.mapping.line(fields, number, &text),
                        Err(reason) => (Line::Rejected(reason), 0),
                    };
                    (text, read)
                }
            };
            if !hand_on(ReadLine { number, text, line, cleaned }) {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The next line that is not blank, without its end; `None` after the last.
    fn next_text(&mut self) -> Result<Option<NumberedText>, Failure> {
        loop {
            let (number, mut bytes) = (self.lines + 1, Vec::new());
            let fault = self.next_bytes(&mut bytes)?;
            if self.lines < number {
                return Ok(None);
            }
            while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
                bytes.pop();
            }
            if number == 1 && bytes.starts_with(BYTE_ORDER_MARK) {
                bytes.drain(..BYTE_ORDER_MARK.len());
            }
            if bytes.is_empty() {
                continue;
            }
            let (text, fault) = match String::from_utf8(bytes) {
                Ok(text) => (text, fault),
                Err(error) => {
                    let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
                    (text, fault.or(Some("the line is not UTF-8")))
                }
            };
            let text = match fault {
                None => Ok(text),
                Some(reason) => Err(Unreadable { reason, text }),
            };
            return Ok(Some((number, text)));
        }
    }

    /// Reads a line, and tells what is wrong with it if anything is.
    fn next_bytes(&mut self, bytes: &mut Vec<u8>) -> Result<Option<&'static str>, Failure> {
        let unreadable = |error: io::Error| format!("the input cannot be read: {error}");
        let mut quoted = false;
        loop {
            let from = bytes.len();
            let room = u64::try_from(MAX_LINE_BYTES.saturating_sub(from)).unwrap_or_default();
            (&mut self.reader).take(room).read_until(b'\n', bytes).map_err(unreadable)?;
            let read = bytes.get(from..).unwrap_or_default();
            if read.is_empty() && bytes.len() < MAX_LINE_BYTES {
                return Ok(quoted.then_some("a quoted field has no end"));
            }
            self.lines += 1;
            if bytes.len() == MAX_LINE_BYTES && !read.ends_with(b"\n") {
                self.reader.skip_until(b'\n').map_err(unreadable)?;
                return Ok(Some(if quoted { "a quoted field has no end within 1 MiB" } else { TOO_LONG }));
            }
            quoted = self.format == Format::Csv && ends_quoted(quoted, read);
            if !quoted {
                return Ok(None);
            }
        }
    }

    /// For each column of the heading, the field that it holds.
    fn heading(&mut self) -> Result<Vec<Option<&'static str>>, Failure> {
        let Some((_, heading)) = self.next_text()? else { return Ok(Vec::new()) };
        let heading = heading.map_err(|unreadable| format!("the heading is of no use: {}", unreadable.reason))?;
        let titles = self.split(&heading)?;
        let field =
            |title: &String| FIELDS.into_iter().find(|field| self.mapping.names(field).contains(&title.as_str()));
        let columns: Vec<_> = titles.iter().map(field).collect();
        let count = |field: &str| columns.iter().filter(|column| **column == Some(field)).count();
        let missing = FIELDS.into_iter().filter(|field| self.mapping.needs_column(field) && count(field) == 0);
        let doubled = FIELDS.into_iter().filter(|field| count(field) > 1);
        for (wrong, fields) in
            [("no column holds", missing.collect::<Vec<_>>()), ("more than one column holds", doubled.collect())]
        {
            if !fields.is_empty() {
                let flags: Vec<String> = fields.iter().map(|field| format!("{field}=COLUMN")).collect();
                let kind = if fields.contains(&"kind") { ", or --kind says what every line is" } else { "" };
                let (fields, flags, titles) = (fields.join(", "), flags.join(","), titles.join(", "));
                return Err(format!("{wrong} {fields}; --columns {flags} names one of {titles}{kind}").into());
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
        let mut reader = csv::ReaderBuilder::new();
        let reader = reader.has_headers(false).terminator(csv::Terminator::Any(b'\n'));
        let record = reader.from_reader(text.as_bytes()).into_records().next().ok_or("the line is empty")?;
        let record = record.map_err(|_| "the line is not well-formed CSV")?;
        Ok(record.iter().map(str::to_owned).collect())
    }

    fn json_fields(&self, text: &str) -> Result<Fields, String> {
        let object: serde_json::Map<String, Value> = serde_json::from_str(text).map_err(|_| not_an_object(text))?;
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

/// What is wrong with a line that is no JSON object.
fn not_an_object(text: &str) -> &'static str {
    if text.trim_start().starts_with('[') {
        return "the line is not a JSON object; JSON Lines has an object a line, and no list around them";
    }
    "the line is not a JSON object"
}

/// Whether a quoted field goes on behind this line, when `quoted` tells whether one went on before it.
fn ends_quoted(mut quoted: bool, line: &[u8]) -> bool {
    // A quote opens a field at its start only; two quotes within one stand for a quote.
    let mut may_open = true;
    for byte in line {
        if *byte == b'"' && (quoted || may_open) {
            (quoted, may_open) = (!quoted, quoted);
        } else if !quoted {
            may_open = *byte == b',';
        }
    }
    quoted
}

fn values(field: &str, value: &Value) -> Result<Vec<String>, String> {
    let may_be_fraction = matches!(field, "time" | "due_time" | "effort_minutes");
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text.clone()]),
        // Beyond 64 bits a whole number is read as a fraction, which would make one person of two.
        Value::Number(number) if number.is_f64() && !may_be_fraction => {
            Err(format!("{field} must be a text, or a whole number of at most 64 bits"))
        }
        Value::Number(number) => Ok(vec![number.to_string()]),
        Value::Bool(flag) => Ok(vec![flag.to_string()]),
        Value::Array(list) => {
            Ok(list.iter().map(|value| values(field, value)).collect::<Result<Vec<_>, _>>()?.concat())
        }
        Value::Object(_) => Err(format!("{field} must be a text, a number, a truth value or a list")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_where_a_quoted_field_goes_on() {
        let closed = ["a,b", "a,\"b\"", "a,\"b\"\"\"", "5\" disk,6\"\" disk", "\"a\",\"\"", ""];
        let open = ["a,\"b", "\"a\"\"", "\"a,\"\"b\"\",c", "x,\""];
        assert!(closed.iter().all(|line| !ends_quoted(false, line.as_bytes())));
        assert!(open.iter().all(|line| ends_quoted(false, line.as_bytes())));
        assert!(!ends_quoted(true, b"b\",c") && ends_quoted(true, b"b,\"\"c") && ends_quoted(true, b"b\",\"c"));
    }
}
