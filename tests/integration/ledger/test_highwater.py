"""A control database that is older than what was done, or another one, is noticed and nothing is signed over it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import orjson
import pytest

from retentiond.control import entries as table
from retentiond.control.database import Database
from retentiond.domain.evidence import EMPTY_ROOT, canonical, parse_and_verify
from retentiond.errors import Guarded, LedgerError, UsageError
from retentiond.ledger import kinds
from retentiond.ledger.export import export
from retentiond.ledger.highwater import FILE
from retentiond.ledger.journal import Journal
from retentiond.ledger.keys import SigningKey, origin_of

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


@pytest.fixture
def folder(tmp_path: Path, key: SigningKey) -> Path:
    return tmp_path / "state"


@pytest.fixture
def kept(key: SigningKey, origin: str, folder: Path) -> Journal:
    return Journal(key, origin, "1.2.3", folder)


def guard(name: str = "g") -> kinds.Entry:
    return kinds.guard(name, tripped=True, target=None)


async def append(db: Database, journal: Journal, count: int, name: str = "g") -> None:
    async with db.transaction() as tx:
        await journal.append(tx, *[guard(f"{name}{n}") for n in range(count)])


async def begin(db: Database, journal: Journal) -> None:
    async with db.transaction() as tx:
        await journal.begin(tx)


async def checkpoint(db: Database, journal: Journal) -> str:
    async with db.transaction() as tx:
        return await journal.checkpoint(tx)


async def require(db: Database, journal: Journal) -> None:
    async with db.transaction(read_only=True) as tx:
        await journal.require_continued(tx)


async def refused(db: Database, journal: Journal, message: str) -> None:
    """Neither erasing nor signing goes on, and the error says how to."""
    for attempt in (require, checkpoint):
        with pytest.raises(Guarded, match=message) as caught:
            await attempt(db, journal)
        assert caught.value.guard == "control_state"
        assert caught.value.exit_code == 3
        assert "ledger accept" in (caught.value.remedy or "")


async def restored(superuser: Connection, journal: Journal, size: int, *, name: str = "g", forget: bool = True) -> None:
    """What a restored database looks like: fewer entries, and no trace of the later ones."""
    for each in ("ledger_entries", "ledger_head", "ledger_checkpoints"):
        await superuser.execute(f"ALTER TABLE retentiond.{each} DISABLE TRIGGER USER")
    await superuser.execute("DELETE FROM retentiond.ledger_entries")
    await superuser.execute("UPDATE retentiond.ledger_head SET size = 0, frontier = '{}', last = ''")
    if forget:
        await superuser.execute("DELETE FROM retentiond.ledger_checkpoints")
    if size:
        async with superuser.transaction():
            await journal.append(superuser, *[guard(f"{name}{n}") for n in range(size)])


async def test_a_first_start_keeps_the_empty_checkpoint_and_each_later_one(
    db: Database, kept: Journal, folder: Path
) -> None:
    await begin(db, kept)
    assert parse_and_verify((folder / FILE).read_text(), kept.verifier).root == EMPTY_ROOT
    await append(db, kept, 3)
    await require(db, kept)
    note = await checkpoint(db, kept)
    assert (folder / FILE).read_text() == note
    assert stat.S_IMODE((folder / FILE).stat().st_mode) == 0o600
    assert sorted(path.name for path in folder.iterdir()) == ["ledger.checkpoint", "ledger.key"]
    await append(db, kept, 2)
    await require(db, kept)


async def test_a_crash_after_the_first_entries_is_no_lost_folder(db: Database, kept: Journal) -> None:
    await begin(db, kept)
    await append(db, kept, 2)
    await begin(db, kept)
    await checkpoint(db, kept)


async def test_without_a_state_folder_nothing_is_compared(db: Database, journal: Journal) -> None:
    await begin(db, journal)
    await append(db, journal, 2)
    await require(db, journal)
    with pytest.raises(UsageError, match="state_dir"):
        await journal.accept(db, by="operator", reason="r", key=b"k" * 32)


async def test_a_folder_that_knows_of_nothing_beside_a_ledger_with_entries_is_refused(
    db: Database, kept: Journal
) -> None:
    await append(db, kept, 3)
    await begin(db, kept)
    await refused(db, kept, "has 3 entries")


async def test_a_database_that_was_restored_is_refused(db: Database, kept: Journal, superuser: Connection) -> None:
    await begin(db, kept)
    await append(db, kept, 5)
    await checkpoint(db, kept)
    await restored(superuser, kept, 3)
    await refused(db, kept, "older than what was done")


async def test_a_database_that_was_restored_and_grew_another_history_is_refused(
    db: Database, kept: Journal, superuser: Connection
) -> None:
    await begin(db, kept)
    await append(db, kept, 5)
    await checkpoint(db, kept)
    await restored(superuser, kept, 9, name="other")
    await refused(db, kept, "another history")


async def test_the_entries_decide_where_the_databases_own_checkpoint_is_lost(
    db: Database, kept: Journal, superuser: Connection
) -> None:
    await begin(db, kept)
    await append(db, kept, 5)
    await checkpoint(db, kept)
    await superuser.execute("ALTER TABLE retentiond.ledger_checkpoints DISABLE TRIGGER USER")
    await superuser.execute("DELETE FROM retentiond.ledger_checkpoints")
    await append(db, kept, 2)
    await require(db, kept)
    assert parse_and_verify(await checkpoint(db, kept), kept.verifier).size == 7


async def test_a_fresh_database_beside_a_used_folder_is_refused(
    db: Database, kept: Journal, key: SigningKey, folder: Path
) -> None:
    await begin(db, kept)
    fresh = Journal(key, origin_of("another"), "1.2.3", folder)
    await begin(db, fresh)
    await refused(db, fresh, "was last used with the control database of retentiond/1f0e")


async def test_a_note_of_another_key_or_none_at_all_is_refused(
    db: Database, kept: Journal, origin: str, folder: Path
) -> None:
    await begin(db, kept)
    other = Journal(SigningKey.load("A" * 43 + "=", None), origin, "1", folder)
    await refused(db, other, "does not verify")
    (folder / FILE).write_text(f"{origin}\nnonsense")
    await refused(db, kept, "does not verify")


async def test_no_smaller_checkpoint_takes_the_place_of_a_larger_one(db: Database, kept: Journal, folder: Path) -> None:
    await begin(db, kept)
    empty = (folder / FILE).read_text()
    await append(db, kept, 2)
    note = await checkpoint(db, kept)
    assert kept.high_water is not None
    kept.high_water.keep(empty)
    assert (folder / FILE).read_text() == note


async def test_an_export_over_an_older_database_is_not_signed(
    db: Database, kept: Journal, superuser: Connection, tmp_path: Path
) -> None:
    await begin(db, kept)
    await append(db, kept, 5)
    await export(db, tmp_path / "out", kept.key, kept.origin, kept.high_water)
    await restored(superuser, kept, 3)
    with pytest.raises(Guarded, match="older than what was done"):
        await export(db, tmp_path / "more", kept.key, kept.origin, kept.high_water)
    assert not (tmp_path / "more" / "checkpoint").exists()


async def test_what_an_operator_accepts_is_in_the_ledger_and_lets_it_go_on(
    db: Database, kept: Journal, superuser: Connection, folder: Path
) -> None:
    await begin(db, kept)
    await append(db, kept, 5)
    given_up = await checkpoint(db, kept)
    await restored(superuser, kept, 3)
    note = await kept.accept(db, by="operator", reason="the disk died", key=b"k" * 32)
    assert (folder / FILE).read_text() == note
    await require(db, kept)
    await checkpoint(db, kept)
    async with db.transaction() as tx:
        last = (await table.read(tx, 3, 9))[-1]
    entry = orjson.loads(last.leaf)
    assert (entry["guard"], entry["detail"]["event"], entry["detail"]["by"]) == (
        "control_state",
        "accepted",
        "operator",
    )
    assert entry["detail"]["given_up"] == given_up
    assert b"the disk died" not in canonical(entry)


@pytest.mark.skipif(os.getuid() == 0, reason="root writes everywhere")
async def test_a_folder_that_can_not_be_written_is_said(db: Database, kept: Journal, folder: Path) -> None:
    folder.chmod(0o500)
    try:
        with pytest.raises(LedgerError, match="can't be kept"):
            await begin(db, kept)
    finally:
        folder.chmod(0o700)


async def test_a_folder_that_is_gone_is_said(db: Database, key: SigningKey, origin: str, tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="can't be kept") as caught:
        await begin(db, Journal(key, origin, "1", tmp_path / "gone"))
    assert caught.value.remedy
