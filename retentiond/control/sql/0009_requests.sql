-- Deletions that a store has taken on and carries out later by itself, from when it took them on until they are seen to
-- be done. A row comes in the transaction that ends their permit; until then the permit itself keeps holds waiting.
CREATE TABLE retentiond.requests (
    target text NOT NULL,
    id text NOT NULL,                 -- the store's own name for it; after a restart it may give it again
    permit bigint NOT NULL,
    place jsonb NOT NULL,             -- what its target was over: one of another place can't be asked about
    stage text NOT NULL DEFAULT 'requested'
        CHECK (stage IN ('requested', 'hidden', 'erased', 'verified', 'cancelled', 'failed')),
    asked jsonb,                      -- what was asked for: names accounts, and is forgotten at the end
    by_tier jsonb NOT NULL,           -- how many records it was about
    digest text NOT NULL,             -- the keyed digest of what was asked for
    outcome jsonb NOT NULL,           -- what the ledger is told at the end, save what went
    called_off jsonb NOT NULL DEFAULT '[]',  -- the holds for which it was cancelled
    told text NOT NULL DEFAULT '',    -- why it is not further
    requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    moved_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at timestamptz,
    PRIMARY KEY (target, id, permit),
    CHECK ((ended_at IS NULL) = (stage IN ('requested', 'hidden', 'erased')))
);
CREATE INDEX requests_open ON retentiond.requests (target) WHERE ended_at IS NULL;
