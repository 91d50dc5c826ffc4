//! Tokens: JSON Web Tokens (RFC 7519) of one issuer, signed by a key that the issuer publishes (RFC 7517). Issuer, audience
//! and algorithms have to be said; secrets shared with an issuer are not taken.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use quick_cache::sync::Cache;
use serde::Deserialize;

use crate::domain::Timestamp;

use super::file::{beside, bounded};

/// The longest token looked at, in bytes.
const MAX_BYTES: usize = 8 * 1024;
/// How far the clocks of issuer and server may be apart, in seconds.
const LEEWAY: i64 = 30;
/// How many tokens are remembered that were found good.
const REMEMBERED: usize = 4096;
/// Those that prove something about whoever signed: not those with a shared secret.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Which tokens are taken, as an access file says it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TokenRules {
    issuer: String,
    audience: String,
    algorithms: Vec<Algorithm>,
    keys_file: Option<PathBuf>,
    keys_url: Option<String>,
}

/// Where the issuer's keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeySource {
    File(PathBuf),
    Url(String),
}

/// Tells whose token it is.
pub(super) struct Tokens {
    pub source: KeySource,
    validation: Validation,
    keys: RwLock<IssuerKeys>,
    /// By the hash of the token: whose it is, and until when.
    good: Cache<[u8; 32], (Arc<str>, i64)>,
}

/// The issuer's keys by their ids.
pub(super) type IssuerKeys = Arc<HashMap<String, DecodingKey>>;

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: i64,
    #[serde(default)]
    nbf: i64,
}

impl TokenRules {
    /// What tells whose token it is; faults are noted.
    pub(super) fn made(self, path: &Path, faults: &mut Vec<String>) -> Option<Tokens> {
        for (name, text) in [("issuer", &self.issuer), ("audience", &self.audience)] {
            if text.is_empty() {
                faults.push(format!("tokens.{name} must not be empty"));
            }
        }
        if self.algorithms.is_empty() || self.algorithms.iter().any(|named| !ALGORITHMS.contains(named)) {
            faults.push("tokens.algorithms must name some of RS, PS, ES and EdDSA".to_owned());
        }
        let source = match (self.keys_file, self.keys_url) {
            (Some(file), None) => KeySource::File(beside(path, &file)),
            (None, Some(url)) if url.starts_with("https://") || url.starts_with("http://") => KeySource::Url(url),
            _ => {
                faults.push("tokens need either keys_file or keys_url, an address such as https://…".to_owned());
                return None;
            }
        };
        let keys = match &source {
            KeySource::File(file) => {
                let keys = bounded(file).ok().and_then(|text| issuer_keys(&text));
                if keys.is_none() {
                    faults.push("tokens.keys_file must be a readable set of JSON Web Keys".to_owned());
                }
                keys?
            }
            KeySource::Url(_) => IssuerKeys::default(),
        };
        let mut validation = Validation::new(*self.algorithms.first()?);
        validation.algorithms = self.algorithms;
        validation.set_issuer(&[self.issuer]);
        validation.set_audience(&[self.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Times are compared with the clock that is an argument.
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        Some(Tokens { source, validation, keys: RwLock::new(keys), good: Cache::new(REMEMBERED) })
    }
}

/// The keys in a JSON Web Key Set that can check signatures, by their ids; `None` when it is no such set.
pub(super) fn issuer_keys(text: &str) -> Option<IssuerKeys> {
    let set: JwkSet = serde_json::from_str(text).ok()?;
    let keys = set.keys.iter().filter_map(|key| {
        let id = key.common.key_id.clone().unwrap_or_default();
        Some((id, DecodingKey::from_jwk(key).ok()?))
    });
    Some(Arc::new(keys.collect()))
}

impl Tokens {
    /// The subject of a token that is good now. `unknown_key` is called when it names a key that is not known.
    pub(super) fn subject(&self, token: &str, now: Timestamp, unknown_key: impl FnOnce()) -> Option<Arc<str>> {
        if token.len() > MAX_BYTES {
            return None;
        }
        let (now, _) = now.seconds_and_nanos();
        let hash = *blake3::hash(token.as_bytes()).as_bytes();
        if let Some((subject, until)) = self.good.get(&hash) {
            return (now < until).then_some(subject);
        }
        let header = decode_header(token).ok().filter(|header| self.validation.algorithms.contains(&header.alg))?;
        let keys = self.keys();
        let Some(key) = keys.get(header.kid.as_deref().unwrap_or_default()) else {
            unknown_key();
            return None;
        };
        let validation = Validation { algorithms: vec![header.alg], ..self.validation.clone() };
        let claims = decode::<Claims>(token, key, &validation).ok()?.claims;
        let (from, until) = (claims.nbf.saturating_sub(LEEWAY), claims.exp.saturating_add(LEEWAY));
        if !(from..until).contains(&now) {
            return None;
        }
        let subject: Arc<str> = Arc::from(claims.sub);
        self.good.insert(hash, (Arc::clone(&subject), until));
        Some(subject)
    }

    pub(super) fn keys(&self) -> IssuerKeys {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// From here on these are the issuer's keys. What an older one signed is no longer good.
    pub(super) fn set_keys(&self, keys: IssuerKeys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
        self.good.clear();
    }
}
