//! A policy as a document: what is fitted, in JSON, for people to read, keep and publish.

use serde::{Deserialize, Serialize};

use super::{DEFAULT, Policy};

/// What is wrong with one field of a document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {what}")]
pub struct DocumentFault {
    /// The field; empty for the document as a whole.
    pub field: String,
    /// What is wrong with it.
    pub what: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Document {
    version: String,
}

impl Policy {
    /// Reads a policy from its document, or tells all that is wrong with that.
    pub fn parse(document: &str) -> Result<Self, Vec<DocumentFault>> {
        let fault = |error: serde_json::Error| vec![DocumentFault { field: String::new(), what: error.to_string() }];
        let read: Document = serde_json::from_str(document).map_err(fault)?;
        Ok(Self { version: read.version.into(), ..DEFAULT.clone() })
    }

    /// The document of this policy, as pretty JSON.
    pub fn document(&self) -> String {
        let document = Document { version: self.version.to_string() };
        serde_json::to_string_pretty(&document).unwrap_or_default()
    }
}
