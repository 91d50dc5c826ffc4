//! The access file: a JSON document, with every fault in it told at once.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    domain::TenantId,
    files::{MEBIBYTE, bounded_text},
};

use super::{
    Principal, Right, Rules,
    document::{Document, Node},
    token::Tokens,
};

/// What stands for every tenant.
const EVERY_TENANT: &str = "*";
/// The largest file, in bytes.
const MAX_BYTES: u64 = 4 * MEBIBYTE;
/// The names of the rights.
const RIGHTS: [(&str, Right); 3] = [("record", Right::Record), ("rank", Right::Rank), ("admin", Right::Admin)];

/// Why an access file cannot be followed. No secret that is in the file shows.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// The file cannot be read.
    #[error("the access file {} cannot be read: {source}", .path.display())]
    Unreadable {
        /// The path of the access file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is no JSON, lacks something, or contradicts itself.
    #[error("the access file {} cannot be followed: {}", .path.display(), .faults.join("; "))]
    Faulty {
        /// The path of the access file.
        path: PathBuf,
        /// Every fault, with its line and column.
        faults: Vec<String>,
    },
}

impl Rules {
    /// The rules in the access file at a path, or every fault of the file. Relative names in the file start at its folder.
    pub(super) fn read(path: &Path) -> Result<Self, AccessError> {
        let text = bounded(path).map_err(|source| AccessError::Unreadable { path: path.to_owned(), source })?;
        Self::parse(&text, path).map_err(|faults| AccessError::Faulty { path: path.to_owned(), faults })
    }

    fn parse(text: &str, path: &Path) -> Result<Self, Vec<String>> {
        let (mut document, whole) = Document::parse(text).map_err(|fault| vec![fault])?;
        let [principals, tokens] = document.fields(&whole, ["principals", "tokens"]);
        let mut rules = Self {
            principals: Vec::new(),
            by_key: HashMap::new(),
            by_certificate: HashMap::new(),
            by_subject: HashMap::new(),
            tokens: None,
        };
        let principals = document.required(&whole, "principals", principals);
        for (place, principal) in document.items(principals.as_ref()).iter().enumerate() {
            rules.add(place, principal, &mut document);
        }
        match tokens {
            Some(tokens) => rules.tokens = Tokens::read(&mut document, &tokens, path),
            None if rules.by_subject.is_empty() => {}
            None => {
                document.fault(&whole, "names subjects, and lacks the field tokens, which says whose tokens are taken");
            }
        }
        document.finish(Some(rules))
    }

    fn add<'a>(&mut self, place: usize, node: &Node<'a>, document: &mut Document<'a>) {
        let names = ["name", "keys", "certificates", "subjects", "grants"];
        let [name, keys, certificates, subjects, grants] = document.fields(node, names);
        let name = document.required(node, "name", name).and_then(|node| Some((document.text(&node)?, node)));
        if let Some((name, node)) = &name
            && (name.is_empty() || self.principals.iter().any(|other| *other.name == **name))
        {
            document.fault(node, "must not be empty, and must be no other principal's");
        }
        for key in document.items(keys.as_ref()) {
            self.add_key(place, &key, document);
        }
        for (names, known) in [(certificates, &mut self.by_certificate), (subjects, &mut self.by_subject)] {
            for node in document.items(names.as_ref()) {
                if let Some(name) = document.text(&node)
                    && (name.is_empty() || known.insert(name, place).is_some())
                {
                    document.fault(&node, "must not be empty, and must be no other principal's");
                }
            }
        }
        let grants = document.required(node, "grants", grants);
        let name = name.map(|(name, _)| name).unwrap_or_default();
        let mut principal = Principal { name: Arc::from(name), everywhere: Vec::new(), rights: HashMap::new() };
        for grant in document.items(grants.as_ref()) {
            principal.add(&grant, document);
        }
        self.principals.push(principal);
    }

    fn add_key<'a>(&mut self, place: usize, node: &Node<'a>, document: &mut Document<'a>) {
        let [id, hash] = document.fields(node, ["id", "hash"]);
        let id = document.required(node, "id", id).and_then(|node| Some((document.text(&node)?, node)));
        let hash = document.required(node, "hash", hash).and_then(|node| Some((document.text(&node)?, node)));
        let (Some((id, id_node)), Some((hash, hash_node))) = (id, hash) else { return };
        match blake3::Hash::from_hex(&hash) {
            Ok(hash) if self.by_key.insert(id, (hash, place)).is_none() => {}
            Ok(_) => document.fault(&id_node, "must be no other key's"),
            Err(_) => document.fault(&hash_node, "must be 64 hexadecimal digits, as `rapport keys new` prints them"),
        }
    }
}

impl Principal {
    fn add<'a>(&mut self, node: &Node<'a>, document: &mut Document<'a>) {
        let [tenants, rights] = document.fields(node, ["tenants", "rights"]);
        let tenants = document.required(node, "tenants", tenants);
        let rights = document.required(node, "rights", rights);
        let rights = document.items(rights.as_ref());
        let rights: Vec<Right> = rights.iter().filter_map(|right| document.one_of(right, &RIGHTS)).collect();
        for node in document.items(tenants.as_ref()) {
            let Some(tenant) = document.text(&node) else { continue };
            match TenantId::parse_metadata(&tenant) {
                _ if tenant == EVERY_TENANT => self.everywhere.extend(&rights),
                Ok(tenant) => self.rights.entry(tenant).or_default().extend(&rights),
                Err(error) => document.fault(&node, error),
            }
        }
    }
}

/// The text of an access file, or of one that it names.
pub(super) fn bounded(path: &Path) -> Result<String, std::io::Error> {
    bounded_text(path, MAX_BYTES)
}

/// A file that is named relative to the access file's folder.
pub(super) fn beside(path: &Path, named: &Path) -> PathBuf {
    path.parent().map_or_else(|| named.to_owned(), |folder| folder.join(named))
}
