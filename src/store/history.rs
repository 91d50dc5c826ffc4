//! Reading acts back from the ledger: late days, past as-of times, explanations, rebuilding. How they got there is in
//! `ledger`.

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;

use crate::{
    domain::{Day, Kind, PersonId, TenantId, Timestamp},
    scoring::{Act, PersonDay, Policy},
};

use super::{
    StoreError,
    rows::{ActRow, KeyColumns, RhythmKey, TieKey, from_sql, only, to_sql, word},
};

/// Acts by the tie they belong to.
pub(super) type ActsByTie = HashMap<TieKey, Vec<Act>>;

pub(super) fn by_tie(rows: impl IntoIterator<Item = ActRow>) -> Result<ActsByTie, StoreError> {
    let mut acts = ActsByTie::new();
    for row in rows {
        let (key, act) = row.try_into()?;
        acts.entry(key).or_default().push(act);
    }
    Ok(acts)
}

/// All acts of these ties up to a time, or those of them that are folded; an error when there are more than `most`.
pub(super) async fn acts_until(
    connection: &mut PgConnection,
    ties: &KeyColumns<'_>,
    until: Timestamp,
    only_folded: bool,
    most: usize,
) -> Result<ActsByTie, StoreError> {
    let rows = sqlx::query_as!(
        ActRow,
        r#"WITH unfolded_id AS MATERIALIZED (
               SELECT unfolded.tenant, UNNEST(unfolded.interaction_ids) FROM unfolded
               WHERE unfolded.tenant = ANY($1) AND ($6::text IS NULL OR unfolded.tenant = $6)
           )
           SELECT ledger.tenant, ledger.actor, ledger.recipient, interaction_id, interaction_time, kind, group_size,
               effort_micros, unprompted, goal IS NOT NULL AS "serves_goal!", due_time, refers_to
           FROM UNNEST($1::text[], $2::text[], $3::text[]) AS key (tenant, actor, recipient)
           JOIN ledger USING (tenant, actor, recipient)
           WHERE interaction_time <= $4
               AND ($6::text IS NULL OR ledger.tenant = $6)
               AND (NOT $7 OR (ledger.tenant, ledger.interaction_id) NOT IN (SELECT * FROM unfolded_id))
           LIMIT $5"#,
        &ties.tenants as _,
        &ties.actors as _,
        &ties.recipients as _,
        to_sql(until),
        super::one_more_than(most),
        only(&ties.tenants),
        only_folded,
    )
    .fetch_all(connection)
    .await?;
    if rows.len() > most { Err(StoreError::TooLarge(most)) } else { by_tie(rows) }
}

/// A tenant's acts in the order of their interactions, from behind `after` on, at most `most` of them; and what to read on
/// from, if there may be more.
pub(super) async fn acts_of_tenant(
    connection: &mut PgConnection,
    tenant: &TenantId,
    after: &(String, i16),
    most: i64,
) -> Result<(Vec<(TieKey, Act)>, Option<(String, i16)>), StoreError> {
    let rows = sqlx::query!(
        r#"SELECT tenant, actor, recipient, interaction_id, position, interaction_time, kind, group_size, effort_micros,
               unprompted, goal IS NOT NULL AS "serves_goal!", due_time, refers_to
           FROM ledger WHERE tenant = $1 AND (interaction_id, position) > ($2, $3)
           ORDER BY interaction_id, position LIMIT $4"#,
        tenant.as_str(),
        after.0,
        after.1,
        most,
    )
    .fetch_all(connection)
    .await?;
    let next = rows.last().map(|row| (row.interaction_id.clone(), row.position));
    let acts = rows.into_iter().map(|row| {
        ActRow {
            tenant: row.tenant,
            actor: row.actor,
            recipient: row.recipient,
            interaction_id: row.interaction_id,
            interaction_time: row.interaction_time,
            kind: row.kind,
            group_size: row.group_size,
            effort_micros: row.effort_micros,
            unprompted: row.unprompted,
            serves_goal: row.serves_goal,
            due_time: row.due_time,
            refers_to: row.refers_to,
        }
        .try_into()
    });
    Ok((acts.collect::<Result<_, _>>()?, next))
}

/// The folded acts of these ties that tell how a promise or an ask came out.
pub(super) async fn outcomes(connection: &mut PgConnection, ties: &KeyColumns<'_>) -> Result<ActsByTie, StoreError> {
    let kinds: Vec<i16> =
        Kind::ALL.into_iter().filter(|kind| kind.is_outcome()).map(|kind| kind.number().into()).collect();
    let rows = sqlx::query_as!(
        ActRow,
        r#"WITH unfolded_id AS MATERIALIZED (
               SELECT unfolded.tenant, UNNEST(unfolded.interaction_ids) FROM unfolded
               WHERE unfolded.tenant = ANY($1) AND ($5::text IS NULL OR unfolded.tenant = $5)
           )
           SELECT ledger.tenant, ledger.actor, ledger.recipient, interaction_id, interaction_time, kind, group_size,
               effort_micros, unprompted, goal IS NOT NULL AS "serves_goal!", due_time, refers_to
           FROM UNNEST($1::text[], $2::text[], $3::text[]) AS key (tenant, actor, recipient)
           JOIN ledger USING (tenant, actor, recipient)
           WHERE kind = ANY ($4)
               AND (ledger.tenant, ledger.interaction_id) NOT IN (SELECT * FROM unfolded_id)
               AND ($5::text IS NULL OR ledger.tenant = $5)"#,
        &ties.tenants as _,
        &ties.actors as _,
        &ties.recipients as _,
        &kinds,
        only(&ties.tenants),
    )
    .fetch_all(connection)
    .await?;
    by_tie(rows)
}

/// The latest `most` acts of each kind of these ties up to a time.
pub(super) async fn latest_acts(
    connection: &mut PgConnection,
    ties: &KeyColumns<'_>,
    until: Timestamp,
    most: i64,
) -> Result<ActsByTie, StoreError> {
    let rows = sqlx::query_as!(
        ActRow,
        r#"SELECT tenant, actor, recipient, interaction_id, interaction_time, kind, group_size, effort_micros, unprompted,
               goal IS NOT NULL AS "serves_goal!", due_time, refers_to
           FROM (
               SELECT ledger.tenant, ledger.actor, ledger.recipient, interaction_id, interaction_time, kind, group_size,
                   effort_micros, unprompted, goal, due_time, refers_to,
                   row_number() OVER (PARTITION BY ledger.tenant, ledger.actor, ledger.recipient, kind
                       ORDER BY interaction_time DESC, interaction_id) AS place
               FROM UNNEST($1::text[], $2::text[], $3::text[]) AS key (tenant, actor, recipient)
               JOIN ledger USING (tenant, actor, recipient)
               WHERE interaction_time <= $4
           ) AS placed
           WHERE place <= $5"#,
        &ties.tenants as _,
        &ties.actors as _,
        &ties.recipients as _,
        to_sql(until),
        most,
    )
    .fetch_all(connection)
    .await?;
    by_tie(rows)
}

/// The folded acts of these ties on these days.
pub(super) async fn acts_on_days(
    connection: &mut PgConnection,
    days: &[(TieKey, Day)],
) -> Result<ActsByTie, StoreError> {
    if days.is_empty() {
        return Ok(ActsByTie::new());
    }
    let ties: KeyColumns<'_> = days.iter().map(|(key, _)| key).collect();
    let (starts, ends): (Vec<_>, Vec<_>) =
        days.iter().map(|(_, day)| day.bounds()).map(|(start, end)| (to_sql(start), to_sql(end))).unzip();
    let rows = sqlx::query_as!(
        ActRow,
        r#"WITH unfolded_id AS MATERIALIZED (
               SELECT unfolded.tenant, UNNEST(unfolded.interaction_ids) FROM unfolded
               WHERE unfolded.tenant = ANY($1) AND ($6::text IS NULL OR unfolded.tenant = $6)
           )
           SELECT ledger.tenant, ledger.actor, ledger.recipient, interaction_id, interaction_time, kind, group_size,
               effort_micros, unprompted, goal IS NOT NULL AS "serves_goal!", due_time, refers_to
           FROM UNNEST($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[])
               AS late (tenant, actor, recipient, day_start, day_end)
           JOIN ledger ON ledger.tenant = late.tenant AND ledger.actor = late.actor AND ledger.recipient = late.recipient
               AND interaction_time >= late.day_start AND interaction_time < late.day_end
           WHERE (ledger.tenant, ledger.interaction_id) NOT IN (SELECT * FROM unfolded_id)
               AND ($6::text IS NULL OR ledger.tenant = $6)"#,
        &ties.tenants as _,
        &ties.actors as _,
        &ties.recipients as _,
        &starts,
        &ends,
        only(&ties.tenants),
    )
    .fetch_all(connection)
    .await?;
    by_tie(rows)
}

/// How far each kind makes a day an active one, and one of help: an array by the number of the kind.
fn day_weights(policy: &Policy) -> [Vec<f64>; 2] {
    let weights = policy.kinds.iter().map(|kind| (kind.day_weight, kind.help_weight));
    let (active, helped) = weights.unzip();
    [active, helped]
}

/// What each day of these persons came to, toward and from anybody, up to a time: by folded acts, or, with the ties that are
/// `begun` by others, by all.
pub(super) async fn days_until<'a>(
    connection: &mut PgConnection,
    persons: impl IntoIterator<Item = &'a RhythmKey>,
    until: Timestamp,
    begun: Option<&KeyColumns<'_>>,
    most: usize,
    policy: &Policy,
) -> Result<BTreeMap<RhythmKey, Vec<(Timestamp, PersonDay)>>, StoreError> {
    let (tenants, persons): (Vec<_>, Vec<_>) =
        persons.into_iter().map(|(tenant, person)| (tenant.as_str(), person.as_str())).unzip();
    let [active, helped] = day_weights(policy);
    let none = KeyColumns::default();
    let begun_ties = begun.unwrap_or(&none);
    let rows = sqlx::query!(
        r#"WITH person AS (SELECT * FROM UNNEST($1::text[], $2::text[]) AS key (tenant, person)), unfolded_id AS MATERIALIZED (
               SELECT unfolded.tenant, UNNEST(unfolded.interaction_ids) FROM unfolded
               WHERE unfolded.tenant = ANY($1) AND ($7::text IS NULL OR unfolded.tenant = $7)
           ), tie_day AS (
               SELECT person.tenant, person.person, true AS sent,
                   date_trunc('day', ledger.interaction_time, 'UTC') AS day,
                   max(ledger.interaction_time) AS last_time,
                   max(($3::double precision[])[ledger.kind] / ledger.group_size) AS active,
                   max(($4::double precision[])[ledger.kind] / ledger.group_size) AS helped
               FROM person JOIN ledger ON ledger.tenant = person.tenant AND ledger.actor = person.person
               WHERE ledger.interaction_time <= $5 AND ($7::text IS NULL OR ledger.tenant = $7)
                   AND ($8 OR (ledger.tenant, ledger.interaction_id) NOT IN (SELECT * FROM unfolded_id))
               GROUP BY person.tenant, person.person, ledger.recipient, date_trunc('day', ledger.interaction_time, 'UTC')
               UNION ALL
               SELECT person.tenant, person.person, false, date_trunc('day', ledger.interaction_time, 'UTC'),
                   max(ledger.interaction_time),
                   max(($3::double precision[])[ledger.kind] / ledger.group_size), 0.0
               FROM person JOIN tie ON tie.tenant = person.tenant AND tie.recipient = person.person
               JOIN ledger ON ledger.tenant = tie.tenant AND ledger.actor = tie.actor AND ledger.recipient = tie.recipient
               WHERE ledger.interaction_time <= $5 AND ($7::text IS NULL OR ledger.tenant = $7)
                   AND ($8 OR (ledger.tenant, ledger.interaction_id) NOT IN (SELECT * FROM unfolded_id))
               GROUP BY person.tenant, person.person, tie.actor, date_trunc('day', ledger.interaction_time, 'UTC')
               UNION ALL
               SELECT person.tenant, person.person, false, date_trunc('day', ledger.interaction_time, 'UTC'),
                   max(ledger.interaction_time),
                   max(($3::double precision[])[ledger.kind] / ledger.group_size), 0.0
               FROM person JOIN UNNEST($9::text[], $10::text[], $11::text[]) AS begun (tenant, actor, recipient)
                   ON begun.tenant = person.tenant AND begun.recipient = person.person
               JOIN ledger ON ledger.tenant = begun.tenant AND ledger.actor = begun.actor
                   AND ledger.recipient = begun.recipient
               WHERE ledger.interaction_time <= $5 AND ($7::text IS NULL OR ledger.tenant = $7)
               GROUP BY person.tenant, person.person, begun.actor, date_trunc('day', ledger.interaction_time, 'UTC')
           )
           SELECT tenant AS "tenant!", person AS "person!", max(last_time) AS "last_time!",
               coalesce(sum(active) FILTER (WHERE sent), 0.0) AS "sent!",
               coalesce(sum(active) FILTER (WHERE NOT sent), 0.0) AS "received!", sum(helped) AS "helped!"
           FROM tie_day GROUP BY tenant, person, day LIMIT $6"#,
        &tenants as _,
        &persons as _,
        &active,
        &helped,
        to_sql(until),
        super::one_more_than(most),
        only(&tenants),
        begun.is_some(),
        &begun_ties.tenants as _,
        &begun_ties.actors as _,
        &begun_ties.recipients as _,
    )
    .fetch_all(connection)
    .await?;
    if rows.len() > most {
        return Err(StoreError::TooLarge(most));
    }
    let mut days: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows {
        let key = (word("ledger", TenantId::recorded(&row.tenant))?, word("ledger", PersonId::recorded(&row.person))?);
        let day = PersonDay { sent: row.sent, received: row.received, helped: row.helped };
        days.entry(key).or_default().push((from_sql("ledger", row.last_time)?, day));
    }
    Ok(days)
}

/// Which of a person's peers have an interaction with them, either way up to a time, on one of these channels and about
/// one of these topics; an empty list asks for nothing.
pub(super) async fn peers_with(
    connection: &mut PgConnection,
    tenant: &TenantId,
    person: &PersonId,
    until: Timestamp,
    channels: &[&str],
    topics: &[&str],
) -> Result<Vec<PersonId>, StoreError> {
    let rows = sqlx::query_scalar!(
        r#"SELECT CASE WHEN tie.actor = $2 THEN tie.recipient ELSE tie.actor END AS "peer!"
           FROM (
               SELECT actor, recipient FROM tie WHERE tenant = $1 AND actor = $2
               UNION ALL
               SELECT actor, recipient FROM tie WHERE tenant = $1 AND recipient = $2
               UNION
               SELECT act.actor, act.recipient
               FROM unfolded CROSS JOIN UNNEST(unfolded.actors, unfolded.recipients) AS act (actor, recipient)
               WHERE unfolded.tenant = $1 AND $2 IN (act.actor, act.recipient)
           ) AS tie
           WHERE EXISTS (
               SELECT FROM ledger
               WHERE ledger.tenant = $1 AND ledger.actor = tie.actor AND ledger.recipient = tie.recipient
                   AND interaction_time <= $3
                   AND (cardinality($4::text[]) = 0 OR channel = ANY ($4))
                   AND (cardinality($5::text[]) = 0 OR topics && $5)
           )"#,
        tenant.as_str(),
        person.as_str(),
        to_sql(until),
        &channels as _,
        &topics as _,
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(|peer| word("tie", PersonId::recorded(peer))).collect()
}
