//! A policy as a document: what is fitted, in JSON, for people to read, keep and publish. What ties keep is the same in all
//! policies and no part of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{DEFAULT, Policy, TERM_NAMES, TERMS};

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
    horizon_days: f64,
    prior: f64,
    prior_trials: f64,
    base: f64,
    weights: BTreeMap<String, f64>,
    real_from: f64,
    budding_from: f64,
    /// What it was fitted on and how it did: for people, without effect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    fit: Option<serde_json::Value>,
}

/// The bounds of a field.
struct Bound {
    field: &'static str,
    value: f64,
    least: f64,
    largest: f64,
}

impl Document {
    fn faults(&self) -> Vec<DocumentFault> {
        let bound = |field, value, least, largest| Bound { field, value, least, largest };
        let bounds = [
            bound("horizon_days", self.horizon_days, 1.0, 3650.0),
            bound("prior", self.prior, 1e-6, 0.5),
            bound("prior_trials", self.prior_trials, 0.1, 1e6),
            bound("base", self.base, -50.0, 20.0),
            bound("real_from", self.real_from, self.prior, 1.0),
            bound("budding_from", self.budding_from, self.prior, 1.0),
        ];
        let outside = bounds.iter().filter(|bound| !(bound.least..=bound.largest).contains(&bound.value));
        let outside = outside.map(|bound| DocumentFault {
            field: bound.field.to_owned(),
            what: format!("must lie between {} and {}", bound.least, bound.largest),
        });
        let weights = self.weights.iter().filter_map(|(name, weight)| {
            let what = if !TERM_NAMES.contains(&name.as_str()) {
                "is not a term of this version"
            } else if !(0.0..=100.0).contains(weight) {
                "must lie between 0 and 100: evidence of help never lowers a willingness"
            } else {
                return None;
            };
            Some(DocumentFault { field: format!("weights.{name}"), what: what.to_owned() })
        });
        outside.chain(weights).collect()
    }
}

impl Policy {
    /// Reads a policy from its document, or tells all that is wrong with that. Terms without a weight count nothing.
    pub fn parse(document: &str) -> Result<Self, Vec<DocumentFault>> {
        let fault = |error: serde_json::Error| vec![DocumentFault { field: String::new(), what: error.to_string() }];
        let read: Document = serde_json::from_str(document).map_err(fault)?;
        let faults = read.faults();
        if !faults.is_empty() {
            return Err(faults);
        }
        let weights: [f64; TERMS] =
            std::array::from_fn(|term| read.weights.get(TERM_NAMES[term]).copied().unwrap_or_default());
        Ok(Self {
            version: read.version.into(),
            horizon_days: read.horizon_days,
            prior: read.prior,
            prior_trials: read.prior_trials,
            base: read.base,
            weights,
            real_from: read.real_from,
            budding_from: read.budding_from,
            ..DEFAULT.clone()
        })
    }

    /// The document of this policy, as pretty JSON.
    pub fn document(&self) -> String {
        self.document_with(None)
    }

    /// The document of this policy, with a word on how it was fitted.
    pub fn document_with(&self, fit: Option<serde_json::Value>) -> String {
        let document = Document {
            version: self.version.to_string(),
            horizon_days: self.horizon_days,
            prior: self.prior,
            prior_trials: self.prior_trials,
            base: self.base,
            weights: TERM_NAMES.into_iter().map(str::to_owned).zip(self.weights).collect(),
            real_from: self.real_from,
            budding_from: self.budding_from,
            fit,
        };
        // Finite numbers and texts can always be written.
        serde_json::to_string_pretty(&document).unwrap_or_default()
    }
}
