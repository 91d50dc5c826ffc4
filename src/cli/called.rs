//! How this program is called, for hints that a user can type as they stand.

use std::ffi::OsString;

use crate::config::process_arguments;

/// The name that hints are written with in the sources.
const WRITTEN: &str = "`rapport ";

/// The program as it was typed: `rapport` where the shell found it, else the path that led to it, such as
/// `target/debug/rapport` under `cargo run`.
pub(super) fn name() -> String {
    typed(process_arguments().next())
}

/// A sentence whose hints name the program as it was typed.
pub(super) fn hinted(sentence: &str) -> String {
    if !sentence.contains(WRITTEN) {
        return sentence.to_owned();
    }
    sentence.replace(WRITTEN, &format!("`{} ", name()))
}

fn typed(first: Option<OsString>) -> String {
    let name = first.map(|first| first.to_string_lossy().into_owned()).filter(|name| !name.is_empty());
    name.map_or_else(|| "rapport".to_owned(), |name| quoted(&name))
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |letter: char| letter.is_alphanumeric() || "/._-+:@%,=".contains(letter);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_named_as_it_was_typed() {
        let named = |first: &str| typed(Some(first.into()));
        assert_eq!(named("rapport"), "rapport");
        assert_eq!(named("target/debug/rapport"), "target/debug/rapport");
        assert_eq!(named("./it's here/rapport"), r"'./it'\''s here/rapport'");
        assert_eq!([named(""), typed(None)], ["rapport", "rapport"]);
    }

    #[test]
    fn only_hints_name_it() {
        let name = name();
        assert_eq!(
            hinted("run `rapport migrate`, or `rapport doctor`"),
            format!("run `{name} migrate`, or `{name} doctor`")
        );
        assert_eq!(hinted("rapport is here: `rapport`"), "rapport is here: `rapport`");
    }
}
