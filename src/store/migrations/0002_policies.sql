-- Scoring policies, each tenant's own. Rows never change: a version stands for one document, once and for all. Places count
-- a tenant's versions from 1, in the order in which they were published.
CREATE TABLE policy (
    tenant       text COLLATE "C" NOT NULL,
    version      text COLLATE "C" NOT NULL,
    place        bigint NOT NULL CHECK (place > 0),
    document     text COLLATE "C" NOT NULL,
    publish_time timestamptz NOT NULL,
    CONSTRAINT policy_key PRIMARY KEY (tenant, version),
    CONSTRAINT policy_place UNIQUE (tenant, place)
);

-- Which version a tenant put to use when. Rows never change; the one at the highest place says what is in use. No version
-- stands for the policy that is built into the program, whatever that one is called; it is in use before the first row.
-- Rolling back leads to what was in use at the place returns_to (0 is before the first row), and nowhere when that is null.
CREATE TABLE policy_use (
    tenant     text COLLATE "C" NOT NULL,
    place      bigint NOT NULL CHECK (place > 0),
    version    text COLLATE "C",
    returns_to bigint CHECK (returns_to >= 0 AND returns_to < place),
    use_time   timestamptz NOT NULL,
    CONSTRAINT policy_use_key PRIMARY KEY (tenant, place),
    CONSTRAINT policy_use_version FOREIGN KEY (tenant, version) REFERENCES policy (tenant, version)
);
