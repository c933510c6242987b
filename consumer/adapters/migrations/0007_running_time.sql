-- How long consumers have run on this ledger, counted by a clock that nobody can set; and of each
-- ten minutes of it, the earliest time that the wall clock showed meanwhile. What was written in the
-- last so many seconds of running bears no earlier stamp than the earliest of those ten minutes: so
-- a sweep knows what is old also after the wall clock was set.

ALTER TABLE pulse ADD COLUMN ran_seconds REAL NOT NULL DEFAULT 0;

CREATE TABLE running_time (
    period      INTEGER NOT NULL PRIMARY KEY, -- ten minutes of running, counted from 0
    earliest_at TEXT    NOT NULL
);
