-- The ledger: desired state, last status, outbox. Times are UTC text (ISO 8601, microseconds).

CREATE TABLE tenants (
    tenant_id         TEXT    NOT NULL PRIMARY KEY,
    desired           TEXT    NOT NULL,            -- running, stopped, deleted (a tombstone)
    revision          INTEGER NOT NULL,            -- recorded events so far; ours alone
    answered_revision INTEGER NOT NULL,            -- the last one that a status event answered
    received_at       TEXT    NOT NULL,            -- when the last recorded event came
    kind              TEXT,                        -- its type; null when adopted
    event_id          TEXT,                        -- its id, carried over to its answer
    correlation_id    TEXT,
    traceparent       TEXT,
    generation        BIGINT,                      -- the highest recorded; null when none was given
    spec              TEXT,                        -- what is wanted, canonical JSON
    fingerprint       TEXT,                        -- of the container that spec asks for
    applied           TEXT,                        -- the spec of the last pass that succeeded
    sequence          BIGINT  NOT NULL DEFAULT 0,  -- of the last status event
    state             TEXT,                        -- of the last status; null before the first
    status            TEXT,                        -- the last status, as it was published
    setback           TEXT,                        -- a failed try and when the next is due, JSON
    restarts          TEXT    NOT NULL DEFAULT '', -- recent restarts, times separated by spaces
    touched_at        TEXT    NOT NULL             -- when this row last changed
);

CREATE INDEX tenants_by_state ON tenants (state);

-- Events seen, so that a duplicate changes nothing; swept after the retention time.
CREATE TABLE event_ids (
    tenant_id   TEXT NOT NULL,
    event_id    TEXT NOT NULL,
    recorded_at TEXT NOT NULL,
    PRIMARY KEY (tenant_id, event_id)
);

CREATE INDEX event_ids_by_age ON event_ids (recorded_at);

-- Status events, committed together with the state they tell of; sent_at is set by the confirm.
CREATE TABLE outbox (
    entry_id       INTEGER NOT NULL PRIMARY KEY,
    tenant_id      TEXT    NOT NULL,
    sequence       BIGINT  NOT NULL,
    state          TEXT    NOT NULL,
    body           TEXT    NOT NULL,
    created_at     TEXT    NOT NULL,
    correlation_id TEXT,
    traceparent    TEXT,
    sent_at        TEXT
);

CREATE INDEX outbox_unsent ON outbox (entry_id) WHERE sent_at IS NULL;
CREATE INDEX outbox_by_age ON outbox (sent_at) WHERE sent_at IS NOT NULL;
