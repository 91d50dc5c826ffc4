//! Reading a JSON document so that every fault in it is told at once, each with its line, its column and its path. What stands in
//! the document may be a secret: only words that name something are repeated, and none that looks like a key.

use std::{fmt, fmt::Display};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::Key;

/// The longest word that is repeated, in bytes.
const MAX_SHOWN: usize = 32;

/// A document, and what is wrong with it so far.
pub(super) struct Document<'a> {
    text: &'a str,
    /// A sentence each, with how far into the text it belongs, in bytes.
    faults: Vec<(usize, String)>,
}

/// A value in a document.
#[derive(Clone, Debug)]
pub(super) struct Node<'a> {
    /// The path from the top of the document, such as `principals[0].name`.
    path: String,
    /// Its text, without white space around it.
    text: &'a str,
}

/// The entries of an object, as often and in the order as they stand there.
struct Entries<'a>(Vec<(String, &'a RawValue)>);

impl Node<'_> {
    /// True for a list, empty or not.
    pub(super) fn is_list(&self) -> bool {
        self.text.starts_with('[')
    }
}

impl<'a> Document<'a> {
    /// The document in a text, and the object it consists of; or where the text is no JSON.
    pub(super) fn parse(text: &'a str) -> Result<(Self, Node<'a>), String> {
        let whole: Result<&RawValue, _> = serde_json::from_str(text);
        let whole = whole.map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let what = error.to_string();
            let what = what.split(" at line ").next().unwrap_or_default();
            format!("line {line}, column {column}: {what}")
        })?;
        Ok((Self { text, faults: Vec::new() }, Node { path: String::new(), text: whole.get() }))
    }

    /// Notes what is wrong with a value, as a phrase that follows its path.
    pub(super) fn fault(&mut self, node: &Node<'a>, phrase: impl Display) {
        let path = if node.path.is_empty() { "the document" } else { &node.path };
        self.note(node.text, format_args!("{path} {phrase}"));
    }

    /// Notes what is wrong where this part of the text stands.
    fn note(&mut self, part: &'a str, sentence: impl Display) {
        self.faults.push((self.place_of(part), sentence.to_string()));
    }

    fn place_of(&self, part: &'a str) -> usize {
        part.as_ptr().addr().saturating_sub(self.text.as_ptr().addr())
    }

    /// `value`, unless something is wrong with the document: then all of that, from its beginning to its end.
    pub(super) fn finish<T>(mut self, value: Option<T>) -> Result<T, Vec<String>> {
        self.faults.sort_by_key(|(place, _)| *place);
        let told = |(place, sentence): &(usize, String)| {
            let before = self.text.get(..*place).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            format!("line {line}, column {column}: {sentence}")
        };
        value.filter(|_| self.faults.is_empty()).ok_or_else(|| self.faults.iter().map(told).collect())
    }

    /// The fields of an object by their names; one that is null counts as absent. What else is in it is a fault.
    pub(super) fn fields<const COUNT: usize>(
        &mut self,
        node: &Node<'a>,
        names: [&str; COUNT],
    ) -> [Option<Node<'a>>; COUNT] {
        let mut fields = [const { None }; COUNT];
        let Ok(Entries(entries)) = serde_json::from_str(node.text) else {
            self.of_other_type(node, "an object");
            return fields;
        };
        for (name, value) in entries {
            let path = if node.path.is_empty() { name.clone() } else { format!("{}.{name}", node.path) };
            let found = Node { path, text: value.get() };
            match names.iter().position(|known| *known == name) {
                None => {
                    let within = if node.path.is_empty() { "the document" } else { &node.path };
                    let (unknown, known) = (shown(&name, "a field"), names.join(", "));
                    let key = self.key_of(&found, &name);
                    self.note(key, format_args!("{within} has {unknown}, and may only have {known}"));
                }
                Some(place) if fields[place].is_some() => self.fault(&found, "is there twice"),
                Some(_) if found.text == "null" => {}
                Some(place) => fields[place] = Some(found),
            }
        }
        fields
    }

    /// The name before a value, as it stands in the text.
    fn key_of(&self, value: &Node<'a>, name: &str) -> &'a str {
        let key = self.text.get(..self.place_of(value.text)).and_then(|before| before.rfind(&format!("\"{name}\"")));
        key.and_then(|key| self.text.get(key..)).unwrap_or(value.text)
    }

    /// A field that has to be there.
    pub(super) fn required(&mut self, within: &Node<'a>, name: &str, field: Option<Node<'a>>) -> Option<Node<'a>> {
        if field.is_none() && within.text.starts_with('{') {
            self.fault(within, format_args!("lacks the field {name}"));
        }
        field
    }

    /// The values in a list; none when there is no list.
    pub(super) fn items(&mut self, list: Option<&Node<'a>>) -> Vec<Node<'a>> {
        let Some(list) = list else { return Vec::new() };
        let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(list.text) else {
            self.of_other_type(list, "a list");
            return Vec::new();
        };
        let node =
            |(place, value): (usize, &'a RawValue)| Node { path: format!("{}[{place}]", list.path), text: value.get() };
        items.into_iter().enumerate().map(node).collect()
    }

    /// A text.
    pub(super) fn text(&mut self, node: &Node<'a>) -> Option<String> {
        let text = serde_json::from_str(node.text).ok();
        if text.is_none() {
            self.of_other_type(node, "a text");
        }
        text
    }

    /// The value that belongs to a text, which must be one of these words.
    pub(super) fn one_of<T: Copy>(&mut self, node: &Node<'a>, words: &[(&str, T)]) -> Option<T> {
        let word = self.text(node)?;
        let found = words.iter().find(|(known, _)| *known == word).map(|(_, value)| *value);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.fault(node, format_args!("is {}, and must be {}", shown(&word, "a word"), or(&known)));
        }
        found
    }

    fn of_other_type(&mut self, node: &Node<'a>, wanted: &str) {
        let found = match node.text.chars().next() {
            Some('{') => "an object",
            Some('[') => "a list",
            Some('"') => "a text",
            Some('t' | 'f') => "true or false",
            Some('n') => "null",
            _ => "a number",
        };
        self.fault(node, format_args!("must be {wanted}, and is {found}"));
    }
}

/// A word in quotes, unless it could be a secret: then what else it is called.
fn shown(word: &str, otherwise: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-.* ".contains(letter);
    if word.len() <= MAX_SHOWN && word.chars().all(is_plain) && !Key::looks_like(word) {
        return format!("{word:?}");
    }
    format!("{otherwise} that is not repeated here")
}

/// `a, b or c`.
fn or(words: &[&str]) -> String {
    match words {
        [before @ .., last] if !before.is_empty() => format!("{} or {last}", before.join(", ")),
        words => words.concat(),
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Entries<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                std::iter::from_fn(|| map.next_entry().transpose()).collect()
            }
        }
        deserializer.deserialize_map(Object).map(Entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "{\n  \"list\": [\"zoë\", \"read\", 7, \"rapport_a_b\"],\n  \"name\": {}, \"nmae\": 1,\n  \"name\": 2, \"missing\": null }";

    #[test]
    fn every_fault_has_its_place() {
        let (mut document, whole) = Document::parse(TEXT).unwrap();
        let [list, name, missing] = document.fields(&whole, ["list", "name", "missing"]);
        assert!(document.required(&whole, "missing", missing).is_none());
        let words = [("read", 1), ("write", 2), ("own", 3)];
        let items = document.items(list.as_ref());
        let found: Vec<_> = items.iter().map(|item| document.one_of(item, &words)).collect();
        assert_eq!(found, [None, Some(1), None, None]);
        assert!(document.text(&name.clone().unwrap()).is_none() && document.items(name.as_ref()).is_empty());
        assert_eq!(
            document.finish(Some(())).unwrap_err(),
            [
                "line 1, column 1: the document lacks the field missing",
                "line 2, column 12: list[0] is a word that is not repeated here, and must be read, write or own",
                "line 2, column 27: list[2] must be a text, and is a number",
                "line 2, column 30: list[3] is a word that is not repeated here, and must be read, write or own",
                "line 3, column 11: name must be a text, and is an object",
                "line 3, column 11: name must be a list, and is an object",
                "line 3, column 15: the document has \"nmae\", and may only have list, name, missing",
                "line 4, column 11: name is there twice",
            ]
        );
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place_and_nothing_that_stands_there() {
        for (text, expected) in [
            ("", "line 1, column 0: EOF while parsing a value"),
            ("{\"a\": \"secret\"", "line 1, column 14: EOF while parsing an object"),
            ("{\n  secret: 1}", "line 2, column 3: key must be a string"),
            ("{} secret", "line 1, column 4: trailing characters"),
        ] {
            assert_eq!(Document::parse(text).map(|_| ()).unwrap_err(), expected);
        }
        let (mut document, list) = Document::parse("[]").unwrap();
        let [none] = document.fields(&list, ["a"]);
        assert!(document.required(&list, "a", none).is_none());
        let told = document.finish(Some(())).unwrap_err();
        assert_eq!(told, ["line 1, column 1: the document must be an object, and is a list"]);
    }
}
