-- What the API needs beside what the commands write: who has asked for a hold's release, what was done under which
-- idempotency key, and who is logged in.

-- Where a release takes two people (`holds.two_person`), the first one's word; the hold holds on.
ALTER TABLE retentiond.holds
    ADD COLUMN release_requested_by text,
    ADD COLUMN release_requested_at timestamptz,
    ADD COLUMN release_requested_reason text,
    ADD CHECK ((release_requested_by IS NULL) = (release_requested_at IS NULL)),
    ADD CHECK ((release_requested_by IS NULL) = (release_requested_reason IS NULL));

-- A change that was asked for with an Idempotency-Key, committed with the change itself. `subject` is the hold that it
-- was about, `answer` the event in its life, else what was answered: free text of holds is read anew, and not kept here.
CREATE TABLE retentiond.api_requests (
    principal text NOT NULL,
    key text NOT NULL,
    digest bytea NOT NULL CHECK (octet_length(digest) = 32),
    subject text,
    answer jsonb,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (principal, key)
);
CREATE INDEX api_requests_at ON retentiond.api_requests (at);

-- Sessions of people at the page, by the SHA-256 of their cookie: who reads this table can't log in by it. `token` is
-- the SHA-256 of the token that they logged in with, so that a token which is taken away ends its sessions.
CREATE TABLE retentiond.sessions (
    id bytea PRIMARY KEY CHECK (octet_length(id) = 32),
    principal text NOT NULL,
    token text NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX sessions_expire ON retentiond.sessions (expires_at);
