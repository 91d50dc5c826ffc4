-- How often something was recorded for a tenant: raised by every transaction that records, as its last act before it
-- commits, so that revisions become visible in their order and what is visible with one is what led to it.
CREATE TABLE tenant_revision (
    tenant   text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    CONSTRAINT tenant_revision_key PRIMARY KEY (tenant)
) WITH (fillfactor = 20);

-- Whose ties or rhythms each of the latest revisions touched, by the marks that stand for their ids. Servers look here
-- whether an answer they gave still holds.
CREATE TABLE change (
    tenant   text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    persons  bigint[] NOT NULL,
    CONSTRAINT change_key PRIMARY KEY (tenant, revision)
);
ALTER TABLE change ALTER COLUMN persons SET STORAGE EXTERNAL;
