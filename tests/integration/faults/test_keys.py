"""What tells records apart: every type of key, awkward values and names, and tables that can't tell."""

import pytest

from tests.services.citext import citext
from tests.services.sweeping import ACCOUNTS, document

KEYS = {
    "int": ["-5", "0", "7", "2147483647", "8", "9"],
    "text": [
        "",
        "it's",
        'say "hi"',
        "two\nlines",
        "tab\t",
        "back\\slash",
        "naïve 雪 🗑",
        "%s $1 {x}",
        "NULL",
        "'; DROP TABLE logs; --",
    ],
    "varchar(20)": ["a", "A", "a ", "ä", "{1,2}", "[1]"],
    "char(4)": ["a", "ab", "abc", "abcd", "b", "c"],
    "uuid": [f"00000000-0000-0000-0000-00000000000{n}" for n in range(6)],
    "numeric": ["1.0", "10", "1e30", "0.000001", "-7.50", "NaN"],
    "bytea": ["\\x00", "\\x00ff", "\\xdeadbeef", "\\x5c", "\\x27", "\\x"],
    "timestamptz": [f"2026-01-0{n} 00:00:00.00000{n}+00" for n in range(1, 7)],
    "float8": ["0.1", "1e300", "-0.5", "0.30000000000000004", "3", "4"],
    "inet": ["10.0.0.1", "10.0.0.0/8", "::1", "10.0.0.2", "10.0.0.3", "10.0.0.4"],
    "date": [f"2026-01-0{n}" for n in range(1, 7)],
    "boolean": ["t", "f"],
    "number": ["1", "2", "3", "4", "5", "6"],
    "word": ["a", "b'", 'c"', "d\n", "é", "f"],
    "mood": ["sad", "ok", "glad", "so so"],
    "citext": ["Ann", "bob", "Eve", "x'y", "z", "Q"],
}
TYPES = """
CREATE DOMAIN number AS bigint CHECK (VALUE > 0);
CREATE DOMAIN word AS text NOT NULL;
CREATE TYPE mood AS ENUM ('sad', 'so so', 'ok', 'glad');
"""


@pytest.mark.parametrize("type_", sorted(KEYS))
async def test_a_key_of_any_type_tells_its_records_apart(rig, type_):
    """Two records to a batch, all of one anchor: the walk goes on by the key alone. The last key's record is young."""
    await rig.db.execute(ACCOUNTS + TYPES + citext())
    await rig.db.execute(f"CREATE TABLE logs (id {type_} PRIMARY KEY, account_id bigint, created_at timestamptz)")
    values = KEYS[type_]
    for value in values:
        await rig.db.execute(
            f"INSERT INTO logs VALUES ($1::text::{type_}, 1, date_trunc('day', now()) - $2::int * interval '1 day')",
            value, 1 if value == values[-1] else 400,
        )  # fmt: skip
    rig.target("logs", pace={"duty": 1.0, "max_batch": 2})
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("drained", len(values) - 1, 0)
    assert await rig.db.fetchval(f"SELECT count(*) FROM logs WHERE id = $1::text::{type_}", values[-1]) == 1
    assert await rig.db.fetchval("SELECT count(*) FROM logs") == 1
    await rig.require_told(logs=len(values) - 1)


@pytest.mark.parametrize(
    ("type_", "given", "kept"),
    [
        ("uuid", "ABCDEF00-0000-0000-0000-000000000001", "abcdef00-0000-0000-0000-000000000001"),
        ("int", "007", "7"),
        ("numeric", "1.50", "1.5"),
        ("citext", "ANN", "Ann"),
        ("text", "two\nlines 'and' \"quotes\"", "two\nlines 'and' \"quotes\""),
    ],
)
@pytest.mark.parametrize("scope", ["records", "accounts"])
async def test_a_hold_finds_an_id_however_it_is_written(rig, type_, given, kept, scope):
    await rig.db.execute(
        citext() + f"CREATE TABLE accounts (id {type_} PRIMARY KEY, tier text);"
        f"CREATE TABLE logs (id {type_} PRIMARY KEY, account_id {type_}, created_at timestamptz)"
    )
    other = {"uuid": "00000000-0000-0000-0000-000000000009", "int": "70", "numeric": "15"}.get(type_, "other")
    for value in (kept, other):
        await rig.db.execute(f"INSERT INTO accounts VALUES ($1::text::{type_}, 'free')", value)
        await rig.db.execute(
            f"INSERT INTO logs VALUES ($1::text::{type_}, $1::text::{type_}, now() - interval '400 days')", value
        )
    rig.accounts = {"deleted_at": None, "overrides": None}
    rig.target("logs")
    async with rig.app() as app:
        await rig.hold(app, **({"records": {"logs": (given,)}} if scope == "records" else {"accounts": (given,)}))
    outcome = await rig.only()
    assert (outcome.changed, outcome.held) == (1, 1)
    assert [str(value) for value in await rig.ids()] == [kept]
    await rig.require_told(logs=1)


async def test_a_composite_key_with_awkward_texts_tells_its_records_apart(rig):
    await rig.db.execute(
        ACCOUNTS + "CREATE TABLE logs (a text, b int, c uuid, account_id bigint, created_at timestamptz,"
        " PRIMARY KEY (b, a, c));"
        "INSERT INTO logs SELECT t, b, '00000000-0000-0000-0000-000000000001', 1, now() - interval '400 days'"
        " FROM unnest(ARRAY['', '\"', E'\\n', '[1,2]', '雪', '\\']) t, generate_series(1, 4) b"
    )
    rig.target("logs", pace={"duty": 1.0, "max_batch": 3})
    async with rig.app() as app:
        held = '["2", "\\"", "00000000-0000-0000-0000-000000000001"]'
        await rig.hold(app, records={"logs": (held,)})
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed, outcome.held) == ("drained", 23, 1)
    assert [tuple(row) for row in await rig.db.fetch("SELECT a, b FROM logs")] == [('"', 2)]
    await rig.require_told(logs=23)


@pytest.mark.parametrize("constraint", ["", ", UNIQUE (id) DEFERRABLE", ", EXCLUDE (id WITH =)"])
async def test_a_table_without_a_key_is_blind_and_says_what_to_do(rig, constraint):
    await rig.company()
    await rig.db.execute(
        f"CREATE TABLE heap (id int, account_id bigint, created_at timestamptz {constraint});"
        "INSERT INTO heap VALUES (1, 1, now() - interval '400 days')"
    )
    rig.target("heap")
    found = await rig.sweep()
    assert (found["heap"].outcome, found["logs"].outcome) == ("blind", "drained")
    assert "primary key" in found["heap"].error["remedy"]
    assert await rig.ids("heap") == [1]


async def test_a_unique_index_that_admits_nulls_loses_no_record_from_sight(rig):
    """Rows whose key is null can't be told apart: the target is refused, or they go; never is it called drained."""
    await rig.db.execute(
        ACCOUNTS + "CREATE TABLE logs (id int UNIQUE, account_id bigint, created_at timestamptz);"
        "INSERT INTO logs SELECT CASE WHEN i % 2 = 0 THEN i END, 1, now() - interval '400 days'"
        " FROM generate_series(1, 30) i"
    )
    rig.target("logs")
    outcome = await rig.only()
    left = await rig.db.fetchval("SELECT count(*) FROM logs")
    assert left == 0 or outcome.outcome in ("blind", "failed")
    await rig.require_told(logs=30 - left)


async def test_a_configured_key_that_is_not_unique_loses_no_record_from_sight(rig):
    await rig.db.execute(
        ACCOUNTS + "CREATE TABLE logs (id int, account_id bigint, created_at timestamptz);"
        "CREATE INDEX ON logs (created_at);"
        "INSERT INTO logs SELECT 1, 1, date_trunc('day', now()) - interval '400 days' FROM generate_series(1, 25)"
    )
    rig.target("logs", key=["id"])
    outcome = await rig.only()
    left = await rig.db.fetchval("SELECT count(*) FROM logs")
    assert left == 0 or outcome.outcome in ("blind", "failed")
    await rig.require_told(logs=25 - left)


async def test_quoted_names_of_mixed_case_and_with_quotes_in_them_are_taken_as_they_are(rig):
    await rig.db.execute(
        """CREATE SCHEMA "My Schema"; CREATE TABLE "My Schema"."Ac""counts" ("Id" bigint PRIMARY KEY, "The Tier" text,
           "Gone At" timestamptz, "Over;rides" jsonb);
           INSERT INTO "My Schema"."Ac""counts" VALUES (1, 'free');
           CREATE TABLE "My Schema"."Log""s" ("Id" int, "k'ey" text, "Acc ID" bigint, "Created At" timestamptz,
               PRIMARY KEY ("Id", "k'ey"));
           CREATE INDEX ON "My Schema"."Log""s" ("Created At");
           INSERT INTO "My Schema"."Log""s" SELECT i, 'x', 1, now() - interval '400 days' FROM generate_series(1, 5) i;
           CREATE TABLE logs (id int PRIMARY KEY)"""
    )
    rig.accounts = {"table": '"My Schema"."Ac""counts"', "id": "Id", "tier": "The Tier", "deleted_at": "Gone At",
                    "overrides": "Over;rides"}  # fmt: skip
    rig.target("logs", table='"My Schema"."Log""s"', anchor="Created At", account="Acc ID")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 5), outcome.error
    await rig.require_told(logs=5)


async def test_a_table_of_the_same_name_in_another_schema_is_not_touched(rig):
    await rig.company()
    await rig.db.execute(
        "CREATE SCHEMA a; CREATE TABLE a.logs AS TABLE public.logs; ALTER TABLE a.logs ADD PRIMARY KEY (id);"
        "ALTER DATABASE " + rig.dsn.rsplit("/", 1)[1] + " SET search_path = a, public"
    )
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 5)
    assert len(await rig.ids("a.logs")) == 8
    await rig.require_told(logs=5)


async def test_generated_columns_may_be_anchor_account_and_key(rig):
    await rig.db.execute(
        ACCOUNTS
        + "CREATE TABLE logs (raw jsonb, id bigint GENERATED ALWAYS AS ((raw->>'id')::bigint) STORED PRIMARY KEY,"
        " account_id bigint GENERATED ALWAYS AS ((raw->>'account')::bigint) STORED,"
        " created_at int8 GENERATED ALWAYS AS ((raw->>'at')::bigint) STORED);"
        "INSERT INTO logs SELECT jsonb_build_object('id', i, 'account', 1, 'at', i) FROM generate_series(1, 12) i"
    )
    rig.target("logs", unit="s")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 12)
    await rig.require_told(logs=12)


async def test_the_outcome_and_the_ledger_show_no_key_and_no_account(rig):
    await rig.db.execute(
        ACCOUNTS + "CREATE TABLE logs (id text PRIMARY KEY, account_id bigint, created_at timestamptz);"
        "INSERT INTO logs VALUES ('secret-key-4711', 1, now() - interval '400 days')"
    )
    rig.target("logs")
    outcome = await rig.only()
    assert outcome.changed == 1
    assert "4711" not in str(document(outcome))
    assert "4711" not in str(await rig.ledger())


TOLD_OTHERWISE = [
    ("interval", "1 day", "2 days", "intervalstyle = 'iso_8601'"),
    ("float8", "0.30000000000000004", "0.3", "extra_float_digits = -3"),
    ("bytea", "\\x6162", "\\x6163", "bytea_output = 'escape'"),
    ("date", "2026-02-01", "2026-01-02", "datestyle = 'German, DMY'"),
]


@pytest.mark.parametrize(("type_", "kept", "gone", "setting"), TOLD_OTHERWISE)
async def test_a_hold_on_a_key_is_kept_whatever_the_database_is_set_to_show(rig, type_, kept, gone, setting):
    await rig.db.execute(
        ACCOUNTS + f"CREATE TABLE logs (id {type_} PRIMARY KEY, account_id bigint, created_at timestamptz);"
    )
    for value in (kept, gone):
        await rig.db.execute(f"INSERT INTO logs VALUES ($1::text::{type_}, 1, now() - interval '400 days')", value)
    name = await rig.db.fetchval("SELECT current_database()")
    await rig.db.execute(f"ALTER DATABASE {name} SET {setting}")
    rig.target("logs")
    async with rig.app() as app:
        await rig.hold(app, records={"logs": (kept,)})
    outcome = await rig.only()
    assert (outcome.changed, outcome.held) == (1, 1)
    assert await rig.db.fetchval(f"SELECT count(*) FROM logs WHERE id = $1::text::{type_}", kept) == 1
    assert await rig.db.fetchval("SELECT count(*) FROM logs") == 1
    await rig.require_told(logs=1)


async def test_a_walk_whose_positions_do_not_tell_its_keys_apart_ends_and_says_so(rig):
    """A type of the application's own, with a cast to text that rounds: the walk would come back for ever."""
    await rig.db.execute(
        ACCOUNTS + "CREATE TYPE place AS (n int);"
        "CREATE FUNCTION told(place) RETURNS text LANGUAGE sql IMMUTABLE AS"
        " $$ SELECT '(' || ($1).n / 100 * 100 || ')' $$;"
        "CREATE CAST (place AS text) WITH FUNCTION told(place);"
        "CREATE TABLE logs (id place PRIMARY KEY, account_id bigint, created_at timestamptz);"
        "INSERT INTO logs SELECT ROW(i)::place, 1, now() - interval '400 days' FROM generate_series(1, 20) i"
    )
    rig.target("logs")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert "does not get past" in outcome.error["message"]
    assert await rig.db.fetchval("SELECT count(*) FROM logs") == 20
    await rig.require_told(logs=0)
    await rig.require_settled()
