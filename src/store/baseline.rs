//! What an engineer would write by hand instead of Rapport: the measure for `rapport bench`. One transaction for each act,
//! which inserts it and updates two rows, and a ranking that is one statement over the kept ties. It has tables of its own,
//! in a schema of its own, for recording; nothing else reads or writes them.

use sqlx::{PgPool, postgres::PgPoolOptions};

use crate::domain::{PersonId, TenantId, Timestamp};

use super::{Store, StoreError, rows::to_sql};

const SCHEMA: &str = r"
SET client_min_messages TO warning;
CREATE SCHEMA IF NOT EXISTS rapport_baseline;
CREATE TABLE IF NOT EXISTS rapport_baseline.act (
    tenant text NOT NULL, id text NOT NULL, actor text NOT NULL, recipient text NOT NULL, act_time timestamptz NOT NULL,
    kind smallint NOT NULL, record_time timestamptz NOT NULL, PRIMARY KEY (tenant, id)
);
CREATE INDEX IF NOT EXISTS act_pair ON rapport_baseline.act (tenant, actor, recipient, act_time);
CREATE TABLE IF NOT EXISTS rapport_baseline.tie (
    tenant text NOT NULL, actor text NOT NULL, recipient text NOT NULL, first_time timestamptz NOT NULL,
    last_time timestamptz NOT NULL, count bigint NOT NULL, week double precision NOT NULL, month double precision NOT NULL,
    year double precision NOT NULL, PRIMARY KEY (tenant, actor, recipient)
) WITH (fillfactor = 80);
CREATE INDEX IF NOT EXISTS tie_recipient ON rapport_baseline.tie (tenant, recipient, actor);
CREATE TABLE IF NOT EXISTS rapport_baseline.person (
    tenant text NOT NULL, person text NOT NULL, last_time timestamptz NOT NULL, month double precision NOT NULL,
    year double precision NOT NULL, PRIMARY KEY (tenant, person)
) WITH (fillfactor = 80)";

const ACT: &str = "
INSERT INTO rapport_baseline.act (tenant, id, actor, recipient, act_time, kind, record_time)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (tenant, id) DO NOTHING";

/// Sums that halve within 7, 30 and 365 days: the divisors are those in seconds, over ln 2.
const TIE: &str = "
INSERT INTO rapport_baseline.tie AS kept (tenant, actor, recipient, first_time, last_time, count, week, month, year)
VALUES ($1, $2, $3, $4, $4, 1, 1, 1, 1)
ON CONFLICT (tenant, actor, recipient) DO UPDATE SET
    last_time = EXCLUDED.last_time, count = kept.count + 1,
    week = 1 + kept.week * exp(extract(epoch FROM kept.last_time - EXCLUDED.last_time)::float8 / 872542),
    month = 1 + kept.month * exp(extract(epoch FROM kept.last_time - EXCLUDED.last_time)::float8 / 3739466),
    year = 1 + kept.year * exp(extract(epoch FROM kept.last_time - EXCLUDED.last_time)::float8 / 45496831)";

const PERSON: &str = "
INSERT INTO rapport_baseline.person AS kept (tenant, person, last_time, month, year) VALUES ($1, $2, $3, 1, 1)
ON CONFLICT (tenant, person) DO UPDATE SET
    last_time = EXCLUDED.last_time,
    month = 1 + kept.month * exp(extract(epoch FROM kept.last_time - EXCLUDED.last_time)::float8 / 3739466),
    year = 1 + kept.year * exp(extract(epoch FROM kept.last_time - EXCLUDED.last_time)::float8 / 45496831)";

/// Over the very rows that Rapport ranks by: attention and help of a month and of a year, both ways, and how much the peer
/// does at all.
const RANK: &str = "
SELECT peer, ln(1 + sum(evidence)) + 0.2 * ln(1 + coalesce(max(rhythm.days[4]), 0)) AS score
FROM (
    SELECT actor AS peer, evidence[3] * 0.5 ^ (age / 30) + evidence[4] * 0.5 ^ (age / 365) + evidence[8] AS evidence
    FROM tie, LATERAL (SELECT extract(epoch FROM $3 - last_time)::float8 / 86400 AS age) AS aged
    WHERE tenant = $1 AND recipient = $2
    UNION ALL
    SELECT recipient, 2 * (evidence[3] * 0.5 ^ (age / 30) + evidence[4] * 0.5 ^ (age / 365) + evidence[8])
    FROM tie, LATERAL (SELECT extract(epoch FROM $3 - last_time)::float8 / 86400 AS age) AS aged
    WHERE tenant = $1 AND actor = $2
) AS both_ways LEFT JOIN rhythm ON rhythm.tenant = $1 AND rhythm.person = peer
GROUP BY peer ORDER BY score DESC, peer LIMIT $4";

/// An act, as far as the hand-written tables know it.
#[derive(Clone, Debug)]
pub struct BaselineAct {
    /// Its id.
    pub id: String,
    /// Who acts.
    pub actor: String,
    /// Toward whom.
    pub recipient: String,
    /// The number of its kind.
    pub kind: i16,
}

/// The hand-written statements, over connections of their own. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Baseline {
    pool: PgPool,
    tenant: TenantId,
}

impl Baseline {
    /// Makes the tables, unless they are there, and opens so many connections.
    pub async fn open(store: &Store, tenant: &TenantId, connections: u32) -> Result<Self, StoreError> {
        let options = store.pool.connect_options().as_ref().clone();
        let pool = PgPoolOptions::new().max_connections(connections).min_connections(connections);
        let pool = pool.test_before_acquire(false).connect_with(options).await?;
        sqlx::raw_sql(SCHEMA).execute(&pool).await?;
        Ok(Self { pool, tenant: tenant.clone() })
    }

    /// Records one act in one transaction.
    pub async fn record(&self, act: &BaselineAct, now: Timestamp) -> Result<(), StoreError> {
        let mut transaction = self.pool.begin().await?;
        let (tenant, now) = (self.tenant.as_str(), to_sql(now));
        let inserted = sqlx::query(ACT).bind(tenant).bind(&act.id).bind(&act.actor).bind(&act.recipient);
        inserted.bind(now).bind(act.kind).bind(now).execute(&mut *transaction).await?;
        let tie = sqlx::query(TIE).bind(tenant).bind(&act.actor).bind(&act.recipient).bind(now);
        tie.execute(&mut *transaction).await?;
        sqlx::query(PERSON).bind(tenant).bind(&act.actor).bind(now).execute(&mut *transaction).await?;
        Ok(transaction.commit().await?)
    }

    /// The best of a person's connections, and how many there were of them.
    pub async fn rank(&self, person: &PersonId, now: Timestamp, most: i64) -> Result<usize, StoreError> {
        let rows = sqlx::query(RANK).bind(self.tenant.as_str()).bind(person.as_str()).bind(to_sql(now)).bind(most);
        Ok(rows.fetch_all(&self.pool).await?.len())
    }
}
