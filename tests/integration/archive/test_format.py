"""What stands in an archive gives the same records again, whatever their types (docs/archive.md)."""

import json

import pytest

from services.archives import archives

KINDS = """
CREATE SCHEMA other;
CREATE TYPE other.date AS ENUM ('Monday', 'Tuesday');
CREATE TYPE mood AS ENUM ('ok', 'not ok');
CREATE DOMAIN short AS text CHECK (length(value) < 10);
CREATE DOMAIN raw AS bytea;
CREATE TABLE kinds (
    tenant int, id bigint, created_at timestamptz, yes boolean, small smallint, whole integer, exact numeric, real real,
    double double precision, cash money, texts text, fixed char(5), bytes bytea, domained raw, at timestamp, day date,
    clock time, zoned timetz, span interval, ids uuid, address inet, net cidr, doc json, docb jsonb, list int[],
    names text[], bits bit varying, place point, mood mood, short short, during tstzrange, "Odd \"\"name\"\"" text, called other.date,
    twice bigint GENERATED ALWAYS AS (id * 2) STORED,
    PRIMARY KEY (tenant, id)
);
"""
NULLS = "INSERT INTO kinds (tenant, id, created_at) VALUES (1, 1, now() - interval '400 days')"
FULL = r"""INSERT INTO kinds VALUES
    (1, 4611686018427387903, now() - interval '399 days', true, -32768, 2147483647,
     12345678901234567890123456789.012345678901234567890, 0.1, 0.1, '12.30', E'a\n"b\\\tü€😀', 'ab', '\x00ff0a', '\x0a0b',
     '2020-02-29 23:59:59.999999', '2020-02-29', '12:00:00.000001', '12:00:00+02', '1 year 2 mons 3 days 04:05:06.7',
     'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '10.0.0.1/8', '10.0.0.0/8', E'{"a" :  1,\n "a": 2}', '{"n": 1e400}',
     '{1,NULL,3}', ARRAY['a,b', NULL, '"q"'], B'1010', '(1.5,-2)', 'not ok', 'brief',
     '[2020-01-01 00:00+00,)', 'odd', 'Monday'),
    (2, -1, now() - interval '398 days', false, 0, -1, 'NaN', 'NaN', 'Infinity', '-0.01', '', '', '', NULL,
     'infinity', '-infinity', '24:00', NULL, '-1 day', NULL, '::1', NULL, 'null', 'null', '{}', '{}', '', NULL, 'ok', '',
     'empty', NULL, NULL),
    (2, -2, now() - interval '397 days', NULL, NULL, NULL, 'Infinity', '-Infinity', '-0', NULL, repeat('x', 200000),
     NULL, decode(repeat('ab', 100), 'hex'), NULL, '0044-03-15 12:00 BC', '12026-01-01', NULL, NULL, NULL, NULL, NULL,
     NULL, '"text"', '[]', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, 'Tuesday')"""


@pytest.fixture
async def kinds(company, ground):
    await company.db.execute(KINDS)
    await company.db.execute(NULLS)
    await company.db.execute(FULL)
    logs = company.targets.pop("logs")
    company.target("kinds", account=None, tier="free", action="archive", region_group="eu", archive=logs["archive"])
    return company


async def restored(db, archive):
    """Read the records into the table by what the manifest says, and nothing else."""
    columns = [column for column in archive.manifest["columns"] if not column["generated"]]
    names = ", ".join('"' + column["name"].replace('"', '""') + '"' for column in columns)
    values = []
    for at, column in enumerate(columns):
        told = f"(SELECT value FROM json_each_text($1::json) WITH ORDINALITY o(key, value, at) WHERE key = ${at + 2})"
        base64 = column["encoding"] == "base64"
        values.append(f"(decode({told}, 'base64'))::{column['type']}" if base64 else f"({told})::{column['type']}")
    for record in archive.records:
        await db.execute(
            f"INSERT INTO kinds ({names}) SELECT {', '.join(values)}", json.dumps(record), *(c["name"] for c in columns)
        )


async def test_every_type_comes_back_as_it_was(kinds, ground):
    await kinds.db.execute("CREATE TABLE before AS TABLE kinds")
    outcome = await kinds.only("kinds")
    assert (outcome.outcome, outcome.changed, outcome.error) == ("drained", 4, None)
    assert await kinds.db.fetchval("SELECT count(*) FROM kinds") == 0
    (archive,) = await archives(ground)
    await restored(kinds.db, archive)
    same = "SELECT b::text FROM before b EXCEPT SELECT k::text FROM kinds k"
    assert await kinds.db.fetch(same) == []
    assert await kinds.db.fetchval("SELECT count(*) FROM kinds") == 4
    # As text a float's negative zero and a json's spaces are seen as well.
    assert await kinds.db.fetchval("SELECT doc::text FROM kinds WHERE id = 4611686018427387903") == (
        '{"a" :  1,\n "a": 2}'
    )


async def test_the_manifest_says_how_each_column_stands(kinds, ground):
    await kinds.only("kinds")
    (archive,) = await archives(ground)
    columns = {column["name"]: column for column in archive.manifest["columns"]}
    assert archive.manifest["format"] == "retentiond-archive-1"
    assert archive.manifest["key"] == ["tenant", "id"]
    assert archive.manifest["table"] == "public.kinds"
    told = {
        name: columns[name]["encoding"] for name in ("yes", "whole", "id", "bytes", "domained", "day", "created_at")
    }
    assert told == {
        "yes": "boolean", "whole": "integer", "id": "text", "bytes": "base64", "domained": "base64", "day": "rfc3339",
        "created_at": "rfc3339",
    }  # fmt: skip
    assert columns["twice"]["generated"]
    first = archive.records[0]
    assert (first["yes"], first["tenant"], first["id"], first["bytes"]) == (None, 1, "1", None)
    full = archive.records[1]
    assert (full["yes"], full["whole"], full["bytes"], full["at"], full["day"]) == (
        True, 2147483647, "AP8K", "2020-02-29T23:59:59.999999", "2020-02-29",
    )  # fmt: skip
    assert full["exact"] == "12345678901234567890123456789.012345678901234567890"


async def test_a_column_that_is_added_in_the_middle_of_a_sweep_is_archived_as_well(company, ground, monkeypatch):
    from retentiond.stores.postgres.archivebatch import ArchiveBatch

    whole, done = ArchiveBatch.erase, []

    async def erase(batch, permit, window, *, salt):
        if not done:
            done.append(permit)
            await company.db.execute("ALTER TABLE logs ADD COLUMN note text DEFAULT 'new'")
        return await whole(batch, permit, window, salt=salt)

    monkeypatch.setattr(ArchiveBatch, "erase", erase)
    outcome = await company.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 5)
    assert {record["note"] for each in await archives(ground) for record in each.records} == {"new"}


async def test_a_table_that_others_inherit_from_is_refused(company, ground):
    await company.db.execute("CREATE TABLE more (note text) INHERITS (logs)")
    await company.db.execute("INSERT INTO more VALUES (6, 1, now() - interval '400 days', NULL, 'lost?')")
    outcome = await company.only()
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert "inherit" in outcome.error["message"]
    assert await company.db.fetchval("SELECT count(*) FROM logs") == 9
    assert await ground.keys() == []


async def test_partitions_are_archived_by_rows_and_none_is_dropped(apart, ground):
    from services.archives import archived_ids, place
    from services.sweeping import ACCOUNTS

    await apart.db.execute(ACCOUNTS)
    await apart.db.execute(
        "CREATE TABLE logs (id bigint, account_id bigint, created_at timestamptz, ip text, PRIMARY KEY (id, created_at))"
        " PARTITION BY RANGE (created_at);"
        "CREATE TABLE logs_old PARTITION OF logs FOR VALUES FROM ('2000-01-01') TO ('2020-01-01');"
        "CREATE TABLE logs_new PARTITION OF logs FOR VALUES FROM ('2020-01-01') TO ('2100-01-01');"
        "INSERT INTO logs SELECT i, 1, '2010-01-01', NULL FROM generate_series(1, 12) i"
    )
    apart.target("logs", action="archive", region_group="eu", archive=place(ground.server, ground.name))
    outcome = await apart.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 12)
    assert await archived_ids(ground) == list(range(1, 13))
    assert await apart.db.fetchval("SELECT to_regclass('logs_old') IS NOT NULL")
