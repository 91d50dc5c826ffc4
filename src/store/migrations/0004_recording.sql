-- What was done toward a person is found through the ties that lead to them: one index less to keep for every act.
DROP INDEX ledger_recipient;

-- The day of last_time, in days since 1970, so that recording can add to a rhythm without reading it first.
ALTER TABLE rhythm ADD COLUMN day integer;
UPDATE rhythm SET day = (last_time AT TIME ZONE 'UTC')::date - date '1970-01-01';
ALTER TABLE rhythm ALTER COLUMN day SET NOT NULL;

-- What is left of a decayed sum some days later. What comes near the smallest number there is counts as nothing.
CREATE FUNCTION faded(sum double precision, days integer, half_life double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN sum > 1e-30 THEN sum * 0.5 ^ LEAST(GREATEST(days, 0) / half_life, 900) ELSE 0 END;
