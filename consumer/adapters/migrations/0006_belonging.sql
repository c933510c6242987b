-- Which containers are a tenant's: labels alone prove nothing, and a copy has them too.

ALTER TABLE tenants ADD COLUMN containers TEXT NOT NULL DEFAULT ''; -- ids, separated by spaces
ALTER TABLE tenants ADD COLUMN made BIGINT NOT NULL DEFAULT -1;     -- how many were made; -1: not known, made by an
                                                                    -- older version that counted none

-- A person asks once that what another ledger's consumer left on the engine be taken over.
CREATE TABLE take_over (
    only_row INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    asked_at TEXT    NOT NULL
);
