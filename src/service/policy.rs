//! Scoring policies: publishing them, looking at them, and going back to one that was in use before.

use serde::Deserialize;

use crate::{
    domain::{Faults, PolicyVersion, TenantId},
    scoring::{BUILT_IN_PREFIX, DocumentFault, Policy},
    store::{MAX_POLICIES, NewPolicy, PolicyEntry, Publication},
};

use super::{Service, ServiceError};

/// The largest document, in bytes.
pub const MAX_DOCUMENT_BYTES: usize = 64 * 1024;
/// The most versions of one page.
pub const MAX_POLICY_PAGE: usize = 1000;
/// Where the document is in a request.
const DOCUMENT: &str = "policy.document";
/// How many bytes of faults are told in all. Errors travel as headers, which clients limit to 8 KiB.
const MAX_FAULT_BYTES: usize = 5000;
/// How many characters are told of what a document calls a field, and of what is wrong with it.
const MAX_FAULT_CHARS: (usize, usize) = (64, 160);

/// What to publish, and what to do then.
#[derive(Clone, Debug)]
pub struct PolicyDraft {
    /// The document.
    pub document: String,
    /// Whether rankings go by it from then on.
    pub put_to_use: bool,
    /// Only checks.
    pub validate_only: bool,
}

/// One page of a tenant's policies.
#[derive(Clone, Debug)]
pub struct PolicyPage {
    /// The versions, newest first, without their documents.
    pub policies: Vec<PolicyEntry>,
    /// The place of the last one, when more come after it.
    pub next: Option<i64>,
}

impl Service {
    /// Publishes a policy, and tells whether it had been published before, and a revision of the tenant that shows it; `None`
    /// when it was only validated.
    pub async fn publish_policy(
        &self,
        tenant: TenantId,
        draft: PolicyDraft,
    ) -> Result<(PolicyEntry, bool, Option<i64>), ServiceError> {
        let version = parse(&draft.document).map_err(ServiceError::Invalid)?;
        let new = NewPolicy { version, document: draft.document, time: self.clock.now() };
        let is_only_validated = draft.validate_only;
        let publication = self.detached(move |store| async move {
            Ok(store.publish_policy(&tenant, &new, draft.put_to_use, draft.validate_only).await?)
        });
        let (publication, revision) = publication.await?;
        let revision = Some(revision).filter(|_| !is_only_validated);
        match publication {
            Publication::Published(entry) => Ok((entry, false, revision)),
            Publication::Replayed(entry) => Ok((entry, true, revision)),
            Publication::Conflict => Err(ServiceError::PolicyConflict),
            Publication::TooMany => Err(ServiceError::TooManyPolicies(MAX_POLICIES)),
        }
    }

    /// A tenant's policies below a place, newest first, the one built in last.
    pub async fn policies(
        &self,
        tenant: TenantId,
        below: Option<i64>,
        page_size: usize,
    ) -> Result<PolicyPage, ServiceError> {
        let one_more = page_size.saturating_add(1);
        let read = self.detached(move |store| async move { Ok(store.policies(&tenant, below, one_more).await?) });
        let mut policies = read.await?;
        let more = policies.len() > page_size;
        policies.truncate(page_size);
        let next = if more { policies.last().map(|entry| entry.place) } else { None };
        Ok(PolicyPage { policies, next })
    }

    /// One version, or, when `None`, the one in use.
    pub async fn policy(&self, tenant: TenantId, version: Option<PolicyVersion>) -> Result<PolicyEntry, ServiceError> {
        let read = self.detached(move |store| async move { Ok(store.policy(&tenant, version.as_ref()).await?) });
        read.await?.ok_or(ServiceError::PolicyNotFound)
    }

    /// Puts a version to use that was published before, or, when `None`, the one that was in use before the current one, and
    /// tells a revision of the tenant that shows it.
    pub async fn roll_back_policy(
        &self,
        tenant: TenantId,
        version: Option<PolicyVersion>,
    ) -> Result<(PolicyEntry, i64), ServiceError> {
        let missing = if version.is_some() { ServiceError::PolicyNotFound } else { ServiceError::NoPolicyBefore };
        let now = self.clock.now();
        let put =
            self.detached(move |store| async move { Ok(store.use_policy(&tenant, version.as_ref(), now).await?) });
        put.await?.ok_or(missing)
    }
}

/// The version of a sound document, or all that is wrong with it.
fn parse(document: &str) -> Result<PolicyVersion, Faults> {
    let mut faults = Faults::default();
    if document.len() > MAX_DOCUMENT_BYTES {
        faults.add(DOCUMENT, format!("must be at most {MAX_DOCUMENT_BYTES} bytes long"));
        return Err(faults);
    }
    let found = Policy::parse(document).err().unwrap_or_default();
    tell(&found, &mut faults);
    let told = |field: &str| found.iter().any(|fault| fault.field == field);
    let named = serde_json::from_str(document).ok().filter(|_| !told("version"));
    let version = named.and_then(|Named { version }| {
        let parsed = PolicyVersion::parse(&version).map_err(|error| error.to_string());
        let taken = || format!("must not begin with '{BUILT_IN_PREFIX}', as the policies built into programs do");
        let free =
            parsed.and_then(|parsed| if version.starts_with(BUILT_IN_PREFIX) { Err(taken()) } else { Ok(parsed) });
        faults.take(format_args!("{DOCUMENT}.version"), free)
    });
    if version.is_none() && faults.list().is_empty() {
        faults.add(format_args!("{DOCUMENT}.version"), "must name the version");
    }
    faults.or(version)
}

/// What every document says, whatever else is in it.
#[derive(Deserialize)]
struct Named {
    version: String,
}

/// Names the faults of a document by where they are in the request.
fn tell(found: &[DocumentFault], faults: &mut Faults) {
    let cut = |text: &str, most: usize| text.chars().take(most).collect::<String>();
    let mut bytes = 0;
    for (index, DocumentFault { field, what }) in found.iter().enumerate() {
        let (field, what) = (cut(field, MAX_FAULT_CHARS.0), cut(what, MAX_FAULT_CHARS.1));
        bytes += DOCUMENT.len() + field.len() + what.len();
        if bytes > MAX_FAULT_BYTES {
            faults.add(DOCUMENT, format!("has {} more faults", found.len() - index));
            return;
        }
        if field.is_empty() {
            faults.add(DOCUMENT, format!("must be a policy in JSON: {what}"));
        } else {
            faults.add(format!("{DOCUMENT}.{field}"), what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoring::DEFAULT;

    fn fields(document: &str) -> Vec<String> {
        let faults = parse(document).err().unwrap_or_default();
        faults.list().iter().map(|fault| fault.field.clone()).collect()
    }

    fn named(version: &str) -> String {
        Policy { version: version.to_owned().into(), ..DEFAULT.clone() }.document()
    }

    #[test]
    fn a_sound_document_names_a_version_of_its_own() {
        assert_eq!(parse(&named("fitted-1")).unwrap().as_str(), "fitted-1");
        for version in ["default-1", "default-99", "", "fitted 1", &"v".repeat(65)] {
            assert_eq!(fields(&named(version)), ["policy.document.version"], "{version:?}");
        }
        assert_eq!(fields(&"x".repeat(MAX_DOCUMENT_BYTES + 1)), ["policy.document"]);
        assert!(!fields("{").is_empty() && !fields("{}").is_empty());
    }

    #[test]
    fn what_is_told_of_a_document_fits_into_headers() {
        let fault = DocumentFault { field: "f".repeat(70_000), what: "ü".repeat(70_000) };
        let mut faults = Faults::default();
        tell(&vec![fault; 1000], &mut faults);
        let bytes: usize = faults.list().iter().map(|fault| fault.field.len() + fault.description.len()).sum();
        assert!(bytes < MAX_FAULT_BYTES + 100 && faults.list().len() > 5, "{bytes}");
        assert!(faults.list().last().unwrap().description.ends_with("more faults"));
    }
}
