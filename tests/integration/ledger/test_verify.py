"""Exports that verify offline, and tampering that is found and named, in an export and in the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
import orjson
import pytest

from retentiond.control import entries as table
from retentiond.control.database import Database
from retentiond.domain.evidence import Checkpoint, canonical, leaf_hash, parse_and_verify, root_of, sign
from retentiond.errors import LedgerError, UsageError
from retentiond.ledger import kinds
from retentiond.ledger.export import export
from retentiond.ledger.journal import Journal
from retentiond.ledger.keys import SigningKey
from retentiond.ledger.verify import VerifyReport, verify_database, verify_export

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

OTHER_KEY = SigningKey.load("A" * 43 + "=", None)
SIZE = 9


@pytest.fixture
async def filled(db: Database, journal: Journal) -> Database:
    """A ledger of nine entries, with checkpoints over 4 and over 9."""
    for count in (4, 5):
        async with db.transaction() as tx:
            await journal.append(tx, *[kinds.guard(f"g{n}", tripped=True, target="t") for n in range(count)])
        async with db.transaction() as tx:
            await journal.checkpoint(tx)
    return db


@pytest.fixture
async def folder(filled: Database, tmp_path: Path, key: SigningKey, origin: str) -> Path:
    out = tmp_path / "out"
    await export(filled, out, key, origin)
    return out


# --- Exports ---


async def test_an_export_verifies_offline(folder: Path, journal: Journal) -> None:
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint", "key.pub", "leaves.jsonl"]
    leaves = (folder / "leaves.jsonl").read_bytes().splitlines()
    report = verify_export(folder)
    assert (report.ok, report.size, report.first_break, report.checkpoint_size) == (True, SIZE, None, SIZE)
    assert report.root == root_of(map(leaf_hash, leaves)).hex()
    assert parse_and_verify((folder / "checkpoint").read_text(), journal.verifier).root.hex() == report.root
    assert report.document()["ok"] is True


async def test_the_report_says_which_key_was_used(folder: Path, tmp_path: Path, journal: Journal) -> None:
    printed = tmp_path / "printed.pub"
    printed.write_text(f"{journal.verifier}\n")
    assert verify_export(folder).key_source == f"{folder / 'key.pub'} (came with the export)"
    report = verify_export(folder, printed)
    assert (report.ok, report.key_source, report.key) == (True, str(printed), str(journal.verifier))


async def test_a_forged_export_with_a_key_of_its_own_is_found_by_the_printed_key(
    folder: Path, tmp_path: Path, journal: Journal, origin: str
) -> None:
    printed = tmp_path / "printed.pub"
    printed.write_text(str(journal.verifier))
    leaves = forge(folder, lambda entries: [{**entry, "tripped": False} for entry in entries])
    forged = Checkpoint(origin, len(leaves), root_of(map(leaf_hash, leaves)))
    (folder / "checkpoint").write_text(OTHER_KEY.sign(forged))
    (folder / "key.pub").write_text(str(OTHER_KEY.verifier(origin)))
    assert verify_export(folder).ok
    report = verify_export(folder, printed)
    assert report.first_break is not None
    assert report.first_break.seq is None
    assert "not signed by" in report.first_break.what


def forge(folder: Path, change: Callable[[list[dict[str, object]]], list[dict[str, object]]]) -> list[bytes]:
    """Change the entries and link them anew, as who knows the format would."""
    path = folder / "leaves.jsonl"
    leaves: list[bytes] = []
    prev = b""
    for entry in change([orjson.loads(line) for line in path.read_bytes().splitlines()]):
        leaves.append(canonical({**entry, "seq": len(leaves) + 1, "prev": prev.hex()}))
        prev = leaf_hash(leaves[-1])
    path.write_bytes(b"".join(leaf + b"\n" for leaf in leaves))
    return leaves


def altered(folder: Path, change: Callable[[list[bytes]], object]) -> VerifyReport:
    path = folder / "leaves.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    change(lines)
    path.write_bytes(b"".join(lines))
    report = verify_export(folder)
    assert not report.ok
    return report


def replace(at: int, old: bytes, new: bytes) -> Callable[[list[bytes]], object]:
    def change(lines: list[bytes]) -> None:
        assert old in lines[at]
        lines[at] = lines[at].replace(old, new)

    return change


@pytest.mark.parametrize("seq", range(1, SIZE + 1))
async def test_an_altered_entry_is_named_wherever_it_is(folder: Path, seq: int) -> None:
    found = altered(folder, replace(seq - 1, b'"tripped":true', b'"tripped":false')).first_break
    assert found is not None
    assert (found.seq, found.line) == (seq, seq)
    assert "altered" in found.what


@pytest.mark.parametrize("seqs", [(1, 2), (4, 5), (7, 8), (3, 4, 5), (2, 3, 4, 5, 6, 7, 8), range(1, SIZE + 1)])
async def test_of_several_altered_entries_the_first_is_named(folder: Path, seqs: Sequence[int]) -> None:
    def change(lines: list[bytes]) -> None:
        for seq in seqs:
            replace(seq - 1, b'"tripped":true', b'"tripped":false')(lines)

    found = altered(folder, change).first_break
    assert found is not None
    assert (found.seq, found.line) == (seqs[0], seqs[0])
    assert found.what == "it was altered: the entry after it names another hash for it"


@pytest.mark.parametrize("seq", range(2, SIZE + 1))
async def test_an_altered_link_is_named_and_not_the_entry_that_it_leads_to(folder: Path, seq: int) -> None:
    def change(lines: list[bytes]) -> None:
        lines[seq - 1] = canonical({**orjson.loads(lines[seq - 1]), "prev": "ab" * 32}) + b"\n"

    found = altered(folder, change).first_break
    assert found is not None
    assert (found.seq, found.line) == (seq, seq)
    assert "fits neither" in found.what


@pytest.mark.parametrize("prev", ["", "AB" * 32, "zz" * 32, None])
async def test_a_link_that_is_no_hash_is_named(folder: Path, prev: str | None) -> None:
    def change(lines: list[bytes]) -> None:
        lines[5] = canonical({**orjson.loads(lines[5]), "prev": prev}) + b"\n"

    found = altered(folder, change).first_break
    assert found is not None
    assert (found.seq, found.line) == (6, 6)


@pytest.mark.parametrize(
    ("change", "seq", "what"),
    [
        (replace(2, b'"tripped":true', b'"tripped": true'), 3, "canonical"),
        (replace(2, b"{", b"["), 3, "canonical"),
        (lambda lines: lines.pop(2), 3, "missing: in its place is one with the number 4"),
        (lambda lines: lines.insert(2, lines[2]), 4, "missing: in its place is one with the number 3"),
        (lambda lines: lines.pop(), SIZE, "missing: the signed checkpoint has 9"),
        (lambda lines: lines.clear(), 1, "missing: the signed checkpoint has 9"),
        (lambda lines: lines.append(lines[-1]), SIZE + 1, "beyond the signed checkpoint"),
        (replace(SIZE - 1, b"\n", b""), SIZE, "cut off"),
        (replace(0, b'"seq":1,', b'"seq":7,'), 1, "number 7"),
        (lambda lines: lines.insert(0, b"\n"), 1, "canonical"),
    ],
)
async def test_the_first_break_says_where_and_what(
    folder: Path, change: Callable[[list[bytes]], object], seq: int, what: str
) -> None:
    found = altered(folder, change).first_break
    assert found is not None
    assert (found.seq, found.line) == (seq, seq)
    assert what in found.what


async def test_a_chain_that_was_rewritten_whole_is_found_by_the_root(folder: Path) -> None:
    forge(folder, lambda entries: [{**entry, "tripped": False} for entry in entries])
    found = verify_export(folder).first_break
    assert found is not None
    assert "the chain of entries 1 to 9 was rewritten" in found.what


async def test_an_altered_checkpoint_is_a_bad_signature(folder: Path) -> None:
    path = folder / "checkpoint"
    path.write_text(path.read_text().replace("\n9\n", "\n8\n"))
    found = verify_export(folder).first_break
    assert found is not None
    assert (found.seq, "signature" in found.what) == (None, True)


async def test_a_checkpoint_of_another_ledger_does_not_pass(folder: Path, key: SigningKey, origin: str) -> None:
    path = folder / "checkpoint"
    own = parse_and_verify(path.read_text(), key.verifier(origin))
    path.write_text(sign(Checkpoint("retentiond/other", own.size, own.root), key.private, origin))
    found = verify_export(folder).first_break
    assert found is not None
    assert "another ledger" in found.what


@pytest.mark.parametrize("name", ["leaves.jsonl", "checkpoint", "key.pub"])
async def test_a_folder_that_lacks_a_file_is_no_export(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(UsageError, match=name) as caught:
        verify_export(folder)
    assert caught.value.remedy


@pytest.mark.parametrize("content", [b"", b"\xff", b"name+hash"])
async def test_a_key_file_that_is_none_is_refused(folder: Path, tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.pub"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=r"bad\.pub"):
        verify_export(folder, path)


async def test_a_later_export_replaces_the_earlier_one(
    filled: Database, folder: Path, journal: Journal, key: SigningKey, origin: str
) -> None:
    async with filled.transaction() as tx:
        await journal.append(tx, kinds.heartbeat(mode="plan", policy_digest=None, targets={}))
    assert (await export(filled, folder, key, origin)).size == SIZE + 1
    assert verify_export(folder).size == SIZE + 1


async def test_an_empty_ledger_exports_and_verifies(
    db: Database, tmp_path: Path, key: SigningKey, origin: str, journal: Journal
) -> None:
    await export(db, tmp_path / "out", key, origin)
    assert verify_export(tmp_path / "out").size == 0
    assert (await verify_database(db, journal.verifier)).ok


async def test_an_export_to_where_nothing_can_be_written_says_so(
    filled: Database, tmp_path: Path, key: SigningKey, origin: str
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="can't be written") as caught:
        await export(filled, tmp_path / "file", key, origin)
    assert caught.value.remedy


async def test_an_export_beside_appends_is_whole(
    db: Database, journal: Journal, tmp_path: Path, key: SigningKey, origin: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table, "PAGE", 7)

    async def work() -> None:
        for _ in range(30):
            async with db.transaction() as tx:
                await journal.append(tx, kinds.guard("g", tripped=True, target=None))

    async def exports() -> None:
        for n in range(8):
            checkpoint = await export(db, tmp_path / str(n), key, origin)
            report = verify_export(tmp_path / str(n))
            assert (report.ok, report.size) == (True, checkpoint.size)

    await asyncio.gather(work(), work(), exports())


# --- The database ---


async def test_a_whole_ledger_verifies_in_the_database_with_all_its_checkpoints(
    filled: Database, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    for page in (2_000, 3, 1):
        monkeypatch.setattr(table, "PAGE", page)
        report = await verify_database(filled, str(journal.verifier))
        assert (report.ok, report.size, report.checkpoint_size) == (True, SIZE, SIZE)


async def test_entries_without_a_checkpoint_of_the_key_are_vouched_for_by_nobody(filled: Database, origin: str) -> None:
    report = await verify_database(filled, OTHER_KEY.verifier(origin))
    assert report.first_break is not None
    assert "vouches" in report.first_break.what


ALTER_LEAF = (
    "UPDATE retentiond.ledger_entries SET leaf = convert_to(replace(convert_from(leaf,'UTF8'),'true','false'),'UTF8')"
)
REHASH = "UPDATE retentiond.ledger_entries SET hash = sha256('\\x00'::bytea || leaf)"


@pytest.mark.parametrize(
    ("statement", "seq", "what"),
    [
        (f"{ALTER_LEAF} WHERE seq = 3", 3, "hash stored beside it"),
        (f"{ALTER_LEAF} WHERE seq = 9", 9, "hash stored beside it"),
        (f"{ALTER_LEAF} WHERE seq = 3; {REHASH}", 3, "altered"),
        (f"{ALTER_LEAF} WHERE seq = 9; {REHASH}", 9, "root"),
        ("UPDATE retentiond.ledger_entries SET leaf = '{}' WHERE seq = 5", 5, "missing"),
        ("UPDATE retentiond.ledger_entries SET leaf = 'x' WHERE seq = 5", 5, "canonical"),
        ("UPDATE retentiond.ledger_entries SET hash = sha256('') WHERE seq = 2", 2, "hash stored beside it"),
        ("UPDATE retentiond.ledger_entries SET kind = 'heartbeat' WHERE seq = 6", 6, "columns"),
        ("UPDATE retentiond.ledger_entries SET at = at - interval '1 day' WHERE seq = 6", 6, "columns"),
        ("UPDATE retentiond.ledger_entries SET month = '2001-01-01' WHERE seq = 6", 6, "columns"),
        ("DELETE FROM retentiond.ledger_entries WHERE seq = 1", 1, "missing"),
        ("DELETE FROM retentiond.ledger_entries WHERE seq = 4", 4, "missing"),
        ("DELETE FROM retentiond.ledger_entries WHERE seq > 7", 8, "missing: the head has 9"),
        ("DELETE FROM retentiond.ledger_entries", 1, "missing: the head has 9"),
        (
            (
                "INSERT INTO retentiond.ledger_entries SELECT 10, month, kind, at, leaf, hash"
                " FROM retentiond.ledger_entries WHERE seq = 9"
            ),
            10,
            "beyond the head",
        ),
        ("UPDATE retentiond.ledger_head SET frontier[1] = sha256('')", 9, "stored head"),
        ("UPDATE retentiond.ledger_head SET last = sha256('')", 9, "stored head"),
        (
            "UPDATE retentiond.ledger_head SET size = 8, frontier = frontier[1:1]",
            9,
            "missing: a signed checkpoint has 9",
        ),
        ("UPDATE retentiond.ledger_head SET frontier = '{}'", None, "full subtrees"),
        ("DELETE FROM retentiond.ledger_head", None, "head of the ledger is missing"),
        ("UPDATE retentiond.ledger_checkpoints SET note = replace(note, E'\\n4\\n', E'\\n5\\n')", None, "signature"),
    ],
)
async def test_tampering_by_who_owns_the_database_is_found_and_named(
    filled: Database, superuser: Connection, journal: Journal, statement: str, seq: int | None, what: str
) -> None:
    await free(superuser)
    await superuser.execute(statement)
    report = await verify_database(filled, journal.verifier)
    assert report.first_break is not None
    assert (report.first_break.seq, what in report.first_break.what) == (seq, True), report.first_break


async def free(superuser: Connection) -> None:
    for name in ("ledger_entries", "ledger_head", "ledger_checkpoints"):
        await superuser.execute(f"ALTER TABLE retentiond.{name} DISABLE TRIGGER USER")


async def rewrite(superuser: Connection, journal: Journal, after: int) -> None:
    """Another history after some entry, whole in itself, as who owns the database and knows the format would make."""
    await free(superuser)
    kept = await table.read(superuser, 0, after)
    await superuser.execute("DELETE FROM retentiond.ledger_entries; DELETE FROM retentiond.ledger_head")
    await superuser.execute("INSERT INTO retentiond.ledger_head (size, frontier, last) VALUES (0, '{}', '')")
    async with superuser.transaction():
        if kept:
            tree = (await table.head(superuser)).tree.extend(row.hash for row in kept)
            await table.insert(superuser, kept, table.Head(tree, kept[-1].hash))
        forged = [kinds.guard("forged", tripped=False, target=None)] * (SIZE - after)
        await journal.append(superuser, *forged)


@pytest.mark.parametrize(("after", "seq", "between"), [(0, 4, "1 to 4"), (2, 4, "1 to 4"), (5, 9, "5 to 9")])
async def test_a_history_that_was_rewritten_whole_is_placed_between_two_checkpoints(
    filled: Database, superuser: Connection, journal: Journal, after: int, seq: int, between: str
) -> None:
    await rewrite(superuser, journal, after)
    report = await verify_database(filled, journal.verifier)
    assert report.first_break is not None
    assert (report.first_break.seq, f"entries {between} " in report.first_break.what) == (seq, True)


async def test_a_rewritten_ledger_is_not_exported_under_our_signature(
    filled: Database, superuser: Connection, journal: Journal, folder: Path, key: SigningKey, origin: str
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    await rewrite(superuser, journal, 5)
    with pytest.raises(LedgerError, match="is not signed") as caught:
        await export(filled, folder, key, origin)
    assert caught.value.remedy
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
