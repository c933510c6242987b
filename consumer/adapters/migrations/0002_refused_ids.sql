-- The id of a refused event is kept so that its tenant is told once; it is not a duplicate when it
-- comes again and is no longer refused (replayed after the policy changed).
ALTER TABLE event_ids ADD COLUMN refused INTEGER NOT NULL DEFAULT 0;
