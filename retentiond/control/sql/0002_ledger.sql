-- The ledger: entries that are only ever added, the head of their Merkle tree, and the checkpoints signed over it.
-- A superuser can get round all that is refused here; the hashes, and checkpoints kept elsewhere, show it then.

CREATE TABLE retentiond.ledger_entries (
    seq   bigint PRIMARY KEY CHECK (seq > 0),
    -- The first day of the entry's month in UTC: the ledger keeps to its own term by whole months.
    month date NOT NULL,
    kind  text NOT NULL,
    at    timestamptz NOT NULL,
    -- The canonical JSON byte for byte, whatever the encoding of the database: convert_from(leaf, 'UTF8') reads it.
    leaf  bytea NOT NULL,
    hash  bytea NOT NULL CHECK (octet_length(hash) = 32)
);

COMMENT ON TABLE retentiond.ledger_entries IS
    'Append-only. leaf is one canonical JSON object (RFC 8785), hash its RFC 6962 leaf hash; '
    'kind, at and month repeat what the leaf says, to look entries up.';

CREATE INDEX ledger_entries_kind ON retentiond.ledger_entries (kind, seq);

-- One row. frontier has the roots of the full subtrees, largest first; last is the leaf hash of entry number `size`.
CREATE TABLE retentiond.ledger_head (
    one      boolean PRIMARY KEY DEFAULT true CHECK (one),
    size     bigint NOT NULL CHECK (size >= 0),
    frontier bytea[] NOT NULL,
    last     bytea NOT NULL
) WITH (fillfactor = 10);

INSERT INTO retentiond.ledger_head (size, frontier, last) VALUES (0, '{}', '');

-- The frontier at each checkpoint lets the next one be signed only when it continues this one, without reading
-- the whole ledger again. key_id is of the signing key (hex), which may be changed.
CREATE TABLE retentiond.ledger_checkpoints (
    size     bigint NOT NULL CHECK (size >= 0),
    key_id   text NOT NULL,
    note     text NOT NULL,
    frontier bytea[] NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (key_id, size)
);

CREATE FUNCTION retentiond.ledger_refuse() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the ledger is append-only: % on %.% is refused', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege',
              HINT = 'Entries and checkpoints of the ledger are evidence and are never changed or removed by hand.';
END
$$;

CREATE FUNCTION retentiond.ledger_head_grows() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.size <= OLD.size THEN
        RAISE EXCEPTION 'the ledger is append-only: its head can''t go from % back to %', OLD.size, NEW.size
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    RETURN NEW;
END
$$;

-- By statement, so that one which would touch no row is refused as well.
CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON retentiond.ledger_entries
    FOR EACH STATEMENT EXECUTE FUNCTION retentiond.ledger_refuse();
CREATE TRIGGER ledger_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON retentiond.ledger_checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION retentiond.ledger_refuse();
CREATE TRIGGER ledger_stays BEFORE DELETE OR TRUNCATE ON retentiond.ledger_head
    FOR EACH STATEMENT EXECUTE FUNCTION retentiond.ledger_refuse();
CREATE TRIGGER ledger_grows BEFORE UPDATE ON retentiond.ledger_head
    FOR EACH ROW EXECUTE FUNCTION retentiond.ledger_head_grows();

-- ALWAYS: `session_replication_role = replica` doesn't switch them off.
ALTER TABLE retentiond.ledger_entries ENABLE ALWAYS TRIGGER ledger_append_only;
ALTER TABLE retentiond.ledger_checkpoints ENABLE ALWAYS TRIGGER ledger_append_only;
ALTER TABLE retentiond.ledger_head ENABLE ALWAYS TRIGGER ledger_stays;
ALTER TABLE retentiond.ledger_head ENABLE ALWAYS TRIGGER ledger_grows;

REVOKE UPDATE, DELETE, TRUNCATE ON retentiond.ledger_entries, retentiond.ledger_checkpoints FROM PUBLIC;
REVOKE DELETE, TRUNCATE ON retentiond.ledger_head FROM PUBLIC;
