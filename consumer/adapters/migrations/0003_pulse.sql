-- One row, written again every few seconds: whether that succeeds is whether the ledger is writable.

CREATE TABLE pulse (
    only_row INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    beat_at  TEXT    NOT NULL
);
