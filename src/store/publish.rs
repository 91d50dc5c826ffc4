//! Publishing scoring policies and putting them to use. Both only add rows. Two who do so at once aim at the same place; the
//! one who comes second looks again at what there is then.

use serde_json::Value;
use sqlx::{Connection as _, PgConnection};

use crate::{
    domain::{PolicyVersion, TenantId, Timestamp},
    telemetry::names::Operation,
};

use super::{
    Store, StoreError,
    lease::within,
    policy::{Policies, PolicyEntry, Which, in_use, published, which},
    rows::to_sql,
};

/// The most versions of one tenant.
pub const MAX_POLICIES: i64 = 1000;
/// How often the same is tried while others get ahead.
const ATTEMPTS: usize = 64;

/// A policy to publish, known to be sound.
#[derive(Clone, Debug)]
pub struct NewPolicy {
    /// Its name, none of those that are for policies built in.
    pub version: PolicyVersion,
    /// Its document, which names the version too.
    pub document: String,
    /// When it is published, and put to use.
    pub time: Timestamp,
}

/// What became of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Publication {
    /// It was published now.
    Published(PolicyEntry),
    /// It had been published before.
    Replayed(PolicyEntry),
    /// The version was published before, with another document.
    Conflict,
    /// The tenant has as many versions as it may have.
    TooMany,
}

impl Store {
    /// Publishes a policy, and puts it to use when that is wanted, and tells a revision of the tenant that shows it; with
    /// `validate_only` it tells what would become of it.
    pub async fn publish_policy(
        &self,
        tenant: &TenantId,
        new: &NewPolicy,
        put_to_use: bool,
        validate_only: bool,
    ) -> Result<(Publication, i64), StoreError> {
        let mut lease = self.lease(Operation::Policy).await?;
        let publication = within(async {
            let mut transaction = lease.begin().await?;
            let publication = publish_and_use(&mut transaction, &self.policies, tenant, new, put_to_use).await?;
            let revision = self.moment(&mut transaction, tenant).await?.basis.revision;
            if validate_only {
                transaction.rollback().await?;
            } else {
                transaction.commit().await?;
            }
            Ok((publication, revision))
        });
        let publication = publication.await;
        lease.end(publication)
    }

    /// Puts a version to use, or, when `None`, the one that was in use before, and tells a revision of the tenant that shows
    /// it; `None` when there is no such version.
    pub async fn use_policy(
        &self,
        tenant: &TenantId,
        version: Option<&PolicyVersion>,
        time: Timestamp,
    ) -> Result<Option<(PolicyEntry, i64)>, StoreError> {
        let mut lease = self.lease(Operation::Policy).await?;
        let entry = within(async {
            let mut transaction = lease.begin().await?;
            let target = version.map_or(Target::Before, |version| Target::This(self.policies.which(version)));
            let entry = match put_to_use(&mut transaction, &self.policies, tenant, &target, time).await? {
                Some(used) => self.policies.entry(&mut transaction, tenant, &used, &used).await?,
                None => None,
            };
            let revision = self.moment(&mut transaction, tenant).await?.basis.revision;
            transaction.commit().await?;
            Ok(entry.map(|entry| (entry, revision)))
        });
        let entry = entry.await;
        lease.end(entry)
    }
}

async fn publish_and_use(
    connection: &mut PgConnection,
    policies: &Policies,
    tenant: &TenantId,
    new: &NewPolicy,
    to_use: bool,
) -> Result<Publication, StoreError> {
    let publication = publish(connection, tenant, new).await?;
    let (Publication::Published(entry) | Publication::Replayed(entry)) = &publication else { return Ok(publication) };
    let which = Some(new.version.clone());
    let is_in_use = if to_use {
        let target = Target::This(which);
        put_to_use(connection, policies, tenant, &target, new.time).await?.is_some()
    } else {
        in_use(connection, tenant).await?.1 == which
    };
    let entry = PolicyEntry { is_in_use, ..entry.clone() };
    Ok(match publication {
        Publication::Published(_) => Publication::Published(entry),
        _ => Publication::Replayed(entry),
    })
}

async fn publish(connection: &mut PgConnection, tenant: &TenantId, new: &NewPolicy) -> Result<Publication, StoreError> {
    for _ in 0..ATTEMPTS {
        if let Some(before) = published(connection, tenant, &new.version).await? {
            let is_same = same_document(&before.document, &new.document);
            return Ok(if is_same { Publication::Replayed(before) } else { Publication::Conflict });
        }
        let place = last_place(connection, tenant).await? + 1;
        if place > MAX_POLICIES {
            return Ok(Publication::TooMany);
        }
        if insert(connection, tenant, new, place).await? {
            return Ok(Publication::Published(PolicyEntry {
                version: new.version.as_str().to_owned(),
                place,
                document: new.document.clone(),
                publish_time: Some(new.time),
                is_in_use: false,
            }));
        }
    }
    Err(StoreError::Raced)
}

/// Whether two documents say the same, however they are laid out.
fn same_document(one: &str, other: &str) -> bool {
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    one == other || read(one).is_some_and(|value| Some(value) == read(other))
}

async fn last_place(connection: &mut PgConnection, tenant: &TenantId) -> Result<i64, StoreError> {
    let last = sqlx::query_scalar!("SELECT max(place) FROM policy WHERE tenant = $1", tenant.as_str());
    Ok(last.fetch_one(connection).await?.unwrap_or(0))
}

/// Whether the place and the version were free.
async fn insert(
    connection: &mut PgConnection,
    tenant: &TenantId,
    new: &NewPolicy,
    place: i64,
) -> Result<bool, StoreError> {
    let inserted = sqlx::query!(
        "INSERT INTO policy (tenant, version, place, document, publish_time) VALUES ($1, $2, $3, $4, $5)
         ON CONFLICT DO NOTHING",
        tenant.as_str(),
        new.version.as_str(),
        place,
        new.document,
        to_sql(new.time),
    )
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// What to put to use.
enum Target {
    /// This one.
    This(Which),
    /// The one that was in use before.
    Before,
}

/// One step in the history of what is in use.
struct Use {
    which: Which,
    returns_to: Option<i64>,
}

/// Puts a policy to use, unless it is in use already, and tells which it is; `None` when it does not exist.
async fn put_to_use(
    connection: &mut PgConnection,
    policies: &Policies,
    tenant: &TenantId,
    target: &Target,
    time: Timestamp,
) -> Result<Option<Which>, StoreError> {
    for _ in 0..ATTEMPTS {
        let (place, current) = in_use(connection, tenant).await?;
        let next = match target {
            Target::This(which) if *which == current => return Ok(Some(current)),
            Target::This(which) => Some(Use { which: which.clone(), returns_to: Some(place) }),
            Target::Before => before(connection, tenant, place).await?,
        };
        let Some(next) = next else { return Ok(None) };
        // One that cannot be read by this program is not put to use: no answer could be given by it.
        if policies.get(connection, tenant, &next.which).await?.is_none() {
            return Ok(None);
        }
        if append(connection, tenant, place + 1, &next, time).await? {
            return Ok(Some(next.which));
        }
    }
    Err(StoreError::Raced)
}

/// The step that undoes the one at a place; `None` when there is nothing before it.
async fn before(connection: &mut PgConnection, tenant: &TenantId, place: i64) -> Result<Option<Use>, StoreError> {
    let returns_to = at(connection, tenant, place).await?.and_then(|step| step.returns_to);
    match returns_to {
        None => Ok(None),
        Some(0) => Ok(Some(Use { which: None, returns_to: None })),
        Some(place) => at(connection, tenant, place).await,
    }
}

async fn at(connection: &mut PgConnection, tenant: &TenantId, place: i64) -> Result<Option<Use>, StoreError> {
    let row = sqlx::query!(
        "SELECT version, returns_to FROM policy_use WHERE tenant = $1 AND place = $2",
        tenant.as_str(),
        place,
    )
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let which = which(row.version)?;
    Ok(Some(Use { which, returns_to: row.returns_to }))
}

/// Whether the place was free. It raises the revision of the tenant, as the last act before the commit.
async fn append(
    connection: &mut PgConnection,
    tenant: &TenantId,
    place: i64,
    step: &Use,
    time: Timestamp,
) -> Result<bool, StoreError> {
    let inserted = sqlx::query!(
        "WITH used AS (
             INSERT INTO policy_use (tenant, place, version, returns_to, use_time) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT DO NOTHING
             RETURNING tenant
         ), next AS (
             INSERT INTO tenant_revision (tenant, revision) SELECT tenant, 1 FROM used
             ON CONFLICT (tenant) DO UPDATE SET revision = tenant_revision.revision + 1
             RETURNING tenant, revision
         )
         INSERT INTO change (tenant, revision, persons) SELECT tenant, revision, '{}' FROM next",
        tenant.as_str(),
        place,
        step.which.as_ref().map(PolicyVersion::as_str),
        step.returns_to,
        to_sql(time),
    )
    .execute(connection)
    .await?;
    Ok(inserted.rows_affected() == 1)
}
