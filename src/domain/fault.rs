//! What is wrong with a request: every faulty field, collected before anything is refused.

use std::fmt::Display;

/// One faulty field. The description never repeats the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The path of the field in the request, such as `interaction.recipients[0]`.
    pub field: String,
    /// What is expected of it, as a phrase: "must not be empty".
    pub description: String,
}

/// All faulty fields of one request, in the order of its fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Notes one fault.
    pub fn add(&mut self, field: impl Display, description: impl Into<String>) {
        self.0.push(Fault { field: field.to_string(), description: description.into() });
    }

    /// Takes a parsed value, or notes why there is none. Only then is the path of the field written out.
    pub fn take<T, E: Display>(&mut self, field: impl Display, parsed: Result<T, E>) -> Option<T> {
        parsed.map_err(|error| self.add(field, error.to_string())).ok()
    }

    /// The faults noted so far.
    pub fn list(&self) -> &[Fault] {
        &self.0
    }

    /// `value` when there is no fault, else all of them.
    pub fn or<T>(self, value: Option<T>) -> Result<T, Self> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self),
        }
    }
}
