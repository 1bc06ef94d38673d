-- Partitions that a sweep has taken, or is about to take, off their table, to drop them once each record in them is
-- proved to be due. A row comes before the DETACH and goes when the table is gone or back: so none is ever forgotten.
CREATE TABLE retentiond.detached (
    target text NOT NULL,
    part bigint NOT NULL,             -- the oid of its table in the target's database
    place text NOT NULL,              -- which table it is a part of: database and name
    name text NOT NULL,               -- quoted, with its schema
    bounds text NOT NULL,             -- FOR VALUES …, by which it is attached again
    checks text[] NOT NULL,           -- its constraints before: DETACH CONCURRENTLY adds one
    shard text NOT NULL,
    owner text NOT NULL,
    fence bigint NOT NULL,
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (target, part)
);
