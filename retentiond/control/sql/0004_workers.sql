-- Many workers: who lives, and what becomes of a sweep that is divided into shards.

-- Processes that share this control database. One that has not been seen for a while is gone; nothing rests on that,
-- leases decide.
CREATE TABLE retentiond.workers (
    name text PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    role text NOT NULL CHECK (role IN ('all', 'worker', 'scheduler', 'sweep')),
    mode text NOT NULL CHECK (mode IN ('plan', 'enforce')),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- When the unit's last sweep ended, so that other processes can tell that there is a new outcome to show.
ALTER TABLE retentiond.units ADD COLUMN finished_at timestamptz;
