-- Both indexes of commitments hold the whole key, so whichever of the two a plan takes, it finds a commitment by itself. A plan
-- that is made while the table is empty may take either; by the one before, it read all commitments of the pair for each.
CREATE INDEX commitment_by_counterpart ON commitment (tenant, counterpart, committed, commitment_id);
DROP INDEX commitment_counterpart;
