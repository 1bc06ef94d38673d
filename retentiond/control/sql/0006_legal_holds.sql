-- Legal holds that we have written on versions of objects in buckets with Object Lock: release takes off these and no
-- others. A row comes before the legal hold and goes after it, so that none of ours is ever forgotten.
CREATE TABLE retentiond.legal_holds (
    place text NOT NULL,              -- the bucket: JSON of the service and its name
    key bytea NOT NULL,               -- as bytes, in whose order a bucket is listed
    version text NOT NULL,
    written boolean NOT NULL DEFAULT false,  -- false: it is about to be, or was when its worker stopped
    noted_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (place, key, version)
);

-- What of a bucket was last brought in step with which holds, and who is at it.
CREATE TABLE retentiond.legal_hold_walks (
    place text NOT NULL,
    head bytea NOT NULL,              -- what the keys of the target begin with
    holds jsonb NOT NULL DEFAULT '{}',       -- by id, the digest of the scope as it was written
    looked_at timestamptz,
    verified_at timestamptz,          -- when each one that is ours was last asked about
    owner text,
    lease_until timestamptz,
    PRIMARY KEY (place, head)
);

-- Whether the hold is written into every store that can hold by itself, also where its target has no native_holds.
ALTER TABLE retentiond.holds ADD COLUMN native boolean NOT NULL DEFAULT false;
