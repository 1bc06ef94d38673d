"""What the role of a dsn may and may not: missing grants, row level security, and the least rights that are enough."""

import pytest

from tests.services.gates import open_transaction

ALL = ("GRANT SELECT, DELETE ON logs TO {role}", "GRANT SELECT ON accounts TO {role}")


async def with_another(rig):
    """A second target that the superuser sweeps, whatever happens to the first."""
    await rig.company()
    await rig.db.execute("CREATE TABLE others AS TABLE logs; ALTER TABLE others ADD PRIMARY KEY (id)")


@pytest.mark.parametrize(
    ("grants", "missing"),
    [
        (("GRANT SELECT ON logs, accounts TO {role}",), "DELETE"),
        (("GRANT DELETE ON logs TO {role}", "GRANT SELECT ON accounts TO {role}"), "SELECT"),
        (("GRANT SELECT (id, created_at), DELETE ON logs TO {role}", "GRANT SELECT ON accounts TO {role}"), "SELECT"),
        (("GRANT SELECT, DELETE ON logs TO {role}",), "SELECT"),
        (("GRANT SELECT, DELETE ON logs TO {role}", "GRANT SELECT (id) ON accounts TO {role}"), "SELECT"),
    ],
)
async def test_a_missing_grant_makes_that_target_blind_and_names_grant(rig, limited, grants, missing):
    await with_another(rig)
    await limited(*grants)
    rig.target("others")
    rig.targets["others"] |= {"tier": "free"}
    rig.targets["others"].pop("account")
    found = await rig.sweep()
    assert (found["logs"].outcome, found["logs"].changed) == ("blind", 0)
    assert "GRANT" in found["logs"].error["remedy"]
    assert len(await rig.ids()) == 8
    assert (found["others"].outcome, found["others"].changed) == ("drained", 5)
    await rig.require_told(logs=0, others=5)


async def test_no_right_on_the_schema_makes_the_target_blind(rig, limited):
    await rig.company()
    await rig.db.execute("CREATE SCHEMA hidden; ALTER TABLE logs SET SCHEMA hidden")
    rig.target("logs", table="hidden.logs")
    await limited("GRANT SELECT ON accounts TO {role}", "GRANT SELECT, DELETE ON hidden.logs TO {role}")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert "GRANT" in outcome.error["remedy"]


async def test_select_and_delete_are_enough(rig, limited):
    await rig.company()
    await limited(*ALL)
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 5), outcome.error
    await rig.require_told(logs=5)


async def test_select_and_delete_are_enough_where_a_row_is_locked(rig, limited):
    """`check` asks for no more than these; a locked row must not make the whole target blind."""
    await rig.company()
    await limited(*ALL)
    async with open_transaction(rig.dsn, "SELECT 1 FROM logs WHERE id = 2 FOR UPDATE"):
        outcome = await rig.only()
    assert (outcome.outcome, outcome.changed, outcome.locked) == ("capped", 4, 1), outcome.error
    assert (await rig.only()).outcome == "drained"
    await rig.require_told(logs=5)


async def test_what_check_asks_for_is_what_a_parent_of_others_needs(rig, limited):
    """Parents are locked before they are judged: if that needs a right, `check` must say so while it is missing."""
    await rig.company()
    await rig.db.execute(
        "CREATE TABLE children (id int PRIMARY KEY, log_id bigint REFERENCES logs ON DELETE CASCADE);"
        "CREATE INDEX ON children (log_id); INSERT INTO children VALUES (1, 3)"
    )
    await limited(*ALL)
    async with rig.app() as app:
        store = app.engine.stores["logs"]
        await store.open(app.engine.directory)
        errors = [finding for finding in await store.check() if finding.severity == "error"]
    outcome = await rig.only()
    if not errors:
        assert (outcome.outcome, outcome.changed, outcome.blocked) == ("drained", 4, 1), outcome.error
    else:
        assert (outcome.outcome, outcome.changed) == ("blind", 0)
        assert any("GRANT" in finding.remedy for finding in errors)
    assert await rig.ids("children") == [1]
    await rig.require_told(logs=outcome.changed)


async def test_anonymising_needs_update_and_says_so(rig, limited):
    await rig.company()
    rig.targets["logs"] |= {"action": "anonymise", "anonymise": {"columns": {"ip": None}}}
    await limited(*ALL)
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert "GRANT" in outcome.error["remedy"]
    assert await rig.db.fetchval("SELECT count(*) FROM logs WHERE ip IS NULL AND id < 1000") == 0
    await limited(*ALL, "GRANT UPDATE ON logs TO {role}")
    assert (await rig.only()).changed == 5
    await rig.require_told(logs=5)


POLICIES = [
    "",
    "CREATE POLICY half ON logs USING (id % 2 = 0);",
    "CREATE POLICY all_of_it ON logs USING (true);",
    "CREATE POLICY reading ON logs FOR SELECT USING (true);",
]


@pytest.mark.parametrize("policy", POLICIES)
async def test_row_security_that_applies_to_the_role_makes_the_target_blind(rig, limited, policy):
    await rig.company()
    await rig.db.execute(f"ALTER TABLE logs ENABLE ROW LEVEL SECURITY; {policy}")
    await limited(*ALL)
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert "BYPASSRLS" in outcome.error["remedy"]
    assert len(await rig.ids()) == 8
    await rig.require_told(logs=0)


async def test_row_security_on_the_directory_makes_its_targets_blind(rig, limited):
    await rig.company()
    await rig.db.execute(
        "ALTER TABLE accounts ENABLE ROW LEVEL SECURITY; CREATE POLICY half ON accounts USING (id = 1)"
    )
    await limited(*ALL)
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert len(await rig.ids()) == 8


async def test_forced_row_security_blinds_the_owner_too(rig, limited):
    await rig.company()
    await limited("ALTER TABLE logs OWNER TO {role}", "GRANT SELECT ON accounts TO {role}",
                  "ALTER TABLE logs ENABLE ROW LEVEL SECURITY")  # fmt: skip
    assert (await rig.only()).outcome == "drained"
    await rig.db.execute("INSERT INTO logs VALUES (1, 1, '2020-01-01'); ALTER TABLE logs FORCE ROW LEVEL SECURITY")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert 1 in await rig.ids()
    await rig.require_told(logs=5)


async def test_a_role_that_bypasses_row_security_sweeps(rig, limited):
    await rig.company()
    await rig.db.execute("ALTER TABLE logs ENABLE ROW LEVEL SECURITY; ALTER TABLE logs FORCE ROW LEVEL SECURITY")
    await limited(*ALL, attributes="BYPASSRLS")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 5)
    await rig.require_told(logs=5)


async def test_row_security_switched_on_in_the_middle_of_a_life_is_noticed(rig, limited):
    await rig.company()
    await limited(*ALL)
    assert (await rig.only()).changed == 5
    await rig.db.execute("INSERT INTO logs VALUES (1, 1, '2020-01-01'); ALTER TABLE logs ENABLE ROW LEVEL SECURITY")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    await rig.require_told(logs=5)
