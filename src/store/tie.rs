//! The kept ties: reading them, locking them, removing them. They are written in `conclude`; what is in them is decided by
//! `scoring`.

use std::collections::HashMap;

use sqlx::{PgConnection, types::time::OffsetDateTime};
use tokio_stream::StreamExt as _;

use crate::{
    domain::{PersonId, TenantId},
    scoring::Tie,
};

use super::{
    StoreError,
    rows::{KeyColumns, TieKey, TieRow, only, to_sql},
};

/// Hands on all ties of a person, either way, one by one; an error when there are more than `most`.
pub(super) async fn each_of_person(
    connection: &mut PgConnection,
    tenant: &TenantId,
    person: &PersonId,
    most: usize,
    mut hand_on: impl FnMut(TieKey, Tie) + Send,
) -> Result<(), StoreError> {
    let mut rows = sqlx::query_as!(
        TieRow,
        r#"SELECT tenant AS "tenant!", actor AS "actor!", recipient AS "recipient!", first_time AS "first_time!",
               last_time AS "last_time!", counts AS "counts!", today AS "today!", evidence AS "evidence!"
           FROM tie WHERE tenant = $1 AND actor = $2
           UNION ALL
           SELECT tenant, actor, recipient, first_time, last_time, counts, today, evidence
           FROM tie WHERE tenant = $1 AND recipient = $2
           LIMIT $3"#,
        tenant.as_str(),
        person.as_str(),
        super::one_more_than(most),
    )
    .fetch(connection);
    let mut count = 0;
    while let Some(row) = rows.try_next().await? {
        count += 1;
        if count > most {
            return Err(StoreError::TooLarge(most));
        }
        let (key, tie) = row.try_into()?;
        hand_on(key, tie);
    }
    Ok(())
}

/// True when a person has more than `most` ties, either way. Only indexes are read, so a refusal costs a fraction of the
/// answer.
pub(super) async fn are_more_than(
    connection: &mut PgConnection,
    tenant: &TenantId,
    person: &PersonId,
    most: usize,
) -> Result<bool, StoreError> {
    let beyond = sqlx::query_scalar!(
        r#"SELECT EXISTS (
               SELECT FROM (SELECT FROM tie WHERE tenant = $1 AND actor = $2
                            UNION ALL
                            SELECT FROM tie WHERE tenant = $1 AND recipient = $2) AS ties
               OFFSET $3) AS "beyond!""#,
        tenant.as_str(),
        person.as_str(),
        super::one_more_than(most) - 1,
    );
    Ok(beyond.fetch_one(connection).await?)
}

/// These ties, as far as they exist.
pub(super) async fn get(
    connection: &mut PgConnection,
    keys: &KeyColumns<'_>,
) -> Result<HashMap<TieKey, Tie>, StoreError> {
    let rows = sqlx::query_as!(
        TieRow,
        "SELECT tie.tenant, tie.actor, tie.recipient, first_time, last_time, counts, today, evidence
         FROM UNNEST($1::text[], $2::text[], $3::text[]) AS key (tenant, actor, recipient)
         JOIN tie USING (tenant, actor, recipient)",
        &keys.tenants as _,
        &keys.actors as _,
        &keys.recipients as _,
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// These ties, as far as they exist, locked in the order of their keys until the transaction ends.
pub(super) async fn lock(
    connection: &mut PgConnection,
    keys: &KeyColumns<'_>,
) -> Result<HashMap<TieKey, Tie>, StoreError> {
    let rows = sqlx::query_as!(
        TieRow,
        "SELECT tie.tenant, tie.actor, tie.recipient, first_time, last_time, counts, today, evidence
         FROM UNNEST($1::text[], $2::text[], $3::text[]) AS key (tenant, actor, recipient)
         JOIN tie USING (tenant, actor, recipient)
         WHERE $4::text IS NULL OR tie.tenant = $4
         ORDER BY tie.tenant, tie.actor, tie.recipient
         FOR UPDATE OF tie",
        &keys.tenants as _,
        &keys.actors as _,
        &keys.recipients as _,
        only(&keys.tenants),
    )
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(TryInto::try_into).collect()
}

/// What is in ties, as one array for each column.
#[derive(Default)]
pub(super) struct StateColumns {
    pub first_times: Vec<OffsetDateTime>,
    pub last_times: Vec<OffsetDateTime>,
    pub counts: Vec<i32>,
    pub todays: Vec<f64>,
    pub evidence: Vec<f64>,
}

impl<'a> FromIterator<&'a Tie> for StateColumns {
    fn from_iter<I: IntoIterator<Item = &'a Tie>>(ties: I) -> Self {
        let mut columns = Self::default();
        for tie in ties {
            columns.first_times.push(to_sql(tie.first_time));
            columns.last_times.push(to_sql(tie.last_time));
            columns.counts.extend(tie.counts);
            columns.todays.extend(tie.today.to_array());
            columns.evidence.extend(tie.evidence.to_array());
        }
        columns
    }
}

/// Removes ties for which the ledger has no act.
pub(super) async fn delete(connection: &mut PgConnection, keys: &[TieKey]) -> Result<(), StoreError> {
    let keys: KeyColumns<'_> = keys.iter().collect();
    sqlx::query!(
        "DELETE FROM tie USING UNNEST($1::text[], $2::text[], $3::text[]) AS old (tenant, actor, recipient)
         WHERE tie.tenant = old.tenant AND tie.actor = old.actor AND tie.recipient = old.recipient
             AND ($4::text IS NULL OR tie.tenant = $4)",
        &keys.tenants as _,
        &keys.actors as _,
        &keys.recipients as _,
        only(&keys.tenants),
    )
    .execute(connection)
    .await?;
    Ok(())
}
