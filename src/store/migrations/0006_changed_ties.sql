-- The ties that a revision changed, so that servers read again no more of what they keep. Nothing is said where more than
-- these was changed.
ALTER TABLE change ADD COLUMN actors text[] COLLATE "C", ADD COLUMN recipients text[] COLLATE "C";
