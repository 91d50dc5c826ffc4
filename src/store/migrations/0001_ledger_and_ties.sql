-- The ledger is the truth; ties, rhythms and commitments are derived from it and can be rebuilt.
-- Every key leads with the tenant, so that the tables can be distributed by it. Text is ordered by its bytes.

-- One row for each recipient of an interaction; the one at position 0 stands for the interaction. Rows never change.
CREATE TABLE ledger (
    tenant           text COLLATE "C" NOT NULL,
    interaction_id   text COLLATE "C" NOT NULL,
    position         smallint NOT NULL,
    actor            text COLLATE "C" NOT NULL,
    recipient        text COLLATE "C" NOT NULL,
    interaction_time timestamptz NOT NULL,
    kind             smallint NOT NULL,
    group_size       integer NOT NULL,
    effort_micros    bigint,
    unprompted       boolean NOT NULL,
    due_time         timestamptz,
    refers_to        text COLLATE "C",
    channel          text COLLATE "C",
    topics           text[] COLLATE "C" NOT NULL,
    goal             text COLLATE "C",
    fingerprint      bytea NOT NULL,
    record_time      timestamptz NOT NULL,
    CONSTRAINT ledger_key PRIMARY KEY (tenant, interaction_id, position)
);

-- What one person did toward another, by time: late acts, past as-of times, explanations, rebuilding.
CREATE INDEX ledger_pair ON ledger (tenant, actor, recipient, interaction_time);

-- What one person did at all, by time: the rhythm of late acts and of past as-of times.
CREATE INDEX ledger_actor ON ledger (tenant, actor, interaction_time);

-- The evidence of one actor toward one recipient, as of the day of last_time. The order within the arrays is that of
-- scoring::Kind, scoring::DayCell and scoring::Evidence. No index holds a column that recording changes, so that updates
-- stay within their page.
CREATE TABLE tie (
    tenant     text COLLATE "C" NOT NULL,
    actor      text COLLATE "C" NOT NULL,
    recipient  text COLLATE "C" NOT NULL,
    first_time timestamptz NOT NULL,
    last_time  timestamptz NOT NULL,
    counts     integer[] NOT NULL CHECK (cardinality(counts) = 17),
    today      double precision[] NOT NULL CHECK (cardinality(today) = 6),
    evidence   double precision[] NOT NULL CHECK (cardinality(evidence) = 21),
    CONSTRAINT tie_key PRIMARY KEY (tenant, actor, recipient)
) WITH (fillfactor = 80);

-- Who acted toward a person: half of every ranking.
CREATE INDEX tie_recipient ON tie (tenant, recipient, actor);

-- A person's own active days, as of the day of last_time: active days, then days of help, for each clock.
CREATE TABLE rhythm (
    tenant       text COLLATE "C" NOT NULL,
    person       text COLLATE "C" NOT NULL,
    last_time    timestamptz NOT NULL,
    active_today boolean NOT NULL,
    helped_today boolean NOT NULL,
    days         double precision[] NOT NULL CHECK (cardinality(days) = 6),
    CONSTRAINT rhythm_key PRIMARY KEY (tenant, person)
) WITH (fillfactor = 80);

-- Promises and asks. A row may begin with its outcome, when that is recorded first.
CREATE TABLE commitment (
    tenant        text COLLATE "C" NOT NULL,
    committed     text COLLATE "C" NOT NULL,
    counterpart   text COLLATE "C" NOT NULL,
    commitment_id text COLLATE "C" NOT NULL,
    made_time     timestamptz,
    due_time      timestamptz,
    group_size    integer NOT NULL,
    outcome_time  timestamptz,
    outcome_id    text COLLATE "C",
    released_time timestamptz,
    CONSTRAINT commitment_key PRIMARY KEY (tenant, committed, counterpart, commitment_id)
);

-- What was committed to a person: the other half of every ranking.
CREATE INDEX commitment_counterpart ON commitment (tenant, counterpart, committed);

-- Keys that all servers of one database share.
CREATE TABLE server_key (
    name    text PRIMARY KEY,
    content bytea NOT NULL
);
