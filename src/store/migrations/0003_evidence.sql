-- Ties keep attention and help on four clocks; rhythms keep tie-days sent, received and of help on each, and are sums of
-- ties. What was kept before is derived from the ledger again once this has run.
TRUNCATE tie, rhythm;

ALTER TABLE tie
    DROP CONSTRAINT tie_today_check,
    DROP CONSTRAINT tie_evidence_check,
    ADD CONSTRAINT tie_today_check CHECK (cardinality(today) = 3),
    ADD CONSTRAINT tie_evidence_check CHECK (cardinality(evidence) = 14);

ALTER TABLE rhythm
    DROP COLUMN active_today,
    DROP COLUMN helped_today,
    DROP CONSTRAINT rhythm_days_check,
    ADD CONSTRAINT rhythm_days_check CHECK (cardinality(days) = 12);

-- What was done toward one person: the rhythms of past as-of times, and rebuilding. What one person did is found by pair.
CREATE INDEX ledger_recipient ON ledger (tenant, recipient, interaction_time);
DROP INDEX ledger_actor;
