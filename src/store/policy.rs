//! Reading scoring policies: the documents that a tenant published, and which of them is in use.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use sqlx::{Connection as _, PgConnection};

use crate::{
    domain::{PolicyVersion, TenantId, Timestamp},
    scoring::Policy,
    telemetry::names::Operation,
};

use super::{
    Store, StoreError,
    lease::within,
    rows::{from_sql, word},
};

/// The most parsed documents that are kept in memory.
const MAX_PARSED: usize = 1024;

/// One version, as one tenant sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyEntry {
    /// Its name.
    pub version: String,
    /// The how manieth it was that the tenant published; 0 for the one built into the program.
    pub place: i64,
    /// The document it was published as, or that of the one built in; empty in lists.
    pub document: String,
    /// When it was published; `None` for the one built in.
    pub publish_time: Option<Timestamp>,
    /// Whether it is the one in use.
    pub is_in_use: bool,
}

/// Which policy: one that was published, or, when `None`, the one built into the program.
pub(super) type Which = Option<PolicyVersion>;

/// The policies of all tenants, parsed. As documents never change, what is kept here can be missing, but not outdated. Clones
/// share it.
#[derive(Clone, Debug)]
pub(super) struct Policies {
    built_in: Arc<Policy>,
    parsed: Arc<Mutex<Parsed>>,
}

type ParsedKey = (TenantId, PolicyVersion);

/// The policies used lately, in two generations: the older one is forgotten when the recent one is full.
#[derive(Debug, Default)]
struct Parsed {
    recent: HashMap<ParsedKey, Arc<Policy>>,
    older: HashMap<ParsedKey, Arc<Policy>>,
}

impl Parsed {
    fn get(&mut self, key: &ParsedKey) -> Option<Arc<Policy>> {
        if let Some(found) = self.recent.get(key) {
            return Some(Arc::clone(found));
        }
        let found = self.older.remove(key)?;
        self.keep(key.clone(), Arc::clone(&found));
        Some(found)
    }

    fn keep(&mut self, key: ParsedKey, policy: Arc<Policy>) {
        if self.recent.len() >= MAX_PARSED / 2 {
            self.older = mem::take(&mut self.recent);
        }
        self.recent.insert(key, policy);
    }
}

impl Policies {
    pub(super) fn new(built_in: &Policy) -> Self {
        Self { built_in: Arc::new(built_in.clone()), parsed: Arc::default() }
    }

    /// The policy in use, ready for scoring.
    pub(super) async fn used(
        &self,
        connection: &mut PgConnection,
        tenant: &TenantId,
        in_use: &Which,
    ) -> Result<Arc<Policy>, StoreError> {
        let policy = self.get(connection, tenant, in_use).await?;
        policy.ok_or(StoreError::Inconsistent { table: "policy_use", what: "a version without a document" })
    }

    /// Which policy a name stands for.
    pub(super) fn which(&self, version: &PolicyVersion) -> Which {
        Some(version).filter(|version| version.as_str() != self.built_in.version).cloned()
    }

    /// A policy, ready for scoring; `None` when it was never published.
    pub(super) async fn get(
        &self,
        connection: &mut PgConnection,
        tenant: &TenantId,
        which: &Which,
    ) -> Result<Option<Arc<Policy>>, StoreError> {
        let Some(version) = which else { return Ok(Some(Arc::clone(&self.built_in))) };
        let key = (tenant.clone(), version.clone());
        if let Some(kept) = self.parsed().get(&key) {
            return Ok(Some(kept));
        }
        let Some(found) = published(connection, tenant, version).await? else { return Ok(None) };
        let policy = Policy::parse(&found.document).map_err(|_| StoreError::Inconsistent {
            table: "policy",
            what: "a document that this program cannot read",
        })?;
        let policy = Arc::new(policy);
        self.parsed().keep(key, Arc::clone(&policy));
        Ok(Some(policy))
    }

    fn parsed(&self) -> std::sync::MutexGuard<'_, Parsed> {
        self.parsed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A version as its tenant sees it; `None` when it was never published.
    pub(super) async fn entry(
        &self,
        connection: &mut PgConnection,
        tenant: &TenantId,
        which: &Which,
        in_use: &Which,
    ) -> Result<Option<PolicyEntry>, StoreError> {
        let entry = match which {
            None => Some(self.built_in_entry(self.built_in.document())),
            Some(version) => published(connection, tenant, version).await?,
        };
        Ok(entry.map(|entry| PolicyEntry { is_in_use: which == in_use, ..entry }))
    }

    fn built_in_entry(&self, document: String) -> PolicyEntry {
        let version = self.built_in.version.to_string();
        PolicyEntry { version, place: 0, document, publish_time: None, is_in_use: false }
    }

    /// A tenant's versions below a place, newest first, the one built in last; at most `most`.
    async fn list(
        &self,
        connection: &mut PgConnection,
        tenant: &TenantId,
        below: i64,
        most: usize,
    ) -> Result<Vec<PolicyEntry>, StoreError> {
        let (_, in_use) = in_use(connection, tenant).await?;
        let mut entries = listed(connection, tenant, below, most).await?;
        if entries.len() < most && below > 0 {
            entries.push(self.built_in_entry(String::new()));
        }
        for entry in &mut entries {
            let version = Some(&*entry.version).filter(|_| entry.place > 0);
            entry.is_in_use = version == in_use.as_ref().map(PolicyVersion::as_str);
        }
        Ok(entries)
    }
}

impl Store {
    /// A tenant's versions below a place, newest first, the one built in last at place 0; at most `most`, without their
    /// documents.
    pub async fn policies(
        &self,
        tenant: &TenantId,
        below: Option<i64>,
        most: usize,
    ) -> Result<Vec<PolicyEntry>, StoreError> {
        let mut lease = self.lease(Operation::Policy).await?;
        let entries = within(async {
            let mut snapshot = lease.begin_with(super::SNAPSHOT).await?;
            let entries = self.policies.list(&mut snapshot, tenant, below.unwrap_or(i64::MAX), most).await?;
            snapshot.commit().await?;
            Ok(entries)
        });
        let entries = entries.await;
        lease.end(entries)
    }

    /// One version, or the one in use; `None` when it was never published.
    pub async fn policy(
        &self,
        tenant: &TenantId,
        version: Option<&PolicyVersion>,
    ) -> Result<Option<PolicyEntry>, StoreError> {
        let mut lease = self.lease(Operation::Policy).await?;
        let entry = within(async {
            let mut snapshot = lease.begin_with(super::SNAPSHOT).await?;
            let (_, in_use) = in_use(&mut snapshot, tenant).await?;
            let which = version.map_or_else(|| in_use.clone(), |version| self.policies.which(version));
            let entry = self.policies.entry(&mut snapshot, tenant, &which, &in_use).await?;
            snapshot.commit().await?;
            Ok(entry)
        });
        let entry = entry.await;
        lease.end(entry)
    }
}

/// The place of what is in use, 0 before the first, and which policy that is.
pub(super) async fn in_use(connection: &mut PgConnection, tenant: &TenantId) -> Result<(i64, Which), StoreError> {
    let row = sqlx::query!(
        "SELECT place, version FROM policy_use WHERE tenant = $1 ORDER BY place DESC LIMIT 1",
        tenant.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok((0, None)) };
    Ok((row.place, which(row.version)?))
}

/// Which policy a version in use stands for.
pub(super) fn which(version: Option<String>) -> Result<Which, StoreError> {
    version.map(|version| word("policy_use", PolicyVersion::parse(&version))).transpose()
}

/// A version that a tenant published.
pub(super) async fn published(
    connection: &mut PgConnection,
    tenant: &TenantId,
    version: &PolicyVersion,
) -> Result<Option<PolicyEntry>, StoreError> {
    let row = sqlx::query!(
        "SELECT place, document, publish_time FROM policy WHERE tenant = $1 AND version = $2",
        tenant.as_str(),
        version.as_str(),
    )
    .fetch_optional(connection)
    .await?;
    let entry = row.map(|row| {
        Ok(PolicyEntry {
            version: version.as_str().to_owned(),
            place: row.place,
            document: row.document,
            publish_time: Some(from_sql("policy", row.publish_time)?),
            is_in_use: false,
        })
    });
    entry.transpose()
}

async fn listed(
    connection: &mut PgConnection,
    tenant: &TenantId,
    below: i64,
    most: usize,
) -> Result<Vec<PolicyEntry>, StoreError> {
    let rows = sqlx::query!(
        "SELECT version, place, publish_time FROM policy WHERE tenant = $1 AND place < $2
         ORDER BY place DESC LIMIT $3",
        tenant.as_str(),
        below,
        i64::try_from(most).unwrap_or(i64::MAX),
    )
    .fetch_all(connection)
    .await?;
    let entry = |(version, place, publish_time)| {
        let publish_time = Some(from_sql("policy", publish_time)?);
        Ok(PolicyEntry { version, place, document: String::new(), publish_time, is_in_use: false })
    };
    rows.into_iter().map(|row| entry((row.version, row.place, row.publish_time))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scoring::DEFAULT;

    fn key(number: usize) -> ParsedKey {
        (TenantId::unnamed(), PolicyVersion::parse(&format!("v{number}")).unwrap())
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_makes_room() {
        let (mut parsed, policy) = (Parsed::default(), Arc::new(DEFAULT.clone()));
        for number in 0..3 * MAX_PARSED {
            parsed.keep(key(number), Arc::clone(&policy));
            assert!(parsed.get(&key(0)).is_some(), "asked for all the time");
            assert!(parsed.recent.len() + parsed.older.len() <= MAX_PARSED);
        }
        assert!(parsed.get(&key(1)).is_none() && parsed.get(&key(3 * MAX_PARSED - 1)).is_some());
    }
}
