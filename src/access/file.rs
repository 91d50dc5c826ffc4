//! The access file: a JSON document, with every fault in it told at once.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::Deserialize;

use crate::domain::TenantId;

use super::{KeyEntry, Principal, Right, Rules, token::TokenRules};

/// What stands for every tenant.
const EVERY_TENANT: &str = "*";
/// The largest file, in bytes.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// Why an access file cannot be followed. Nothing that is in the file shows.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// It cannot be read.
    #[error("the access file cannot be read: {0}")]
    Unreadable(#[from] std::io::Error),
    /// It is no such document.
    #[error("the access file is not as it should be: line {line}, column {column}")]
    Malformed {
        /// Where.
        line: usize,
        /// Where in it.
        column: usize,
    },
    /// It contradicts itself or says nothing.
    #[error("the access file is not as it should be: {}", .0.join("; "))]
    Faulty(Vec<String>),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    principals: Vec<PrincipalEntry>,
    tokens: Option<TokenRules>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PrincipalEntry {
    name: String,
    #[serde(default)]
    keys: Vec<KeyEntry>,
    #[serde(default)]
    certificates: Vec<String>,
    #[serde(default)]
    subjects: Vec<String>,
    grants: Vec<Grant>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Grant {
    tenants: Vec<String>,
    rights: Vec<Right>,
}

impl Document {
    pub(super) fn read(path: &Path) -> Result<Self, AccessError> {
        Self::parse(&bounded(path)?)
    }

    pub(super) fn parse(text: &str) -> Result<Self, AccessError> {
        serde_json::from_str(text)
            .map_err(|error| AccessError::Malformed { line: error.line(), column: error.column() })
    }

    /// What it says, or everything that is wrong with it. Files that it names lie beside it.
    pub(super) fn rules(self, path: &Path) -> Result<Rules, AccessError> {
        let mut faults = Vec::new();
        let mut rules = Rules {
            principals: Vec::new(),
            by_key: HashMap::new(),
            by_certificate: HashMap::new(),
            by_subject: HashMap::new(),
            tokens: None,
        };
        for (place, entry) in self.principals.into_iter().enumerate() {
            rules.add(place, entry, &mut faults);
        }
        match self.tokens {
            Some(tokens) => rules.tokens = tokens.made(path, &mut faults),
            None if rules.by_subject.is_empty() => {}
            None => faults.push("subjects need tokens".to_owned()),
        }
        if faults.is_empty() { Ok(rules) } else { Err(AccessError::Faulty(faults)) }
    }
}

impl Rules {
    fn add(&mut self, place: usize, entry: PrincipalEntry, faults: &mut Vec<String>) {
        let at = format!("principals[{place}]");
        if entry.name.is_empty() || self.principals.iter().any(|other| *other.name == *entry.name) {
            faults.push(format!("{at}.name must be there, and no other principal's"));
        }
        for (number, key) in entry.keys.into_iter().enumerate() {
            match blake3::Hash::from_hex(&key.hash) {
                Ok(hash) if self.by_key.insert(key.id, (hash, place)).is_none() => {}
                Ok(_) => faults.push(format!("{at}.keys[{number}].id must be no other key's")),
                Err(_) => faults.push(format!("{at}.keys[{number}].hash must be 64 hexadecimal digits")),
            }
        }
        for (what, names, known) in [
            ("certificates", entry.certificates, &mut self.by_certificate),
            ("subjects", entry.subjects, &mut self.by_subject),
        ] {
            for (number, name) in names.into_iter().enumerate() {
                if name.is_empty() || known.insert(name, place).is_some() {
                    faults.push(format!("{at}.{what}[{number}] must be there, and no other principal's"));
                }
            }
        }
        let principal = principal(&entry.name, entry.grants, &at, faults);
        self.principals.push(principal);
    }
}

fn principal(name: &str, grants: Vec<Grant>, at: &str, faults: &mut Vec<String>) -> Principal {
    let mut principal = Principal { name: Arc::from(name), everywhere: Vec::new(), rights: HashMap::new() };
    for (number, grant) in grants.into_iter().enumerate() {
        for (place, tenant) in grant.tenants.iter().enumerate() {
            match TenantId::parse_metadata(tenant) {
                _ if tenant == EVERY_TENANT => principal.everywhere.extend(&grant.rights),
                Ok(tenant) => principal.rights.entry(tenant).or_default().extend(&grant.rights),
                Err(error) => faults.push(format!("{at}.grants[{number}].tenants[{place}] {error}")),
            }
        }
    }
    principal
}

/// The text of a file, unless that is too large.
pub(super) fn bounded(path: &Path) -> Result<String, std::io::Error> {
    if std::fs::metadata(path)?.len() > MAX_BYTES {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "it is larger than 4 MiB"));
    }
    std::fs::read_to_string(path)
}

/// A file that is named relative to the access file's folder.
pub(super) fn beside(path: &Path, named: &Path) -> PathBuf {
    path.parent().map_or_else(|| named.to_owned(), |folder| folder.join(named))
}
