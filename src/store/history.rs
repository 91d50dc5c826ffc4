//! Reading acts back from the ledger: late days, past as-of times, explanations, rebuilding. How they got there is in
//! `ledger`.

use std::collections::{BTreeMap, HashMap};

use sqlx::PgConnection;

use crate::{
    domain::{Day, Kind, PersonId, TenantId, Timestamp},
    scoring::{Act, ActiveDay, Policy},
};

use super::{
    StoreError,
    ledger::Entry,
    rows::{ActRow, KeyColumns, RhythmKey, TieKey, from_sql, to_sql, word},
};

/// Acts by the tie they belong to.
pub(super) type ActsByTie = HashMap<TieKey, Vec<Act>>;

fn by_tie(rows: Vec<ActRow>) -> Result<ActsByTie, StoreError> {
    let mut acts = ActsByTie::new();
    for row in rows {
        let (key, act) = row.try_into()?;
        acts.entry(key).or_default().push(act);
    }
    Ok(acts)
}

/// All acts of these ties up to a time; an error when there are more than `most`.
pub(super) async fn acts_until(
    connection: &mut PgConnection,
    ties: &KeyColumns<'_>,
    until: Timestamp,
    most: usize,
) -> Result<ActsByTie, StoreError> {
    let rows = sqlx::query_as!(
        ActRow,
        r#"SELECT ledger.tenant, ledger.actor, ledger.recipient, interaction_id, interaction_time, kind, group_size,
               effort_micros, unprompted, goal IS NOT NULL AS "serves_goal!", due_time, refers_to
           FROM UNNEST($1::text[], $2::text[], $3::text[]) AS key (tenant, actor, recipient)
           JOIN ledger USING (tenant, actor, recipient)
           WHERE interaction_time <= $4
           LIMIT $5"#,
        &ties.tenants as _,
        &ties.actors as _,
        &ties.recipients as _,
        to_sql(until),
        super::one_more_than(most),
    )
    .fetch_all(connection)
    .await?;
    if rows.len() > most { Err(StoreError::TooLarge(most)) } else { by_tie(rows) }
}

/// The acts of these ties that tell how a promise or an ask came out.
pub(super) async fn outcomes(connection: &mut PgConnection, ties: &KeyColumns<'_>) -> Result<ActsByTie, StoreError> {
    let kinds: Vec<i16> =
        Kind::ALL.into_iter().filter(|kind| kind.is_outcome()).map(|kind| kind.number().into()).collect();
    let rows = sqlx::query_as!(
        ActRow,
        r#"SELECT ledger.tenant, ledger.actor, ledger.recipient, interaction_id, interaction_time, kind, group_size,
               effort_micros, unprompted, goal IS NOT NULL AS "serves_goal!", due_time, refers_to
           FROM UNNEST($1::text[], $2::text[], $3::text[]) AS key (tenant, actor, recipient)
           JOIN ledger USING (tenant, actor, recipient)
           WHERE kind = ANY ($4)"#,
        &ties.tenants as _,
        &ties.actors as _,
        &ties.recipients as _,
        &kinds,
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
               SELECT ledger.*, row_number() OVER (PARTITION BY tenant, actor, recipient, kind
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

/// Which interactions, as one array for each column: ids are unique only within their tenant.
pub(super) struct IdColumns<'a> {
    tenants: Vec<&'a str>,
    ids: Vec<&'a str>,
}

impl<'a> FromIterator<&'a Entry> for IdColumns<'a> {
    fn from_iter<I: IntoIterator<Item = &'a Entry>>(entries: I) -> Self {
        let key = |entry: &'a Entry| (entry.tenant.as_str(), entry.interaction.id.as_str());
        let (tenants, ids) = entries.into_iter().map(key).unzip();
        Self { tenants, ids }
    }
}

/// The acts of these ties on these days, without those of the interactions in `except`.
pub(super) async fn acts_on_days(
    connection: &mut PgConnection,
    days: &[(TieKey, Day)],
    except: &IdColumns<'_>,
) -> Result<ActsByTie, StoreError> {
    if days.is_empty() {
        return Ok(ActsByTie::new());
    }
    let ties: KeyColumns<'_> = days.iter().map(|(key, _)| key).collect();
    let (starts, ends): (Vec<_>, Vec<_>) =
        days.iter().map(|(_, day)| day.bounds()).map(|(start, end)| (to_sql(start), to_sql(end))).unzip();
    let rows = sqlx::query_as!(
        ActRow,
        r#"SELECT ledger.tenant, ledger.actor, ledger.recipient, interaction_id, interaction_time, kind, group_size,
               effort_micros, unprompted, goal IS NOT NULL AS "serves_goal!", due_time, refers_to
           FROM UNNEST($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[])
               AS late (tenant, actor, recipient, day_start, day_end)
           JOIN ledger ON ledger.tenant = late.tenant AND ledger.actor = late.actor AND ledger.recipient = late.recipient
               AND interaction_time >= day_start AND interaction_time < day_end
           WHERE (ledger.tenant, interaction_id) NOT IN (SELECT * FROM UNNEST($6::text[], $7::text[]))"#,
        &ties.tenants as _,
        &ties.actors as _,
        &ties.recipients as _,
        &starts,
        &ends,
        &except.tenants as _,
        &except.ids as _,
    )
    .fetch_all(connection)
    .await?;
    by_tie(rows)
}

/// What these persons showed on these days, without the interactions in `except`.
pub(super) async fn activity_on_days(
    connection: &mut PgConnection,
    days: &[(RhythmKey, Day)],
    except: &IdColumns<'_>,
    policy: &Policy,
) -> Result<HashMap<(RhythmKey, Day), ActiveDay>, StoreError> {
    if days.is_empty() {
        return Ok(HashMap::new());
    }
    let tenants: Vec<_> = days.iter().map(|((tenant, _), _)| tenant.as_str()).collect();
    let persons: Vec<_> = days.iter().map(|((_, person), _)| person.as_str()).collect();
    let (starts, ends): (Vec<_>, Vec<_>) =
        days.iter().map(|(_, day)| day.bounds()).map(|(start, end)| (to_sql(start), to_sql(end))).unzip();
    let rows = sqlx::query!(
        r#"SELECT late.place AS "place!", array_agg(DISTINCT kind) AS "kinds!"
           FROM UNNEST($1::text[], $2::text[], $3::timestamptz[], $4::timestamptz[])
               WITH ORDINALITY AS late (tenant, actor, day_start, day_end, place)
           JOIN ledger ON ledger.tenant = late.tenant AND ledger.actor = late.actor
               AND interaction_time >= day_start AND interaction_time < day_end
           WHERE (ledger.tenant, interaction_id) NOT IN (SELECT * FROM UNNEST($5::text[], $6::text[]))
           GROUP BY late.place"#,
        &tenants as _,
        &persons as _,
        &starts,
        &ends,
        &except.tenants as _,
        &except.ids as _,
    )
    .fetch_all(connection)
    .await?;
    let mut activity = HashMap::new();
    for row in rows {
        let place = usize::try_from(row.place).ok().and_then(|place| days.get(place.checked_sub(1)?));
        let mut day = ActiveDay::default();
        row.kinds.iter().filter_map(|kind| Kind::from_number((*kind).into())).for_each(|kind| day.gather(kind, policy));
        activity.extend(place.map(|key| (key.clone(), day)));
    }
    Ok(activity)
}

/// On which days these persons did what, up to a time: one point for each day and kind.
pub(super) async fn activity_until<'a>(
    connection: &mut PgConnection,
    persons: impl IntoIterator<Item = &'a RhythmKey>,
    until: Timestamp,
    most: usize,
) -> Result<BTreeMap<RhythmKey, Vec<(Timestamp, Kind)>>, StoreError> {
    let (tenants, persons): (Vec<_>, Vec<_>) =
        persons.into_iter().map(|(tenant, person)| (tenant.as_str(), person.as_str())).unzip();
    let rows = sqlx::query!(
        r#"SELECT ledger.tenant, ledger.actor, kind, max(interaction_time) AS "time!"
           FROM UNNEST($1::text[], $2::text[]) AS key (tenant, actor)
           JOIN ledger USING (tenant, actor)
           WHERE interaction_time <= $3
           GROUP BY ledger.tenant, ledger.actor, kind, date_trunc('day', interaction_time, 'UTC')
           LIMIT $4"#,
        &tenants as _,
        &persons as _,
        to_sql(until),
        super::one_more_than(most),
    )
    .fetch_all(connection)
    .await?;
    if rows.len() > most {
        return Err(StoreError::TooLarge(most));
    }
    let mut activity: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for row in rows {
        let key = (word("ledger", TenantId::parse(&row.tenant))?, word("ledger", PersonId::parse(&row.actor))?);
        let kind = Kind::from_number(row.kind.into())
            .ok_or(StoreError::Inconsistent { table: "ledger", what: "an unknown kind" })?;
        activity.entry(key).or_default().push((from_sql("ledger", row.time)?, kind));
    }
    Ok(activity)
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
    rows.iter().map(|peer| word("tie", PersonId::parse(peer))).collect()
}
