//! Ids and words that callers choose: parsed once, then known to be well-formed. Each is UTF-8 in normalization form C, of
//! characters that show (see [`character`](super::character)), without white space at either end, and bounded in bytes.

use std::{borrow::Borrow, fmt, sync::Arc};

use unicode_normalization::is_nfc;

use super::character::{Misplaced, misplaced};

/// Why a text is not a well-formed word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WordError {
    /// Nothing is there.
    #[error("must not be empty")]
    Empty,
    /// More bytes than allowed.
    #[error("must be at most {0} bytes long")]
    TooLong(usize),
    /// A character that no display or log shows faithfully.
    #[error("must not contain {0}")]
    Misplaced(Misplaced),
    /// White space at either end, which no reader could see.
    #[error("must not begin or end with white space")]
    Padded,
    /// The same text could be written with other bytes.
    #[error("must be in Unicode normalization form C")]
    NotNormalized,
    /// Outside what a metadata value can carry.
    #[error("must be visible ASCII")]
    NotAscii,
    /// Outside what a name that is typed, and used in paths, consists of.
    #[error("must consist of letters a to z, digits, '.', '_' and '-'")]
    NotPlain,
}

/// What a word has to be.
fn check(text: &str, max_bytes: usize) -> Result<(), WordError> {
    check_recorded(text, max_bytes)?;
    text.chars().find_map(misplaced).map_or(Ok(()), |class| Err(WordError::Misplaced(class)))
}

/// What every recorded word is. The ledger may hold words of a wider profile, with characters that show nothing.
fn check_recorded(text: &str, max_bytes: usize) -> Result<(), WordError> {
    if text.is_empty() {
        Err(WordError::Empty)
    } else if text.len() > max_bytes {
        Err(WordError::TooLong(max_bytes))
    } else if text.chars().any(char::is_control) {
        Err(WordError::Misplaced(Misplaced::Control))
    } else if text.trim() != text {
        Err(WordError::Padded)
    } else if !is_nfc(text) {
        Err(WordError::NotNormalized)
    } else {
        Ok(())
    }
}

macro_rules! word {
    ($(#[$doc:meta])* $name:ident, $max:literal) => {
        $(#[$doc])*
        ///
        /// Ordered by bytes, as the database orders it. Cloning is cheap.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The longest allowed, in bytes.
            pub const MAX_BYTES: usize = $max;

            /// The well-formed word in `text`.
            pub fn parse(text: &str) -> Result<Self, WordError> {
                check(text, Self::MAX_BYTES).map(|()| Self(text.into()))
            }

            /// The word in `text`, which is recorded already, perhaps with characters that show nothing: such words stay
            /// readable. A word to be recorded goes through [`Self::parse`].
            pub fn recorded(text: &str) -> Result<Self, WordError> {
                check_recorded(text, Self::MAX_BYTES).map(|()| Self(text.into()))
            }

            /// Its text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        /// Personal data stays out of logs: only the length shows.
        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(formatter, concat!(stringify!($name), "({} bytes)"), self.0.len())
            }
        }
    };
}

word!(
    /// An opaque id of a person, chosen by the caller.
    PersonId,
    128
);
word!(
    /// The id of an interaction, unique within its tenant.
    InteractionId,
    128
);
word!(
    /// Where an interaction happened: `email`, `linkedin`, …
    Channel,
    64
);
word!(
    /// What an interaction was about.
    Topic,
    64
);
word!(
    /// Which goal of the recipient an interaction served.
    Goal,
    128
);
word!(
    /// The name of one calling application's closed world.
    TenantId,
    64
);

impl TenantId {
    /// The tenant of callers that name none.
    pub fn unnamed() -> Self {
        Self("default".into())
    }

    /// The tenant named by a metadata value: visible ASCII only.
    pub fn parse_metadata(text: &str) -> Result<Self, WordError> {
        if text.bytes().all(|byte| byte.is_ascii_graphic()) { Self::parse(text) } else { Err(WordError::NotAscii) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_well_formed() {
        for (text, error) in [
            ("", WordError::Empty),
            (&*"é".repeat(65), WordError::TooLong(128)),
            ("a\u{0}b", WordError::Misplaced(Misplaced::Control)),
            ("tab\there", WordError::Misplaced(Misplaced::Control)),
            (" ada", WordError::Padded),
            ("e\u{301}", WordError::NotNormalized),
        ] {
            assert_eq!(PersonId::parse(text), Err(error));
            assert_eq!(PersonId::recorded(text), Err(error));
        }
        assert!(PersonId::parse(&"é".repeat(64)).is_ok());
        assert_eq!(TenantId::parse_metadata("späti"), Err(WordError::NotAscii));
    }

    #[test]
    fn what_shows_nothing_is_refused_and_stays_readable() {
        for (text, error) in [
            ("\u{200b}", "must not contain format characters, such as joiners"),
            ("ada\u{202e}", "must not contain format characters, such as joiners"),
            ("\u{3164}", "must not contain characters that show nothing, such as fillers"),
            ("a\u{a0}b", "must not contain white space other than U+0020"),
            ("a\u{e000}", "must not contain private-use characters"),
            ("a\u{fdd0}", "must not contain unassigned code points or noncharacters"),
        ] {
            assert_eq!(PersonId::parse(text).unwrap_err().to_string(), error);
            assert_eq!(PersonId::recorded(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn hides_its_text_from_logs() {
        assert_eq!(format!("{:?}", PersonId::parse("ada").unwrap()), "PersonId(3 bytes)");
    }
}
