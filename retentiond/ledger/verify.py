"""Finding out whether the ledger is as it was written, offline on an export or in the control database.

An export needs nothing but its folder and the public key. Whoever hands over a folder can hand over a key of his own
with it: give the key that was printed when it was made, and read in the report which one was used.
In the database all checkpoints of the key are compared as well; so a chain that was rewritten as a whole is still
placed between two of them.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from retentiond.control import entries as table
from retentiond.domain.duration import rfc3339
from retentiond.domain.evidence import Checkpoint, TreeHead, VerifierKey, leaf_hash, parse_and_verify
from retentiond.errors import LedgerError, UsageError
from retentiond.ledger.chain import ALTERED, Break, Chain, parse_leaf
from retentiond.ledger.standing import Standing

if TYPE_CHECKING:
    from retentiond.control.database import Database

LEAVES, CHECKPOINT, PUBLIC_KEY = "leaves.jsonl", "checkpoint", "key.pub"
_MAX_LEAF = 16 * 2**20
_MAX_SMALL = 2**20
_HASH = re.compile(r"[0-9a-f]{64}")
_LAST = "it was altered, and perhaps the one before it too: it fits neither that one nor the signed root"

Sink = Callable[[Sequence[bytes]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """`size` entries hold together under `root` (hex); `first_break` is None when all is well.

    `checkpoint_size` is the size of the largest signed checkpoint that was compared, `key` the verifier key it was
    checked with and `key_source` where that came from.
    """

    size: int
    root: str
    first_break: Break | None
    key: str
    key_source: str
    checkpoint_size: int | None

    @property
    def ok(self) -> bool:
        """Whether nothing was found wrong."""
        return self.first_break is None

    def document(self) -> dict[str, object]:
        """The report as `--json` shows it."""
        return {
            "ok": self.ok,
            "size": self.size,
            "root": self.root,
            "first_break": self.first_break.document() if self.first_break else None,
            "key": self.key,
            "key_source": self.key_source,
            "checkpoint_size": self.checkpoint_size,
        }


# --- Offline, on an export ---


def verify_export(folder: Path, key_file: Path | None = None) -> VerifyReport:
    """Verify an export; with `key_file` (a verifier key line) rather than with the folder's own key, where given.

    Raises UsageError when the folder is no export or the key can't be read: then nothing was verified.
    """
    path = key_file or folder / PUBLIC_KEY
    verifier = read_verifier(path)
    source = str(path) if key_file else f"{path} (came with the export)"
    note = _small(
        folder / CHECKPOINT, "an export has it beside leaves.jsonl; an interrupted one lacks it: export again"
    )
    try:
        signed = _checkpoint(note, verifier)
    except LedgerError as error:
        return VerifyReport(0, "", Break(None, None, f"the checkpoint: {error}"), str(verifier), source, None)
    chain = Chain()
    found = _walk_lines(chain, folder / LEAVES, signed)
    if found and chain.doubtful is not None:
        found = _placed(found, chain.doubtful, folder / LEAVES, signed)
    if found and found.seq is not None:
        found = replace(found, line=found.seq)
    return VerifyReport(chain.size, chain.tree.root().hex(), found, str(verifier), source, signed.size)


def _walk_lines(chain: Chain, path: Path, signed: Checkpoint) -> Break | None:
    for line in _lines(path):
        if chain.size == signed.size:
            return chain.doubt() or Break(
                chain.size + 1, None, f"it is beyond the signed checkpoint, which has {signed.size} entries"
            )
        if not line.endswith(b"\n"):
            return chain.doubt() or Break(chain.size + 1, None, "its line is cut off or too long")
        if found := chain.feed(line[:-1]):
            return found
    if found := chain.doubt():
        return found
    if chain.size < signed.size:
        return Break(chain.size + 1, None, f"missing: the signed checkpoint has {signed.size} entries")
    return _compare(chain, signed, 0)


def _placed(found: Break, doubtful: int, path: Path, signed: Checkpoint) -> Break:
    """The break, placed by what the signed root says where neighbours disagree from entry `doubtful` on.

    If the hashes that the entries name for those before them lead to the signed root, then they are the true ones,
    and the first entry that has another was altered, whatever else was.
    """
    named = TreeHead().extend(_named_hashes(path, signed.size))
    if (named.size, named.root()) == (signed.size, signed.root):
        return Break(doubtful - 1, None, ALTERED)
    return Break(doubtful, None, _LAST) if doubtful == signed.size else found


def _named_hashes(path: Path, size: int) -> Iterator[bytes]:
    """The hash of each entry as the next one names it, and the last one's own; ends early at what names none."""
    last: bytes | None = None
    for line in islice(_lines(path), size):
        leaf = line.removesuffix(b"\n")
        if last is not None:
            prev = (parse_leaf(leaf) or {}).get("prev")
            if not isinstance(prev, str) or not _HASH.fullmatch(prev):
                return
            yield bytes.fromhex(prev)
        last = leaf
    if last is not None:
        yield leaf_hash(last)


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            while line := file.readline(_MAX_LEAF):
                yield line
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}", remedy="name the folder of an export") from error


def _small(path: Path, remedy: str) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_SMALL).decode()
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}", remedy=remedy) from error
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not text", remedy=remedy) from None


def read_verifier(path: Path) -> VerifierKey:
    """The verifier key in that file; raises UsageError."""
    remedy = "give with --key the file with the verifier key that retentiond printed when it made its signing key"
    try:
        return VerifierKey.parse(_small(path, remedy))
    except LedgerError as error:
        raise UsageError(f"{path}: {error}", remedy=remedy) from error


# --- In the control database ---


async def verify_database(db: Database, verifier: VerifierKey | str, sink: Sink | None = None) -> VerifyReport:
    """Verify all entries against each other, their columns, the head, every checkpoint of this key, and the holds.

    `sink` as for `walk_database`.

    Entries that nothing signed vouches for are a break too: whoever can write the tables could have made them up.
    """
    key = VerifierKey.parse(verifier) if isinstance(verifier, str) else verifier
    standing = Standing()

    async def both(leaves: Sequence[bytes]) -> None:
        standing.see(leaves)
        if sink:
            await sink(leaves)

    report = await walk_database(db, key, both)
    if report.ok and report.size and report.checkpoint_size is None:
        what = f"no checkpoint of the key {key.id.hex()} is there: nothing outside the database vouches for the entries"
        return replace(report, first_break=Break(None, None, what))
    return replace(report, first_break=await standing.compare(db, report.size)) if report.ok else report


async def walk_database(db: Database, verifier: VerifierKey, sink: Sink | None = None) -> VerifyReport:
    """The same without asking for a checkpoint; `sink` gets the leaves, page by page, as they are found good."""
    walk = _DatabaseWalk(db, verifier, sink)
    try:
        found = await walk.run()
    except LedgerError as error:
        found = Break(None, None, error.message)
    chain = walk.chain
    return VerifyReport(chain.size, chain.tree.root().hex(), found, str(verifier), "the key given", walk.compared)


class _DatabaseWalk:
    def __init__(self, db: Database, verifier: VerifierKey, sink: Sink | None) -> None:
        self._db = db
        self._verifier = verifier
        self._sink = sink
        self.chain = Chain()
        self.compared: int | None = None

    async def run(self) -> Break | None:
        key_id = self._verifier.id.hex()
        async with self._db.transaction(read_only=True) as tx:
            # In this order: a checkpoint signed in between is over more entries than the head that was read.
            latest = await table.latest_checkpoint(tx, key_id)
            head, newest = await table.extent(tx)
        async for page in table.pages(self._db, 0, head.tree.size):
            if found := await self._page(page, key_id):
                return found
            if self._sink:
                await self._sink([row.leaf for row in page])
        return self.chain.doubt() or self._end(head, newest, latest.tree.size if latest else 0)

    async def _page(self, page: list[table.Row], key_id: str) -> Break | None:
        async with self._db.transaction(read_only=True) as tx:
            notes = dict(await table.checkpoints(tx, key_id, self.chain.size, page[-1].seq))
        for row in page:
            if found := _row(self.chain, row):
                return found
            if (note := notes.get(row.seq)) and (found := self._signed(note)):
                return found
        return None

    def _signed(self, note: str) -> Break | None:
        signed = _checkpoint(note, self._verifier)
        if found := self.chain.doubt() or _compare(self.chain, signed, self.compared or 0):
            return found
        self.compared = signed.size
        return None

    def _end(self, head: table.Head, newest: int, signed: int) -> Break | None:
        size = self.chain.size
        if size < max(head.tree.size, signed):
            of = "the head" if head.tree.size > size else "a signed checkpoint"
            return Break(size + 1, None, f"missing: {of} has {max(head.tree.size, signed)} entries")
        if newest > size:
            return Break(size + 1, None, f"it is beyond the head, which has {size} entries")
        if (self.chain.tree, self.chain.last) != (head.tree, head.last):
            return Break(size, None, "the entries up to it don't lead to the stored head")
        return None


def _row(chain: Chain, row: table.Row) -> Break | None:
    """Take a row: its leaf, and the columns that repeat what the leaf says."""
    if row.seq != chain.size + 1:
        return chain.doubt() or Break(chain.size + 1, None, f"missing: the next one has the number {row.seq}")
    if found := chain.feed(row.leaf):
        return found
    if row.hash != chain.last:
        return Break(row.seq, None, "it was altered: it does not have the hash stored beside it")
    columns = (row.kind, rfc3339(row.at), row.month)
    if columns != (chain.entry.get("kind"), chain.entry.get("at"), table.month_of(row.at)):
        return Break(row.seq, None, "the columns kind, at or month don't say what the entry says")
    return None


def _checkpoint(note: str, verifier: VerifierKey) -> Checkpoint:
    signed = parse_and_verify(note, verifier)
    if signed.origin != verifier.name:
        raise LedgerError(f"it is of another ledger, {signed.origin}")
    return signed


def _compare(chain: Chain, signed: Checkpoint, good: int) -> Break | None:
    """Compare the roots; `good` is the size up to which an earlier checkpoint has vouched for the entries."""
    if signed.size == chain.size and signed.root == chain.tree.root():
        return None
    first, last = good + 1, chain.size
    return Break(
        last or None,
        None,
        f"the root over all entries up to it is not the signed one: it was altered, or the chain of entries "
        f"{first} to {last} was rewritten",
    )
