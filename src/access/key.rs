//! Keys: long random words that a caller shows as they are. Whoever checks them keeps only their hashes, and a key is random
//! enough that a fast hash is as good as a slow one.

use std::fmt;

/// What every key begins with, so that scanners for leaked secrets know it.
const PREFIX: &str = "rapport_";
/// How many hexadecimal digits an id has.
const ID_DIGITS: usize = 12;

/// A key: `rapport_ID_SECRET`, in hexadecimal digits.
pub struct Key(String);

/// What an access file holds of a key.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct KeyEntry {
    /// Its id.
    pub id: String,
    /// Its BLAKE3 hash, in hexadecimal digits.
    pub hash: String,
}

/// A secret stays out of logs.
impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Key(…)")
    }
}

impl Key {
    /// A new one; `None` when the system has no randomness.
    pub fn new() -> Option<Self> {
        let [id, secret] = [random_digits()?, random_digits()?];
        Some(Self(format!("{PREFIX}{}_{secret}", &id[..ID_DIGITS])))
    }

    /// Its text, for whoever will show it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What to note of it.
    pub fn entry(&self) -> KeyEntry {
        let id = Self::id_of(&self.0).unwrap_or_default().to_owned();
        KeyEntry { id, hash: blake3::hash(self.0.as_bytes()).to_hex().to_string() }
    }

    /// Whether a text means to be a key.
    pub(super) fn looks_like(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// The id in a key.
    pub(super) fn id_of(text: &str) -> Option<&str> {
        text.strip_prefix(PREFIX)?.split_once('_').map(|(id, _)| id)
    }
}

/// 256 bits as 64 hexadecimal digits.
fn random_digits() -> Option<String> {
    let mut random = [0; blake3::OUT_LEN];
    getrandom::fill(&mut random).ok()?;
    Some(blake3::Hash::from_bytes(random).to_hex().to_string())
}
