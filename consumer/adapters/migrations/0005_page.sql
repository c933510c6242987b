-- What the operator's page asks for: since when a tenant is in its state, what was told of it before
-- (the outbox keeps that for the retention time), and how long the last starts took.

ALTER TABLE tenants ADD COLUMN since TEXT; -- when the state of the last status began

UPDATE tenants SET since = json_extract(status, '$.occurred_at') WHERE status IS NOT NULL;

CREATE INDEX outbox_by_tenant ON outbox (tenant_id, entry_id);
CREATE INDEX outbox_startups ON outbox (entry_id)
    WHERE json_extract(body, '$.startup_seconds') IS NOT NULL;
