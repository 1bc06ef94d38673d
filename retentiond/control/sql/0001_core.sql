-- The core of retentiond's own state. Everything is in the schema `retentiond`, named in full everywhere.
-- Times are timestamptz and come from clock_timestamp(): the control database's clock is the one that counts.

-- Which control database this is. One row; control_id is what a configuration pins with control.id.
CREATE TABLE retentiond.meta (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    control_id uuid NOT NULL DEFAULT gen_random_uuid(),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO retentiond.meta DEFAULT VALUES;

-- Keys of the HMACs that accounts, evidence and free text go through (32 random bytes each, made by the program).
CREATE TABLE retentiond.secrets (
    name text PRIMARY KEY,
    value bytea NOT NULL CHECK (octet_length(value) = 32)
);

-- The hold barrier. One row, changed only under the exclusive barrier lock. It is apart from the other flags so that
-- nobody who changes those makes a hold wait.
CREATE TABLE retentiond.barrier (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    hold_epoch bigint NOT NULL DEFAULT 1,
    server_line text,                 -- the server this was last seen on (system identifier and timeline)
    line_changed_at timestamptz       -- when another one was first seen; null: never
);
INSERT INTO retentiond.barrier DEFAULT VALUES;

-- What reaches every replica before its next batch.
CREATE TABLE retentiond.flags (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    mode text NOT NULL DEFAULT 'plan' CHECK (mode IN ('plan', 'enforce')),
    mode_by text,
    mode_at timestamptz,
    paused boolean NOT NULL DEFAULT false,
    paused_by text,
    paused_at timestamptz,
    paused_reason text
);
INSERT INTO retentiond.flags DEFAULT VALUES;

-- The latest instant that has been seen and believed. One row; it only rises.
CREATE TABLE retentiond.clock (
    one boolean PRIMARY KEY DEFAULT true CHECK (one),
    high_water timestamptz
);
INSERT INTO retentiond.clock DEFAULT VALUES;

-- Units of work and their leases. `fence` grows with each owner and never falls.
CREATE TABLE retentiond.units (
    target text NOT NULL,
    shard text NOT NULL DEFAULT '',
    fence bigint NOT NULL DEFAULT 0,
    owner text,
    lease_until timestamptz,
    cursor jsonb,
    sweep jsonb,
    outcome jsonb,
    next_due_at timestamptz DEFAULT clock_timestamp(),
    last_success_at timestamptz,
    crashes integer NOT NULL DEFAULT 0,
    PRIMARY KEY (target, shard),
    CHECK ((owner IS NULL) = (lease_until IS NULL))
);

-- Permit numbers are reserved before the target's transaction opens, and are the key of an advisory lock there. They
-- start at a random place, so that they meet neither an application's own small lock numbers nor those of another
-- control database; below 2^53, which is what canonical JSON can carry.
CREATE SEQUENCE retentiond.permit_number AS bigint;
SELECT setval(
    'retentiond.permit_number',
    (('x' || left(replace(gen_random_uuid()::text, '-', ''), 5))::bit(20)::bigint + 1) * 4294967296
);

-- Permits. `epoch` is the hold epoch that it was issued under: a hold waits for the open ones of a smaller epoch.
CREATE TABLE retentiond.permits (
    number bigint PRIMARY KEY,
    target text NOT NULL,
    shard text NOT NULL,
    owner text NOT NULL,
    fence bigint NOT NULL,
    epoch bigint NOT NULL,
    digest text NOT NULL,
    batch text NOT NULL,
    intent jsonb NOT NULL,
    prepared jsonb,
    issued_at timestamptz NOT NULL,
    deadline timestamptz NOT NULL,
    ended_at timestamptz,
    outcome text,
    FOREIGN KEY (target, shard) REFERENCES retentiond.units (target, shard),
    CHECK ((ended_at IS NULL) = (outcome IS NULL))
);
CREATE INDEX permits_open ON retentiond.permits (target, shard) WHERE ended_at IS NULL;
CREATE INDEX permits_ended ON retentiond.permits (ended_at) WHERE ended_at IS NOT NULL;

-- Legal holds. `epoch` is the one that its placement made.
CREATE TABLE retentiond.holds (
    id text PRIMARY KEY,
    matter text NOT NULL,
    reason text NOT NULL,
    scope jsonb NOT NULL,
    state text NOT NULL CHECK (state IN ('pending', 'active', 'releasing', 'released')),
    epoch bigint NOT NULL,
    placed_by text NOT NULL,
    placed_at timestamptz NOT NULL,
    effective_at timestamptz,
    review_by timestamptz,
    notice text,
    released_by text,
    released_at timestamptz,
    release_reason text,
    erasable_at timestamptz,
    reinstated_by text,
    reinstated_at timestamptz,
    reinstate_reason text,
    ended_at timestamptz,
    CHECK (state <> 'active' OR effective_at IS NOT NULL),
    CHECK (state <> 'pending' OR effective_at IS NULL),
    CHECK (state NOT IN ('releasing', 'released') OR erasable_at IS NOT NULL),
    CHECK ((state = 'released') = (ended_at IS NOT NULL))
);
CREATE INDEX holds_living ON retentiond.holds (state) WHERE state <> 'released';

-- Approvals are used once; `waiting` is what an operator is asked for.
CREATE TABLE retentiond.approvals (
    id text PRIMARY KEY,
    kind text NOT NULL CHECK (kind IN ('sweep', 'policy', 'clock', 'directory')),
    target text NOT NULL,
    digest text NOT NULL,
    bound bigint,
    granted_by text NOT NULL,
    granted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    used_at timestamptz,
    used_by text,
    used_fence bigint
);
CREATE INDEX approvals_unused ON retentiond.approvals (kind, target, digest) WHERE used_at IS NULL;

CREATE TABLE retentiond.waiting (
    kind text NOT NULL CHECK (kind IN ('sweep', 'policy', 'clock', 'directory')),
    target text NOT NULL,
    digest text NOT NULL,
    count bigint,
    detail jsonb NOT NULL,
    since timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, target)
);

-- Versions of the configuration that were enforced, newest last.
CREATE TABLE retentiond.policies (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    digest text NOT NULL,
    document jsonb NOT NULL,
    approved_by text NOT NULL,
    enforced_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- The memory of the account directory. Accounts are keyed by an HMAC of their id: no account id is stored.
CREATE TABLE retentiond.account_memory (
    hash bytea PRIMARY KEY CHECK (octet_length(hash) = 16),
    tier text,
    overrides text,
    deleted boolean NOT NULL,
    changed_at timestamptz,
    missing_since timestamptz,
    first_seen timestamptz NOT NULL
);
CREATE INDEX account_memory_changed ON retentiond.account_memory (changed_at) WHERE changed_at IS NOT NULL;
CREATE INDEX account_memory_missing ON retentiond.account_memory (missing_since) WHERE missing_since IS NOT NULL;
