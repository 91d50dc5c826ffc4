//! Page tokens: where the next page begins, sealed so that callers can neither read nor forge it. A token of a ranking holds
//! the as-of time, the revision, the version of the policy and the place of the last connection; one of a list of policies, the
//! place of the last policy. Each is bound to the arguments it was made for.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead as _, KeyInit as _, Payload},
};

use crate::{
    domain::{PersonId, PolicyVersion, TenantId, Timestamp},
    scoring::RankKey,
};

use super::pb;

const NONCE_LEN: usize = 24;
/// The as-of time, the revision and the two numbers of a place, 8 bytes each.
const NUMBERS_LEN: usize = 32;

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub as_of: Timestamp,
    /// The revision of the tenant that the page before shows.
    pub revision: i64,
    pub policy: PolicyVersion,
    pub after: RankKey,
}

/// Seals and opens page tokens with the key that all servers of one database share.
pub struct Sealer(XChaCha20Poly1305);

impl Sealer {
    /// A sealer with a key of 32 bytes; `None` for any other length.
    pub fn new(key: &[u8]) -> Option<Self> {
        XChaCha20Poly1305::new_from_slice(key).ok().map(Self)
    }

    pub(super) fn seal(&self, place: &Place, arguments: &[u8]) -> Option<String> {
        let policy = place.policy.as_str().as_bytes();
        let mut content = Vec::with_capacity(NUMBERS_LEN + 1 + PolicyVersion::MAX_BYTES + PersonId::MAX_BYTES);
        content.extend(place.as_of.micros().to_le_bytes());
        content.extend(place.revision.to_le_bytes());
        content.extend(place.after.primary.0.to_le_bytes());
        content.extend(place.after.secondary.0.to_le_bytes());
        content.push(u8::try_from(policy.len()).ok()?);
        content.extend(policy);
        content.extend(place.after.peer.as_str().as_bytes());
        self.seal_bytes(&content, arguments)
    }

    pub(super) fn open(&self, token: &str, arguments: &[u8]) -> Option<Place> {
        let content = self.open_bytes(token, arguments)?;
        let (as_of, rest) = content.split_first_chunk()?;
        let (revision, rest) = rest.split_first_chunk()?;
        let (primary, rest) = rest.split_first_chunk()?;
        let (secondary, rest) = rest.split_first_chunk()?;
        let (policy_len, rest) = rest.split_first()?;
        let (policy, peer) = rest.split_at_checked((*policy_len).into())?;
        Some(Place {
            as_of: Timestamp::from_micros(i64::from_le_bytes(*as_of))?,
            revision: i64::from_le_bytes(*revision),
            policy: PolicyVersion::parse(std::str::from_utf8(policy).ok()?).ok()?,
            after: RankKey {
                primary: std::cmp::Reverse(u64::from_le_bytes(*primary)),
                secondary: std::cmp::Reverse(u64::from_le_bytes(*secondary)),
                peer: PersonId::recorded(std::str::from_utf8(peer).ok()?).ok()?,
            },
        })
    }

    /// Seals the place after which a list of a tenant's policies goes on.
    pub(super) fn seal_list(&self, place: i64, tenant: &TenantId) -> Option<String> {
        self.seal_bytes(&place.to_le_bytes(), &list_arguments(tenant))
    }

    pub(super) fn open_list(&self, token: &str, tenant: &TenantId) -> Option<i64> {
        let content = self.open_bytes(token, &list_arguments(tenant))?;
        Some(i64::from_le_bytes(content.try_into().ok()?))
    }

    fn seal_bytes(&self, content: &[u8], arguments: &[u8]) -> Option<String> {
        let mut nonce = [0; NONCE_LEN];
        getrandom::fill(&mut nonce).ok()?;
        let sealed = self.0.encrypt(&XNonce::from(nonce), Payload { msg: content, aad: arguments }).ok()?;
        Some(BASE64_URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat()))
    }

    fn open_bytes(&self, token: &str, arguments: &[u8]) -> Option<Vec<u8>> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(token).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
        self.0.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: arguments }).ok()
    }
}

/// What a token of a list is bound to. No tenant has a space in its name: no token of a ranking is bound to the same.
fn list_arguments(tenant: &TenantId) -> Vec<u8> {
    ["policies of ".as_bytes(), tenant.as_str().as_bytes()].concat()
}

/// The arguments that a token is bound to: everything but the token itself, the size of a page and how fresh it has to be.
pub(super) fn arguments(tenant: &TenantId, request: &pb::RankConnectionsRequest) -> Vec<u8> {
    let bound = pb::RankConnectionsRequest {
        page_token: String::new(),
        page_size: 0,
        at_least_as_fresh_as: String::new(),
        ..request.clone()
    };
    [tenant.as_str().as_bytes(), &[0], &prost::Message::encode_to_vec(&bound)].concat()
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;

    use super::*;

    fn place() -> Place {
        let peer = PersonId::parse("ada").unwrap();
        let after = RankKey { primary: Reverse(0.5_f64.to_bits()), secondary: Reverse(7), peer };
        let policy = PolicyVersion::parse("fitted-1").unwrap();
        Place { as_of: Timestamp::from_micros(42).unwrap(), revision: 8, policy, after }
    }

    #[test]
    fn opens_only_what_was_sealed_for_the_same_arguments() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        let token = sealer.seal(&place(), b"arguments").unwrap();
        assert_eq!(sealer.open(&token, b"arguments"), Some(place()));
        assert_eq!(sealer.open(&token, b"other arguments"), None);
        assert_eq!(sealer.open("", b"arguments"), None);
        assert_eq!(sealer.open(&token[1..], b"arguments"), None);
        assert_eq!(Sealer::new(&[8; 32]).unwrap().open(&token, b"arguments"), None);
        assert!(!token.contains("ada") && Sealer::new(&[7; 31]).is_none());
    }

    #[test]
    fn a_token_of_a_list_is_its_tenants_and_no_token_of_a_ranking() {
        let sealer = Sealer::new(&[7; 32]).unwrap();
        let [one, other] = ["one", "other"].map(|name| TenantId::parse(name).unwrap());
        let token = sealer.seal_list(41, &one).unwrap();
        assert_eq!(sealer.open_list(&token, &one), Some(41));
        assert_eq!(sealer.open_list(&token, &other), None);
        let ranking = sealer.seal(&place(), &arguments(&one, &pb::RankConnectionsRequest::default())).unwrap();
        assert_eq!(sealer.open_list(&ranking, &one), None);
    }
}
