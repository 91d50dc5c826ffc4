-- What is in the ledger and not yet in ties, commitments and rhythms: the acts that a revision added, one element of each
-- array for each, and whom they touch, as in change. Whoever folds them takes the row away in the same transaction, so that all of it is folded once, by
-- whichever server.
CREATE TABLE unfolded (
    tenant          text COLLATE "C" NOT NULL,
    revision        bigint NOT NULL,
    persons         bigint[] NOT NULL,
    interaction_ids text[] COLLATE "C" NOT NULL,
    actors          text[] COLLATE "C" NOT NULL,
    recipients      text[] COLLATE "C" NOT NULL,
    times           timestamptz[] NOT NULL,
    kinds           smallint[] NOT NULL,
    group_sizes     integer[] NOT NULL,
    efforts_micros  bigint[] NOT NULL,
    unprompted      boolean[] NOT NULL,
    serve_goals     boolean[] NOT NULL,
    due_times       timestamptz[] NOT NULL,
    refer_to        text[] COLLATE "C" NOT NULL,
    CONSTRAINT unfolded_key PRIMARY KEY (tenant, revision)
);

-- Programs before know nothing of it: they would answer without what is not yet folded.
INSERT INTO server_key (name, content) VALUES ('serves-since', '7')
    ON CONFLICT (name) DO UPDATE SET content = EXCLUDED.content;
