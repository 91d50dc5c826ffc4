//! Who may do what: the principals that an access file names, what proves that a caller is one of them, and which rights in
//! which tenants each is granted. Whatever is not granted is denied.
//!
//! A caller shows a key, a token or a client certificate. Nothing here knows of the wire; times are arguments.

mod document;
mod file;
mod key;
mod refresh;
mod signature;
mod token;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::domain::{TenantId, Timestamp};

pub use file::AccessError;
pub use key::{Key, KeyEntry};
pub use refresh::Examined;

use refresh::Texts;
use token::Tokens;

/// What a principal may do in a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Record interactions.
    Record,
    /// Rank connections and look at them.
    Rank,
    /// Publish scoring policies, look at them and roll them back.
    Admin,
}

impl Right {
    /// The name of the right, as access files have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Record => "record",
            Self::Rank => "rank",
            Self::Admin => "admin",
        }
    }
}

/// What a caller shows to prove who calls.
#[derive(Clone, Copy, Default)]
pub struct Credentials<'a> {
    /// A key or a token, as it stands behind `Bearer `.
    pub bearer: Option<&'a str>,
    /// The names in a client certificate that was verified: DNS names and URIs.
    pub certificate_names: &'a [String],
}

/// Why somebody is not let in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Nothing that was shown proves who calls.
    #[error("the call carries no valid credentials")]
    Unknown,
    /// This principal calls, and may not do this; or there is no such tenant: that is not told.
    #[error("the caller may not do this in this tenant")]
    Denied(Arc<str>),
}

/// Somebody who may do what they asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// Who; `None` where callers are not authenticated.
    pub principal: Option<Arc<str>>,
    /// In which tenant.
    pub tenant: TenantId,
}

/// Decides who may do what. Cloning is cheap; all clones follow the file.
#[derive(Clone, Default)]
pub struct Access(Option<Arc<Guard>>);

struct Guard {
    path: PathBuf,
    rules: RwLock<Arc<Rules>>,
    /// What stood in the files when the first rules were read.
    begun: Texts,
    /// Asks for the token issuer's keys again: a token names one that is not known.
    wanted: AtomicBool,
}

/// Everything that an access file says, ready to be asked.
struct Rules {
    principals: Vec<Principal>,
    by_key: HashMap<String, (blake3::Hash, usize)>,
    by_certificate: HashMap<String, usize>,
    by_subject: HashMap<String, usize>,
    tokens: Option<Tokens>,
}

struct Principal {
    name: Arc<str>,
    /// The rights in every tenant.
    everywhere: Vec<Right>,
    rights: HashMap<TenantId, Vec<Right>>,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(if self.0.is_some() { "Access(guarded)" } else { "Access(open)" })
    }
}

impl Access {
    /// Everybody may do everything, in the tenant they name.
    pub fn open() -> Self {
        Self(None)
    }

    /// As the file at `path` says.
    pub fn guarded(path: &Path) -> Result<Self, AccessError> {
        let rules = RwLock::new(Arc::new(Rules::read(path)?));
        let mut guard = Guard { path: path.to_owned(), rules, begun: Texts::default(), wanted: AtomicBool::new(false) };
        guard.begun = guard.texts();
        Ok(Self(Some(Arc::new(guard))))
    }

    /// Whether callers have to prove who they are.
    pub fn is_guarded(&self) -> bool {
        self.0.is_some()
    }

    /// Whether a caller may do something in the tenant they name, or else in the only one they may act in.
    pub fn admit(
        &self,
        shown: &Credentials<'_>,
        tenant: Option<TenantId>,
        right: Right,
        now: Timestamp,
    ) -> Result<Admitted, Refusal> {
        let Some(guard) = &self.0 else {
            return Ok(Admitted { principal: None, tenant: tenant.unwrap_or_else(TenantId::unnamed) });
        };
        let rules = guard.rules();
        let principal = guard.principal(&rules, shown, now).ok_or(Refusal::Unknown)?;
        let name = Arc::clone(&principal.name);
        match tenant.or_else(|| principal.only_tenant()) {
            Some(tenant) if principal.may(right, &tenant) => Ok(Admitted { principal: Some(name), tenant }),
            _ => Err(Refusal::Denied(name)),
        }
    }
}

impl Guard {
    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&self.rules.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// A bearer that proves nothing is not made good by a certificate: who shows it means somebody else.
    fn principal<'a>(&self, rules: &'a Rules, shown: &Credentials<'_>, now: Timestamp) -> Option<&'a Principal> {
        let place = match shown.bearer {
            Some(bearer) if Key::looks_like(bearer) => rules.holder(bearer)?,
            Some(token) => {
                let subject =
                    rules.tokens.as_ref()?.subject(token, now, || self.wanted.store(true, Ordering::Relaxed))?;
                *rules.by_subject.get(&*subject)?
            }
            None => *shown.certificate_names.iter().find_map(|name| rules.by_certificate.get(name))?,
        };
        rules.principals.get(place)
    }
}

impl Rules {
    /// Who holds a key. Hashes are compared in constant time.
    fn holder(&self, key: &str) -> Option<usize> {
        let (hash, place) = self.by_key.get(Key::id_of(key)?)?;
        (blake3::hash(key.as_bytes()) == *hash).then_some(*place)
    }
}

impl Principal {
    fn may(&self, right: Right, tenant: &TenantId) -> bool {
        self.everywhere.contains(&right) || self.rights.get(tenant).is_some_and(|rights| rights.contains(&right))
    }

    fn only_tenant(&self) -> Option<TenantId> {
        let mut tenants = self.rights.keys();
        let only = tenants.next().cloned();
        only.filter(|_| tenants.next().is_none() && self.everywhere.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::MIN;

    fn access(document: &str) -> Result<Access, AccessError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.json");
        std::fs::write(&path, document).unwrap();
        Access::guarded(&path)
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::parse(name).unwrap()
    }

    fn bearer(text: &str) -> Credentials<'_> {
        Credentials { bearer: Some(text), ..Credentials::default() }
    }

    fn two_principals(first: &Key, second: &Key) -> Access {
        let entry = |key: &Key| serde_json::to_string(&key.entry()).unwrap();
        let document = format!(
            r#"{{"principals": [
                {{"name": "crm", "keys": [{}], "certificates": ["spiffe://example.org/crm"],
                  "grants": [{{"tenants": ["crm"], "rights": ["record", "rank"]}}]}},
                {{"name": "operator", "keys": [{}], "grants": [{{"tenants": ["*"], "rights": ["admin"]}}]}}
            ]}}"#,
            entry(first),
            entry(second),
        );
        access(&document).unwrap()
    }

    #[test]
    fn what_is_not_granted_is_denied() {
        let (crm, operator) = (Key::new().unwrap(), Key::new().unwrap());
        let access = two_principals(&crm, &operator);
        let admit = |key: &Key, name, right| access.admit(&bearer(key.as_str()), name, right, NOW).map(|it| it.tenant);
        assert_eq!(admit(&crm, Some(tenant("crm")), Right::Record), Ok(tenant("crm")));
        assert_eq!(admit(&crm, None, Right::Rank), Ok(tenant("crm")), "the only one need not be named");
        let denied = |name: &str| Err(Refusal::Denied(name.into()));
        assert_eq!(admit(&crm, Some(tenant("crm")), Right::Admin), denied("crm"));
        assert_eq!(admit(&crm, Some(tenant("other")), Right::Record), denied("crm"));
        assert_eq!(admit(&operator, Some(tenant("any")), Right::Admin), Ok(tenant("any")));
        assert_eq!(admit(&operator, Some(tenant("any")), Right::Rank), denied("operator"));
        assert_eq!(admit(&operator, None, Right::Admin), denied("operator"), "one of all has to be named");
    }

    #[test]
    fn only_what_proves_who_calls_lets_in() {
        let (crm, operator) = (Key::new().unwrap(), Key::new().unwrap());
        let access = two_principals(&crm, &operator);
        let mixed = format!("{}{}", crm.as_str().rsplit_once('_').unwrap().0, "_00");
        let unknown = Key::new().unwrap();
        for shown in ["", "rapport_", "rapport_x_y", mixed.as_str(), "a.b.c", unknown.as_str()] {
            assert_eq!(access.admit(&bearer(shown), None, Right::Rank, NOW), Err(Refusal::Unknown), "{shown}");
        }
        assert_eq!(access.admit(&Credentials::default(), None, Right::Rank, NOW), Err(Refusal::Unknown));
        let names = ["other.example.org".to_owned(), "spiffe://example.org/crm".to_owned()];
        let certificate = Credentials { bearer: None, certificate_names: &names };
        assert_eq!(access.admit(&certificate, None, Right::Rank, NOW).unwrap().principal.as_deref(), Some("crm"));
        let both = Credentials { bearer: Some("rapport_x_y"), ..certificate };
        assert_eq!(
            access.admit(&both, None, Right::Rank, NOW),
            Err(Refusal::Unknown),
            "a bad key is not made good by a certificate"
        );
    }

    /// Every fault that reading a document finds.
    fn faults(document: &str) -> Vec<String> {
        match access(document) {
            Err(AccessError::Faulty { faults, .. }) => faults,
            other => panic!("it should be faulty: {other:?}"),
        }
    }

    #[test]
    fn every_fault_of_a_file_is_told_with_its_place_and_no_secret_that_is_in_it() {
        let told = faults(
            r#"{"principals": [
                {"name": "", "keys": [{"id": "a", "hash": "secret"}], "subjects": ["s"], "grants": []},
                {"name": "b", "certificates": ["x", "x"], "grants": [{"tenants": ["\t"], "rights": ["rank"]}]},
                {"name": "b", "keys": "rapport_secret_secret", "grant": [], "grants": [
                    {"tenants": ["*", 7], "rights": ["record", "adminn", "rapport_a_secret"]}, {"tenants": "b"}]},
                "secret"
            ]}"#,
        );
        let places = [
            "line 1, column 1: the document names subjects, and lacks the field tokens",
            "line 2, column 26: principals[0].name must not be empty",
            "line 2, column 59: principals[0].keys[0].hash must be 64 hexadecimal digits",
            "line 3, column 53: principals[1].certificates[1] must not be empty, and must be no other principal's",
            "line 3, column 83: principals[1].grants[0].tenants[0] must be visible ASCII",
            "line 4, column 26: principals[2].name must not be empty, and must be no other principal's",
            "line 4, column 39: principals[2].keys must be a list, and is a text",
            "line 4, column 64: principals[2] has \"grant\", and may only have name, keys, certificates, subjects, grants",
            "line 5, column 39: principals[2].grants[0].tenants[1] must be a text, and is a number",
            "line 5, column 64: principals[2].grants[0].rights[1] is \"adminn\", and must be record, rank or admin",
            "line 5, column 74: principals[2].grants[0].rights[2] is a word that is not repeated here, and must be record",
            "line 5, column 96: principals[2].grants[1] lacks the field rights",
            "line 5, column 108: principals[2].grants[1].tenants must be a list, and is a text",
            "line 6, column 17: principals[3] must be an object, and is a text",
        ];
        assert_eq!(told.len(), places.len(), "{told:#?}");
        for (told, place) in told.iter().zip(places) {
            assert!(told.starts_with(place) && !told.contains("secret"), "{told}\n{place}");
        }
        assert_eq!(faults("{"), ["line 1, column 1: EOF while parsing an object"]);
        let more = ["line 1, column 20: the document has \"more\", and may only have principals, tokens"];
        assert_eq!(faults(r#"{"principals": [], "more": 1}"#), more);
        assert_eq!(faults("{}"), ["line 1, column 1: the document lacks the field principals"]);
        let file = access("{").unwrap_err().to_string();
        assert!(file.contains("/access.json cannot be followed: line 1"), "{file}");
    }

    #[test]
    fn shared_secrets_sign_nothing() {
        let told = faults(
            r#"{"principals": [], "tokens": {"issuer": "", "audience": "rapport", "algorithms": ["ES256", "HS256"],
                "keys_url": "ftp://example.org"}}"#,
        );
        let expected = [
            "line 1, column 41: tokens.issuer must not be empty",
            "line 1, column 92: tokens.algorithms[1] is \"HS256\", and must be RS256, RS384, RS512, PS256, PS384, PS512, \
             ES256, ES384 or EdDSA",
            "line 2, column 29: tokens.keys_url must be an https address, or an http address on this machine",
        ];
        assert_eq!(told, expected);
        let told =
            faults(r#"{"principals": [], "tokens": {"algorithms": [], "keys_file": "none", "keys_url": "https://a"}}"#);
        let expected = [
            "line 1, column 30: tokens lacks the field issuer",
            "line 1, column 30: tokens lacks the field audience",
            "line 1, column 30: tokens must have either keys_file or keys_url",
            "line 1, column 45: tokens.algorithms must not be empty",
        ];
        assert_eq!(told, expected);
    }

    #[test]
    fn where_nobody_is_asked_everybody_may_do_everything() {
        let admitted = Access::open().admit(&Credentials::default(), None, Right::Admin, NOW).unwrap();
        assert_eq!(admitted, Admitted { principal: None, tenant: TenantId::unnamed() });
    }
}
