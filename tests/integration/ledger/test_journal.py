"""Appending and signing against a real Postgres."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import asyncpg
import orjson
import pytest

from retentiond.control import entries as table
from retentiond.control.database import Database
from retentiond.domain.evidence import EMPTY_ROOT, VerifierKey, canonical, leaf_hash, parse_and_verify, root_of
from retentiond.errors import LedgerError
from retentiond.ledger import kinds
from retentiond.ledger.journal import Journal
from retentiond.ledger.keys import SigningKey
from retentiond.ledger.kinds import Entry

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


def guard(name: str = "max_fraction") -> Entry:
    return kinds.guard(name, tripped=True, target="request_logs")


async def append(db: Database, journal: Journal, count: int) -> range:
    async with db.transaction() as tx:
        return await journal.append(tx, *[guard(f"g{n}") for n in range(count)])


async def all_rows(db: Database) -> list[table.Row]:
    async with db.transaction(read_only=True) as tx:
        return await table.read(tx, 0, 10_000)


async def test_entries_are_numbered_from_one_and_each_names_the_one_before(db: Database, journal: Journal) -> None:
    assert await append(db, journal, 3) == range(1, 4)
    assert await append(db, journal, 2) == range(4, 6)
    prev = b""
    for seq, row in enumerate(await all_rows(db), 1):
        entry = orjson.loads(row.leaf)
        assert (entry["seq"], entry["prev"], entry["kind"], entry["version"]) == (seq, prev.hex(), "guard", "1.2.3")
        assert canonical(entry) == row.leaf
        assert row.hash == leaf_hash(row.leaf)
        assert datetime.fromisoformat(entry["at"]) == row.at
        assert row.month == row.at.date().replace(day=1)
        prev = row.hash


async def test_the_time_of_an_entry_is_the_control_clocks(db: Database, journal: Journal) -> None:
    await append(db, journal, 1)
    (row,) = await all_rows(db)
    assert abs(row.at - datetime.now(UTC)) < timedelta(seconds=60)


async def test_appending_nothing_takes_no_lock_and_changes_nothing(db: Database, journal: Journal) -> None:
    async with db.transaction() as tx:
        assert await journal.append(tx) == range(0)
        assert not await table.has_written(tx)


async def test_an_append_that_is_rolled_back_leaves_no_gap(db: Database, journal: Journal) -> None:
    await append(db, journal, 1)
    with pytest.raises(RuntimeError):
        async with db.transaction() as tx:
            await journal.append(tx, guard())
            raise RuntimeError
    assert await append(db, journal, 1) == range(2, 3)


async def test_concurrent_appends_make_one_chain_without_gaps(db: Database, journal: Journal) -> None:
    ranges = await asyncio.gather(*[append(db, journal, 1 + n % 3) for n in range(40)])
    numbers = sorted(seq for seqs in ranges for seq in seqs)
    rows = await all_rows(db)
    assert numbers == list(range(1, len(numbers) + 1)) == [row.seq for row in rows]
    assert all(orjson.loads(b.leaf)["prev"] == a.hash.hex() for a, b in pairwise(rows))
    assert sorted(row.at for row in rows) == [row.at for row in rows]
    async with db.transaction() as tx:
        head = await table.head(tx)
    assert (head.tree.size, head.tree.root()) == (len(rows), root_of(row.hash for row in rows))


async def test_entries_are_read_in_pages_and_by_kind(db: Database, journal: Journal) -> None:
    async with db.transaction() as tx:
        heartbeat = kinds.heartbeat(mode="plan", policy_digest=None, targets={})
        await journal.append(tx, guard(), heartbeat, guard(), heartbeat)
    async with db.transaction() as tx:
        assert [row.seq for row in await table.read(tx, 1, 2)] == [2, 3]
        assert [row.seq for row in await table.read(tx, 0, 9, ["heartbeat"])] == [2, 4]
        assert await table.read(tx, 4, 9) == []


async def test_an_entry_that_is_not_json_is_refused_and_nothing_is_appended(db: Database, journal: Journal) -> None:
    with pytest.raises(LedgerError, match="not JSON"):
        async with db.transaction() as tx:
            await journal.append(tx, kinds.guard("g", tripped=True, target=None, detail={"x": float("nan")}))
    assert await all_rows(db) == []


# --- Checkpoints ---


async def checkpoint(db: Database, journal: Journal) -> str:
    async with db.transaction() as tx:
        return await journal.checkpoint(tx)


async def test_an_empty_ledger_has_a_checkpoint(db: Database, journal: Journal) -> None:
    found = parse_and_verify(await checkpoint(db, journal), journal.verifier)
    assert (found.size, found.root) == (0, EMPTY_ROOT)


async def test_a_checkpoint_is_over_all_entries_and_is_kept_once(
    db: Database, journal: Journal, superuser: Connection
) -> None:
    note = ""
    for size, more in ((3, 3), (5, 2)):
        await append(db, journal, more)
        note = await checkpoint(db, journal)
        assert await checkpoint(db, journal) == note
        found = parse_and_verify(note, journal.verifier)
        assert (found.size, found.root) == (size, root_of(row.hash for row in await all_rows(db)))
    kept = await superuser.fetch("SELECT size, note FROM retentiond.ledger_checkpoints ORDER BY size")
    assert [row["size"] for row in kept] == [3, 5]
    assert kept[-1]["note"] == note


async def test_a_checkpoint_over_what_may_be_rolled_back_is_refused(db: Database, journal: Journal) -> None:
    with pytest.raises(LedgerError, match="transaction of its own"):
        async with db.transaction() as tx:
            await journal.append(tx, guard())
            await journal.checkpoint(tx)


async def test_another_key_signs_the_same_ledger_under_its_own_id(
    db: Database, journal: Journal, origin: str, superuser: Connection
) -> None:
    await append(db, journal, 2)
    await checkpoint(db, journal)
    other = Journal(SigningKey.load("A" * 43 + "=", None), origin, "1")
    note = await checkpoint(db, other)
    assert parse_and_verify(note, VerifierKey.parse(str(other.verifier))).size == 2
    assert await superuser.fetchval("SELECT count(*) FROM retentiond.ledger_checkpoints") == 2


async def test_no_checkpoint_is_signed_over_entries_that_were_rewritten(
    db: Database, journal: Journal, superuser: Connection
) -> None:
    await append(db, journal, 3)
    await checkpoint(db, journal)
    await rewrite(superuser, journal, 4)
    with pytest.raises(LedgerError, match="nothing is signed") as caught:
        await checkpoint(db, journal)
    assert caught.value.remedy


async def test_no_checkpoint_is_signed_beside_an_altered_one(
    db: Database, journal: Journal, superuser: Connection
) -> None:
    await append(db, journal, 3)
    await checkpoint(db, journal)
    await superuser.execute("ALTER TABLE retentiond.ledger_checkpoints DISABLE TRIGGER USER")
    await superuser.execute("UPDATE retentiond.ledger_checkpoints SET frontier[1] = sha256('x')")
    with pytest.raises(LedgerError, match="was altered"):
        await checkpoint(db, journal)


async def rewrite(superuser: Connection, journal: Journal, size: int) -> None:
    """What an attacker who owns the database can do: another history, whole in itself."""
    for name in ("ledger_entries", "ledger_head"):
        await superuser.execute(f"ALTER TABLE retentiond.{name} DISABLE TRIGGER USER")
    await superuser.execute("DELETE FROM retentiond.ledger_entries")
    await superuser.execute("UPDATE retentiond.ledger_head SET size = 0, frontier = '{}', last = ''")
    async with superuser.transaction():
        await journal.append(superuser, *[guard("forged")] * size)


# --- Append-only, and writable ---


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE retentiond.ledger_entries SET kind = 'guard'",
        "UPDATE retentiond.ledger_entries SET kind = 'guard' WHERE false",
        "DELETE FROM retentiond.ledger_entries",
        "TRUNCATE retentiond.ledger_entries",
        "UPDATE retentiond.ledger_checkpoints SET note = ''",
        "DELETE FROM retentiond.ledger_checkpoints",
        "TRUNCATE retentiond.ledger_checkpoints",
        "DELETE FROM retentiond.ledger_head",
        "TRUNCATE retentiond.ledger_head",
        "UPDATE retentiond.ledger_head SET size = 0, frontier = '{}'",
        "SET session_replication_role = replica; DELETE FROM retentiond.ledger_entries",
    ],
)
async def test_what_is_in_the_ledger_can_not_be_changed_even_by_a_superuser(
    db: Database, journal: Journal, superuser: Connection, statement: str
) -> None:
    await append(db, journal, 2)
    await checkpoint(db, journal)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="the ledger is append-only"):
        await superuser.execute(statement)
    assert len(await all_rows(db)) == 2


async def test_a_ledger_that_can_be_written_is_said_to_be_without_a_lock(db: Database) -> None:
    async with db.transaction() as tx:
        await table.ledger_writable(tx)
        assert not await table.has_written(tx)


async def test_a_read_only_database_is_not_writable(db: Database) -> None:
    with pytest.raises(LedgerError, match="read only"):
        async with db.transaction(read_only=True) as tx:
            await table.ledger_writable(tx)


@pytest.mark.parametrize(
    "statement",
    [
        "ALTER TABLE retentiond.ledger_head DISABLE TRIGGER USER; DELETE FROM retentiond.ledger_head",
        "DROP TABLE retentiond.ledger_entries",
        "DROP TABLE retentiond.ledger_head",
    ],
)
async def test_a_damaged_ledger_is_not_writable(db: Database, superuser: Connection, statement: str) -> None:
    await superuser.execute(statement)
    with pytest.raises(LedgerError, match="can't be written") as caught:
        async with db.transaction() as tx:
            await table.ledger_writable(tx)
    assert caught.value.remedy


@pytest.mark.parametrize("lacking", ["INSERT ON retentiond.ledger_entries", "UPDATE ON retentiond.ledger_head"])
async def test_a_role_without_the_grants_can_not_write(db: Database, superuser: Connection, lacking: str) -> None:
    await superuser.execute(
        "DO $$ BEGIN CREATE ROLE lacking; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
        "GRANT USAGE ON SCHEMA retentiond TO lacking; GRANT SELECT, INSERT ON retentiond.ledger_entries TO lacking;"
        f"GRANT SELECT, UPDATE ON retentiond.ledger_head TO lacking; REVOKE {lacking} FROM lacking"
    )
    with pytest.raises(LedgerError, match="lacks"):
        async with db.transaction() as tx:
            await tx.execute("SET LOCAL ROLE lacking")
            await table.ledger_writable(tx)


async def test_without_a_head_nothing_is_appended(db: Database, journal: Journal, superuser: Connection) -> None:
    await superuser.execute("ALTER TABLE retentiond.ledger_head DISABLE TRIGGER USER")
    await superuser.execute("DELETE FROM retentiond.ledger_head")
    with pytest.raises(LedgerError, match="head of the ledger is missing"):
        await append(db, journal, 1)
