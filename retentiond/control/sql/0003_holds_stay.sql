-- A hold ends by its state and stays as evidence of what was held: its row is never removed, by hand or by program.
-- A superuser can get round it; the ledger, which has each step of each hold, shows it then.

CREATE FUNCTION retentiond.hold_stays() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'holds are never removed: % on %.% is refused', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege',
              HINT = 'Release the hold: `retentiond hold release`.';
END
$$;

-- By statement, so that one which would touch no row is refused as well.
CREATE TRIGGER hold_stays BEFORE DELETE OR TRUNCATE ON retentiond.holds
    FOR EACH STATEMENT EXECUTE FUNCTION retentiond.hold_stays();

-- ALWAYS: `session_replication_role = replica` doesn't switch it off.
ALTER TABLE retentiond.holds ENABLE ALWAYS TRIGGER hold_stays;

REVOKE DELETE, TRUNCATE ON retentiond.holds FROM PUBLIC;
