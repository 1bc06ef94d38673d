"""Anonymising: what becomes of each kind of value, each record once, and columns that can't take it."""

import pytest

from tests.services.sweeping import ACCOUNTS

TABLE = (
    ACCOUNTS
    + """
CREATE TABLE logs (id int PRIMARY KEY, account_id bigint, created_at timestamptz, {columns});
CREATE TABLE writes (id int);
CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO writes VALUES (NEW.id); RETURN NEW; END $$;
"""
)
NOTE = "CREATE TRIGGER note BEFORE UPDATE ON logs FOR EACH ROW EXECUTE FUNCTION note()"


async def make(rig, columns, values, rules, marker=None):
    """A due row with each of the values (ids from 1), and a young one, 99, with the last."""
    await rig.db.execute(TABLE.format(columns=columns))
    for number, value in [*enumerate(values, 1), (99, values[-1])]:
        await rig.db.execute(
            f"INSERT INTO logs (id, account_id, created_at, {columns.split()[0]}) VALUES ($1, 1,"
            f" now() - CASE WHEN $1 = 99 THEN interval '1 day' ELSE interval '400 days' END, $2::text::{columns.split()[1].strip(',')})",
            number, value,
        )  # fmt: skip
    await rig.db.execute(NOTE)
    anonymise = {"columns": rules} | ({"marker": marker} if marker else {})
    rig.target("logs", action="anonymise", anonymise=anonymise, pace={"duty": 1.0, "max_batch": 2})


async def values(rig, column):
    return [row[0] for row in await rig.db.fetch(f"SELECT {column}::text FROM logs WHERE id <> 99 ORDER BY id")]


async def changed_once(rig, ids):
    """Another sweep changes nothing, and each of these was written once."""
    again = await rig.only()
    assert (again.outcome, again.changed) == ("drained", 0)
    assert await rig.ids("writes") == ids
    await rig.require_told(logs=len(ids))


async def test_a_column_set_to_null(rig):
    await make(rig, "note text", ["a", "b", None, "c"], {"note": None})
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 3)
    assert await values(rig, "note") == [None] * 4
    assert await rig.db.fetchval("SELECT note FROM logs WHERE id = 99") == "c"
    await changed_once(rig, [1, 2, 4])


@pytest.mark.parametrize(
    ("type_", "given", "constant", "stored"),
    [("text", "secret", "it's 'gone'", "it's 'gone'"), ("int", "7", 0, "0"), ("boolean", "true", False, "false"),
     ("jsonb", '{"a": 1}', "{}", "{}"), ("numeric", "1.50", 0.5, "0.5"), ("date", "2020-01-01", "1970-01-01", "1970-01-01")],
)  # fmt: skip
async def test_a_column_set_to_a_constant_of_its_type(rig, type_, given, constant, stored):
    await make(rig, f"note {type_}", [given, given, None], {"note": constant})
    assert (await rig.only()).changed == 3
    assert await values(rig, "note") == [stored] * 3
    assert await rig.db.fetchval("SELECT note::text FROM logs WHERE id = 99") is None
    await changed_once(rig, [1, 2, 3])


async def test_a_hash_is_keyed_equal_for_equal_values_and_null_for_null(rig):
    await make(rig, "note text", ["ann@example.org", "bob", "ann@example.org", "", None], {"note": {"hash": True}})
    assert (await rig.only()).changed == 4
    found = await values(rig, "note")
    assert found[0] == found[2] != found[1]
    assert found[4] is None
    assert all(value.startswith("hmac:") and "ann" not in value for value in found[:4])
    await changed_once(rig, [1, 2, 3, 4])


async def test_a_value_that_only_looks_like_a_hash_is_hashed(rig):
    """A user may write `hmac:` into a field: that must not keep his name in clear."""
    await make(rig, "note text", ["hmac:ann@example.org", "bob"], {"note": {"hash": True}})
    await rig.only()
    assert "ann@example.org" not in str(await values(rig, "note"))


@pytest.mark.parametrize("type_", ["inet", "cidr", "text"])
async def test_addresses_are_cut_to_their_networks(rig, type_):
    given = ["192.0.2.77", "10.1.2.0", "2001:db8:1:2:3:4:5:6", "::ffff:192.0.2.77", "2001:db8:1::", None]
    await make(rig, f"ip {type_}", given, {"ip": {"truncate_ip": True}})
    outcome = await rig.only()
    assert outcome.outcome == "drained", outcome.error
    found = [value and value.split("/")[0] for value in await values(rig, "ip")]
    assert found == ["192.0.2.0", "10.1.2.0", "2001:db8:1::", "::", "2001:db8:1::", None]
    await changed_once(rig, [1, 3, 4])


async def test_a_text_that_is_no_address_is_set_aside_as_failed_and_does_not_block_the_rest(rig):
    await make(rig, "ip text", ["192.0.2.77", "unknown", "192.0.2.78"], {"ip": {"truncate_ip": True}})
    outcome = await rig.only()
    assert await values(rig, "ip") == ["192.0.2.0", "unknown", "192.0.2.0"]
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("failed", 2, 1)
    await rig.require_told(logs=2)


@pytest.mark.parametrize("type_", ["boolean", "timestamptz"])
async def test_a_marker_column_tells_what_is_done(rig, type_):
    await make(rig, f"note text, scrubbed {type_}", ["a", "b", None], {"note": None}, marker="scrubbed")
    assert (await rig.only()).changed == 3
    assert await rig.db.fetchval("SELECT count(*) FROM logs WHERE scrubbed IS NOT NULL") == 3
    await changed_once(rig, [1, 2, 3])


async def test_without_rules_the_account_reference_is_removed_when_the_account_goes(rig):
    """The class `usage_metrics` of the shipped policy; account 4 was deleted 60 days ago."""
    await rig.db.execute(
        ACCOUNTS + "CREATE TABLE usage (id int PRIMARY KEY, account_id bigint, at timestamptz, n int);"
        "INSERT INTO usage SELECT i, CASE WHEN i <= 4 THEN 4 ELSE 1 END, now(), i FROM generate_series(1, 8) i"
    )
    rig.target("usage", class_="usage_metrics", anchor="at")
    outcome = await rig.only("usage")
    assert (outcome.outcome, outcome.changed) == ("drained", 4)
    assert await rig.ids("usage") == list(range(1, 9))
    assert await rig.db.fetchval("SELECT count(*) FROM usage WHERE account_id IS NULL") == 4
    assert (await rig.only("usage")).changed == 0
    await rig.require_told(usage=4)


async def test_a_column_that_may_not_be_null_fails_and_says_so_and_nothing_is_half_done(rig):
    await make(rig, "note text NOT NULL", ["a", "b"], {"note": None})
    await rig.db.execute("CREATE TABLE others AS TABLE logs; ALTER TABLE others ADD PRIMARY KEY (id)")
    rig.target("others")
    found = await rig.sweep()
    assert found["logs"].outcome in ("failed", "blind")
    assert "note" in str(found["logs"].error)
    assert found["logs"].error["remedy"]
    assert await values(rig, "note") == ["a", "b"]
    assert (found["others"].outcome, found["others"].changed) == ("drained", 2)
    await rig.require_told(logs=0, others=2)


async def test_a_held_record_is_not_anonymised(rig):
    await make(rig, "note text", ["a", "b"], {"note": None})
    async with rig.app() as app:
        await rig.hold(app, records={"logs": ("1",)})
    outcome = await rig.only()
    assert (outcome.changed, outcome.held) == (1, 1)
    assert await values(rig, "note") == ["a", None]
    await rig.require_told(logs=1)


FOLLOWED = (
    ACCOUNTS
    + """
CREATE TABLE users (id int PRIMARY KEY, account_id bigint UNIQUE, created_at timestamptz, email text UNIQUE);
CREATE TABLE mails (id int PRIMARY KEY, account_id bigint, created_at timestamptz, at text);
INSERT INTO users VALUES (1, 1, now() - interval '400 days', 'a@x'), (2, 2, now() - interval '400 days', 'b@x');
INSERT INTO mails VALUES (7, 1, now(), 'a@x');
"""
)


@pytest.mark.parametrize("action", ["CASCADE", "SET NULL", "SET DEFAULT"])
@pytest.mark.parametrize("column", ["email", "account_id"])
async def test_a_column_that_other_rows_follow_is_not_anonymised(rig, action, column):
    await rig.db.execute(FOLLOWED)
    rules = {"columns": {"email": {"hash": True}}} if column == "email" else None
    rig.target("users", action="anonymise", anonymise=rules)
    rig.target("mails")
    async with rig.app() as app:
        await rig.hold(app, targets=("mails",))
    follower = {"email": "at", "account_id": "account_id"}[column]
    await rig.db.execute(
        f"ALTER TABLE mails ADD CONSTRAINT follows FOREIGN KEY ({follower}) REFERENCES users ({column})"
        f" ON UPDATE {action}"
    )
    outcome = await rig.only("users")
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert "follows" in outcome.error["message"]
    assert tuple(await rig.db.fetchrow("SELECT account_id, at FROM mails")) == (1, "a@x")
    assert await rig.db.fetchval("SELECT count(*) FROM users WHERE email LIKE '%@x' AND account_id IS NOT NULL") == 2
    await rig.require_told(users=0)
    await rig.db.execute(outcome.error["remedy"].partition(";")[0])
    outcome = await rig.only("users")
    assert (outcome.changed, outcome.failed) == (1, 1), "what is referred to is refused by the key, by itself"
    assert tuple(await rig.db.fetchrow("SELECT account_id, at FROM mails")) == (1, "a@x")
    await rig.require_told(users=1)


async def test_a_column_that_nobody_follows_is_anonymised_beside_one_that_is(rig):
    await rig.db.execute(FOLLOWED)
    await rig.db.execute(
        "ALTER TABLE mails ADD FOREIGN KEY (account_id) REFERENCES users (account_id) ON UPDATE CASCADE"
    )
    rig.target("users", action="anonymise", anonymise={"columns": {"email": None}})
    assert (await rig.only("users")).changed == 2
    assert await rig.db.fetchval("SELECT count(*) FROM users WHERE email IS NULL") == 2
    await rig.require_told(users=2)
