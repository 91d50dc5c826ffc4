//! The characters that ids and words may hold. Two ids that look alike must be alike, so the profile leaves out every character
//! that shows nothing or changes how its neighbours are shown, in the spirit of UTS #39 and of PRECIS (RFC 8264).
//!
//! Joiners (U+200C, U+200D) and variation selectors are refused, too: some scripts and emoji are spelled with them, and a word
//! without them is the same word to its reader. Letters that look alike in different scripts stay apart.

use std::borrow::Cow;

use unicode_normalization::{UnicodeNormalization as _, is_nfc};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory as _};

/// Why a character has no place in an id or a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misplaced {
    /// General category Cc.
    #[error("control characters")]
    Control,
    /// General category Cf: joiners, direction marks, tags, the soft hyphen and the like.
    #[error("format characters, such as joiners")]
    Format,
    /// Default-ignorable code points, and characters whose glyph is blank.
    #[error("characters that show nothing, such as fillers")]
    Blank,
    /// Looks like U+0020, and is another character.
    #[error("white space other than U+0020")]
    Space,
    /// General category Co: only some fonts know what they look like.
    #[error("private-use characters")]
    PrivateUse,
    /// General category Cn, noncharacters included: nobody knows yet what they look like.
    #[error("unassigned code points or noncharacters")]
    Unassigned,
}

/// Code points that show nothing although they are neither control nor format characters, in ascending ranges: those with the
/// property `Default_Ignorable_Code_Point`, the blank notehead, blank Braille and Egyptian cells, and the Khitan filler.
const BLANK: [(char, char); 15] = [
    ('\u{34f}', '\u{34f}'),
    ('\u{115f}', '\u{1160}'),
    ('\u{17b4}', '\u{17b5}'),
    ('\u{180b}', '\u{180f}'),
    ('\u{2065}', '\u{2065}'),
    ('\u{2800}', '\u{2800}'),
    ('\u{3164}', '\u{3164}'),
    ('\u{fe00}', '\u{fe0f}'),
    ('\u{ffa0}', '\u{ffa0}'),
    ('\u{fff0}', '\u{fff8}'),
    ('\u{13441}', '\u{13442}'),
    ('\u{16fe4}', '\u{16fe4}'),
    ('\u{1d159}', '\u{1d159}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0000}', '\u{e0fff}'),
];

/// Why a character has no place in an id or a word, if it has none.
pub(super) fn misplaced(character: char) -> Option<Misplaced> {
    if matches!(character, ' '..='~') {
        return None;
    }
    Some(match character.general_category() {
        GeneralCategory::Control => Misplaced::Control,
        GeneralCategory::Format => Misplaced::Format,
        GeneralCategory::SpaceSeparator | GeneralCategory::LineSeparator | GeneralCategory::ParagraphSeparator => {
            Misplaced::Space
        }
        _ if BLANK.iter().any(|(first, last)| (*first..=*last).contains(&character)) => Misplaced::Blank,
        GeneralCategory::PrivateUse => Misplaced::PrivateUse,
        GeneralCategory::Unassigned | GeneralCategory::Surrogate => Misplaced::Unassigned,
        _ => return None,
    })
}

/// A text without the characters that have no place in an id or a word, in normalization form C, and without white space at
/// either end. White space within becomes U+0020. The text may be empty then.
pub fn cleaned(text: &str) -> Cow<'_, str> {
    if text.trim() == text && !text.chars().any(|character| misplaced(character).is_some()) && is_nfc(text) {
        return Cow::Borrowed(text);
    }
    let spaced = text.chars().map(|character| if character.is_whitespace() { ' ' } else { character });
    let kept: String = spaced.filter(|character| misplaced(*character).is_none()).nfc().collect();
    Cow::Owned(kept.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::PersonId, *};

    #[test]
    fn every_class_is_told_from_the_others() {
        for (characters, expected) in [
            ("\0\u{1f}\u{7f}\u{85}\u{9f}", Some(Misplaced::Control)),
            (
                "\u{ad}\u{61c}\u{180e}\u{200b}\u{200c}\u{200d}\u{200e}\u{202e}\u{2060}\u{2066}\u{feff}",
                Some(Misplaced::Format),
            ),
            ("\u{fff9}\u{1bca0}\u{1d173}\u{13430}\u{e0001}\u{e0041}", Some(Misplaced::Format)),
            ("\u{34f}\u{115f}\u{1160}\u{17b4}\u{180b}\u{2800}\u{3164}\u{fe0f}\u{ffa0}", Some(Misplaced::Blank)),
            ("\u{2065}\u{fff0}\u{13441}\u{16fe4}\u{1d159}\u{e0100}\u{e0fff}", Some(Misplaced::Blank)),
            ("\u{a0}\u{1680}\u{2003}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}", Some(Misplaced::Space)),
            ("\u{e000}\u{f8ff}\u{f0000}\u{10fffd}", Some(Misplaced::PrivateUse)),
            ("\u{378}\u{fdd0}\u{ffff}\u{1fffe}\u{10ffff}", Some(Misplaced::Unassigned)),
            (" a~zoëЖ字한あ가नि١🦀ﬁ①\u{301}", None),
        ] {
            for character in characters.chars() {
                assert_eq!(misplaced(character), expected, "U+{:04X}", u32::from(character));
            }
        }
    }

    #[test]
    fn what_is_cleaned_still_reads_the_same() {
        for (text, expected) in [
            ("ada", "ada"),
            ("a\u{200b}da\u{feff}", "ada"),
            ("\u{3000}ada\u{a0}lovelace\t", "ada lovelace"),
            ("zoe\u{308}", "zoë"),
            ("zoe\u{200d}\u{308}", "zoë"),
            ("می\u{200c}خواهم", "میخواهم"),
            ("❤\u{fe0f}", "❤"),
            ("\u{3164}\u{200b} ", ""),
        ] {
            assert_eq!(cleaned(text), expected, "{text:?}");
        }
    }

    /// Characters of which most have no place in an id, and some change when they are normalized.
    fn odd_character() -> impl Strategy<Value = char> {
        prop_oneof![
            any::<char>(),
            proptest::sample::select(BLANK.iter().map(|(first, _)| *first).collect::<Vec<_>>()),
            proptest::char::range('\u{2000}', '\u{206f}'),
            proptest::char::range('\u{300}', '\u{36f}'),
            proptest::char::range('a', 'e'),
        ]
    }

    proptest! {
        #[test]
        fn an_id_holds_nothing_that_is_misplaced(text in proptest::collection::vec(odd_character(), 0..8)) {
            let text: String = text.into_iter().collect();
            let fits = !text.is_empty() && text.len() <= PersonId::MAX_BYTES;
            let is_sound = text.chars().all(|character| misplaced(character).is_none());
            let expected = fits && is_sound && text.trim() == text && is_nfc(&text);
            prop_assert_eq!(PersonId::parse(&text).is_ok(), expected);
            prop_assert!(PersonId::parse(&text).is_err() || PersonId::recorded(&text).is_ok());
            let clean = cleaned(&text);
            prop_assert!(clean.is_empty() || clean.len() > PersonId::MAX_BYTES || PersonId::parse(&clean).is_ok());
            prop_assert_eq!(cleaned(&clean), clean.as_ref());
            prop_assert!(!expected || clean == text, "what is sound stays as it is");
        }
    }
}
