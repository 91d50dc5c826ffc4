//! Consistency tokens: what a caller was told of, as a revision of their tenant. They hold no secret and prove nothing, so
//! they are not sealed: whoever makes one up gets what they asked for. A checksum tells the tokens of a tenant from those of
//! others and from texts that are none. They outlive everything but the format, which has to keep their order.

use crate::domain::{Faults, TenantId};

/// How many hexadecimal digits the revision takes, and how many the checksum.
const DIGITS: usize = 16;

/// The token of a revision. Of two tokens of a tenant the later one is the greater one, as numbers of fixed length are.
pub(super) fn token(tenant: &TenantId, revision: i64) -> String {
    let checksum = checksum(tenant, revision);
    format!("{revision:0DIGITS$x}{checksum:0DIGITS$x}")
}

/// The revision that a request wants to see at least; `None` when it names none.
pub(super) fn at_least(text: &str, tenant: &TenantId, faults: &mut Faults) -> Option<i64> {
    if text.is_empty() {
        return None;
    }
    let revision = revision(text, tenant).ok_or("must be a consistency_token of the same tenant");
    faults.take("at_least_as_fresh_as", revision)
}

fn revision(text: &str, tenant: &TenantId) -> Option<i64> {
    let (digits, _) = text.split_at_checked(DIGITS)?;
    let revision = i64::from_str_radix(digits, 16).ok()?;
    // The only way to write it: no signs, no capitals.
    (text == token(tenant, revision)).then_some(revision)
}

fn checksum(tenant: &TenantId, revision: i64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"consistency token of ").update(tenant.as_str().as_bytes()).update(&revision.to_be_bytes());
    let hash = hasher.finalize();
    let (first, _) = hash.as_bytes().split_first_chunk().unwrap_or((&[0; 8], &[]));
    u64::from_be_bytes(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_its_tenants_and_cannot_be_written_otherwise() {
        let [one, other] = ["one", "other"].map(|name| TenantId::parse(name).unwrap());
        for number in [0, 1, 255, 256, i64::MAX] {
            let token = token(&one, number);
            assert_eq!(revision(&token, &one), Some(number));
            assert_eq!(revision(&token, &other), None);
            let written =
                [token.to_uppercase(), format!("+{}", &token[1..]), format!("{token} "), token[1..].to_owned()];
            assert!(written.iter().all(|text| *text == token || revision(text, &one).is_none()), "{token}");
        }
        assert!(["", "zoë", "0", &"0".repeat(32), &"é".repeat(16)].iter().all(|text| revision(text, &one).is_none()));
    }

    #[test]
    fn the_fresher_token_is_the_greater_text() {
        let tenant = TenantId::unnamed();
        let tokens: Vec<_> = [0, 9, 10, 255, 256, 1 << 40, i64::MAX].map(|number| token(&tenant, number)).into();
        assert!(tokens.is_sorted());
    }
}
