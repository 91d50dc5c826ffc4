//! The names of scoring policies: parsed once, then known to be well-formed.

use std::sync::Arc;

use super::WordError;

/// The name of one version of a scoring policy: ASCII letters, digits, `.`, `_` and `-`. Nothing personal.
///
/// Ordered by bytes, as the database orders it. Cloning is cheap.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyVersion(Arc<str>);

impl PolicyVersion {
    /// The longest allowed, in bytes.
    pub const MAX_BYTES: usize = 64;

    /// The well-formed version in `text`.
    pub fn parse(text: &str) -> Result<Self, WordError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if text.is_empty() {
            Err(WordError::Empty)
        } else if text.len() > Self::MAX_BYTES {
            Err(WordError::TooLong(Self::MAX_BYTES))
        } else if !text.bytes().all(is_plain) {
            Err(WordError::NotPlain)
        } else {
            Ok(Self(text.into()))
        }
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_well_formed() {
        for (text, error) in [
            ("", WordError::Empty),
            (&*"v".repeat(65), WordError::TooLong(64)),
            ("fitted 2", WordError::NotPlain),
            ("gefügt-2", WordError::NotPlain),
            ("a/b", WordError::NotPlain),
        ] {
            assert_eq!(PolicyVersion::parse(text), Err(error));
        }
        assert_eq!(PolicyVersion::parse("fitted-2026.11_b").unwrap().as_str(), "fitted-2026.11_b");
        assert!(PolicyVersion::parse(&"v".repeat(64)).is_ok());
    }
}
