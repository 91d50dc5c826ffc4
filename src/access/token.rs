//! Tokens: JSON Web Tokens (RFC 7519) of one issuer, signed by a key that the issuer publishes (RFC 7517). Issuer, audience
//! and algorithms have to be said; secrets shared with an issuer are not taken.

use std::{
    collections::HashMap,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header, jwk::JwkSet};
use quick_cache::sync::Cache;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::domain::Timestamp;

use super::{
    document::{Document, Node},
    file::{beside, bounded},
    signature,
};

/// The longest token looked at, in bytes.
const MAX_BYTES: usize = 8 * 1024;
/// How far the clocks of issuer and server may be apart, in seconds.
const LEEWAY: i64 = 30;
/// How many tokens are remembered whose signature was found good, and how many whose was not: shown again, neither costs
/// another look at it, and bad ones never push out good ones.
const REMEMBERED: (usize, usize) = (4096, 1024);
/// Those that prove something about whoever signed: not those with a shared secret.
pub(super) const ALGORITHMS: [Algorithm; 9] = [
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
    known: RwLock<Arc<Known>>,
}

/// The issuer's keys, and what was found with them. Tokens go by their hashes.
struct Known {
    keys: IssuerKeys,
    good: Cache<[u8; 32], Good>,
    bad: Cache<[u8; 32], ()>,
}

/// A token that the issuer has signed: whose it is, from when on and until when.
#[derive(Clone)]
struct Good {
    subject: Arc<str>,
    from: i64,
    until: i64,
}

impl Good {
    fn subject_at(self, now: i64) -> Option<Arc<str>> {
        (self.from..self.until).contains(&now).then_some(self.subject)
    }
}

impl Known {
    fn new(keys: IssuerKeys) -> Arc<Self> {
        Arc::new(Self { keys, good: Cache::new(REMEMBERED.0), bad: Cache::new(REMEMBERED.1) })
    }
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

/// True when the header has the field `crit`, whatever it holds: it names extensions without which a token must be refused
/// (RFC 7515, section 4.1.11), and Rapport understands none.
fn names_extensions(token: &str) -> bool {
    let header = token.split('.').next().and_then(|header| URL_SAFE_NO_PAD.decode(header).ok());
    let fields: Option<Map<String, Value>> = header.and_then(|text| serde_json::from_slice(&text).ok());
    fields.is_none_or(|fields| fields.contains_key("crit"))
}

/// Whether nobody between can put other keys in place of those at the address.
fn is_confidential(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else { return url.starts_with("https://") };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once(':').filter(|(_, port)| port.parse::<u16>().is_ok()).map_or(authority, |it| it.0);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    address.map_or(host == "localhost", |address| address.is_loopback())
}

impl Tokens {
    /// Reads the rules for tokens from the field `tokens` of an access file at `path`, with the files that the field names.
    pub(super) fn read<'a>(document: &mut Document<'a>, node: &Node<'a>, path: &Path) -> Option<Self> {
        let names = ["issuer", "audience", "algorithms", "keys_file", "keys_url"];
        let [issuer, audience, algorithms, keys_file, keys_url] = document.fields(node, names);
        let issuer = required_text(document, node, "issuer", issuer);
        let audience = required_text(document, node, "audience", audience);
        let algorithms = algorithms_in(document, node, algorithms);
        let (source, keys) = keys_at(document, node, (keys_file, keys_url), path)?;
        signature::install();
        let mut validation = Validation::new(*algorithms.first()?);
        validation.algorithms = algorithms;
        validation.set_issuer(&[issuer?]);
        validation.set_audience(&[audience?]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        // Times are compared with the clock that is an argument.
        (validation.validate_exp, validation.validate_nbf) = (false, false);
        Some(Self { source, validation, known: RwLock::new(Known::new(keys)) })
    }
}

/// A text that has to be there, and not to be empty.
fn required_text<'a>(
    document: &mut Document<'a>,
    within: &Node<'a>,
    name: &str,
    field: Option<Node<'a>>,
) -> Option<String> {
    let field = document.required(within, name, field)?;
    let text = document.text(&field)?;
    if text.is_empty() {
        document.fault(&field, "must not be empty");
    }
    Some(text)
}

fn algorithms_in<'a>(document: &mut Document<'a>, within: &Node<'a>, field: Option<Node<'a>>) -> Vec<Algorithm> {
    let Some(field) = document.required(within, "algorithms", field) else { return Vec::new() };
    let names = ALGORITHMS.map(|algorithm| format!("{algorithm:?}"));
    let words: Vec<(&str, Algorithm)> = names.iter().map(String::as_str).zip(ALGORITHMS).collect();
    let items = document.items(Some(&field));
    if items.is_empty() && field.is_list() {
        document.fault(&field, "must not be empty");
    }
    items.iter().filter_map(|node| document.one_of(node, &words)).collect()
}

/// Where the issuer's keys are, and those in a file.
fn keys_at<'a>(
    document: &mut Document<'a>,
    within: &Node<'a>,
    given: (Option<Node<'a>>, Option<Node<'a>>),
    path: &Path,
) -> Option<(KeySource, IssuerKeys)> {
    match given {
        (Some(node), None) => {
            let file = beside(path, Path::new(&document.text(&node)?));
            match bounded(&file).map(|text| issuer_keys(&text)) {
                Ok(Some(keys)) => return Some((KeySource::File(file), keys)),
                Ok(None) => {
                    document.fault(&node, format_args!("names {}, which is no set of JSON Web Keys", file.display()));
                }
                Err(error) => {
                    document.fault(&node, format_args!("names {}, which cannot be read: {error}", file.display()));
                }
            }
        }
        (None, Some(node)) => {
            let url = document.text(&node)?;
            if is_confidential(&url) {
                return Some((KeySource::Url(url), IssuerKeys::default()));
            }
            document.fault(&node, "must be an https address, or an http address on this machine");
        }
        _ => document.fault(within, "must have either keys_file or keys_url"),
    }
    None
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
        let (hash, known) = (*blake3::hash(token.as_bytes()).as_bytes(), self.known());
        if let Some(good) = known.good.get(&hash) {
            return good.subject_at(now);
        }
        if known.bad.get(&hash).is_some() {
            return None;
        }
        let header = decode_header(token).ok().filter(|header| self.validation.algorithms.contains(&header.alg))?;
        if names_extensions(token) {
            return None;
        }
        let Some(key) = known.keys.get(header.kid.as_deref().unwrap_or_default()) else {
            unknown_key();
            return None;
        };
        let validation = Validation { algorithms: vec![header.alg], ..self.validation.clone() };
        let Ok(decoded) = decode::<Claims>(token, key, &validation) else {
            known.bad.insert(hash, ());
            return None;
        };
        let Claims { sub, exp, nbf } = decoded.claims;
        let (from, until) = (nbf.saturating_sub(LEEWAY), exp.saturating_add(LEEWAY));
        let good = Good { subject: Arc::from(sub), from, until };
        known.good.insert(hash, good.clone());
        good.subject_at(now)
    }

    fn known(&self) -> Arc<Known> {
        Arc::clone(&self.known.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn keys(&self) -> IssuerKeys {
        Arc::clone(&self.known().keys)
    }

    /// From here on these are the issuer's keys. What an older one signed is no longer good.
    pub(super) fn set_keys(&self, keys: IssuerKeys) {
        *self.known.write().unwrap_or_else(PoisonError::into_inner) = Known::new(keys);
    }
}

#[cfg(test)]
pub(super) mod tests {
    use ring::{
        rand::SystemRandom,
        signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
    };
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_come_over_tls_or_from_this_machine() {
        for good in ["https://issuer.example.org/keys", "http://127.0.0.1:1", "http://[::1]:80/k", "http://localhost/k"]
        {
            assert!(is_confidential(good), "{good}");
        }
        for bad in [
            "http://issuer.example.org",
            "http://10.0.0.1",
            "http://localhost.example.org",
            "http://localhost@a/",
            "ftp://a",
            "",
        ] {
            assert!(!is_confidential(bad), "{bad}");
        }
    }

    /// An issuer's keys, and a token that it has signed; both name the key by this id.
    pub(in crate::access) fn issued(id: &str, subject: &str) -> (String, String) {
        let (random, algorithm) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let private = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(algorithm, private.as_ref(), &random).unwrap();
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let public = json!({"kty": "EC", "crv": "P-256", "kid": id, "x": encoded(x), "y": encoded(y)});
        let header = json!({"alg": "ES256", "kid": id}).to_string();
        let claims = json!({"iss": "i", "aud": "a", "sub": subject, "exp": 1000, "nbf": 100}).to_string();
        let signed = format!("{}.{}", encoded(header.as_bytes()), encoded(claims.as_bytes()));
        let signature = key.sign(&random, signed.as_bytes()).unwrap();
        (json!({"keys": [public]}).to_string(), format!("{signed}.{}", encoded(signature.as_ref())))
    }

    fn tokens(folder: &Path, keys: &str) -> Tokens {
        std::fs::write(folder.join("keys.json"), keys).unwrap();
        let rules =
            json!({"issuer": "i", "audience": "a", "algorithms": ["ES256"], "keys_file": "keys.json"}).to_string();
        let (mut document, rules) = Document::parse(&rules).unwrap();
        Tokens::read(&mut document, &rules, &folder.join("access.json")).unwrap()
    }

    #[test]
    fn a_signature_is_looked_at_once_whether_it_is_good_or_not() {
        let folder = tempfile::tempdir().unwrap();
        let ((keys, good), (other, forged)) = (issued("one", "ours"), issued("one", "theirs"));
        let tokens = tokens(folder.path(), &keys);
        let subject = |token: &str, at| tokens.subject(token, Timestamp::from_seconds(at, 0).unwrap(), || {});
        let known = tokens.known();
        for _ in 0..2 {
            assert_eq!(subject(&good, 50), None, "not yet");
            assert_eq!(subject(&good, 500).as_deref(), Some("ours"));
            assert_eq!(subject(&good, 1031), None, "no more");
            assert_eq!(subject(&forged, 500), None);
            assert_eq!((known.good.len(), known.bad.len()), (1, 1), "expired ones, too, are known again");
        }
        for number in 0..10_000 {
            assert_eq!(subject(&format!("{forged}{number}"), 500), None);
        }
        assert!(known.bad.len() <= REMEMBERED.1 && known.good.len() == 1);
        // With other keys everything is looked at anew.
        tokens.set_keys(issuer_keys(&other).unwrap());
        assert_eq!(subject(&good, 500), None);
        assert_eq!(subject(&forged, 500).as_deref(), Some("theirs"));
    }
}
