-- Who this ledger is: the holder's name on the engine's lease. One row, made once, never changed.

CREATE TABLE identity (
    only_row  INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    ledger_id TEXT    NOT NULL
);

INSERT INTO identity (only_row, ledger_id) VALUES (1, lower(hex(randomblob(16))));
