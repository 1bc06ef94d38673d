"""Appending to the ledger, and signing its head.

Every entry gets `seq` (from 1), `at` (the control clock, read once the head is locked, so that order and time agree),
`kind`, `version` and `prev`, the leaf hash of the entry before it. The tree alone proves that something was altered;
the chain says which entry. An append locks the head until its transaction ends: do it last.

A log must never sign two heads of which one does not continue the other. So a checkpoint is signed only over a
committed head, and only after the entries since our last checkpoint have been hashed again and lead from one to the
other: who rewrites the log in the database gets no signature for it. Nor does an older copy of the database, where the
state folder remembers a later checkpoint (`highwater`).
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import TYPE_CHECKING

from retentiond.control import entries as table
from retentiond.domain.duration import rfc3339
from retentiond.domain.evidence import Checkpoint, TreeHead, VerifierKey, canonical, leaf_hash, parse_and_verify
from retentiond.errors import Guarded, LedgerError, UsageError
from retentiond.ledger import kinds
from retentiond.ledger.highwater import HighWater
from retentiond.ledger.keys import SigningKey
from retentiond.ledger.kinds import Entry

if TYPE_CHECKING:
    from pathlib import Path

    from retentiond.control.database import Database, Tx

_BROKEN = "run `retentiond ledger verify`: it names the first entry that was altered"


class Journal:
    """The way into one ledger. `origin` names it (`keys.origin_of`), `version` is that of the software.

    `folder` is the state folder that keeps its last checkpoint; None where no folder is kept.
    """

    def __init__(self, key: SigningKey, origin: str, version: str, folder: Path | None = None) -> None:
        self._key = key
        self.origin = origin
        self._version = version
        self.high_water = HighWater(folder, self.verifier) if folder else None

    @property
    def key(self) -> SigningKey:
        """The key that signs this ledger's checkpoints, for an export."""
        return self._key

    @property
    def verifier(self) -> VerifierKey:
        """The public key of this ledger's checkpoints."""
        return self._key.verifier(self.origin)

    async def append(self, tx: Tx, *entries: Entry) -> range:
        """Add the entries in the caller's transaction and return their numbers.

        Raises LedgerError when the head is missing or an entry can't be said in JSON.
        """
        if not entries:
            return range(0)
        head, now = await table.lock_head(tx)
        rows = self._rows(head, now, entries)
        tree = head.tree.extend(row.hash for row in rows)
        await table.insert(tx, rows, table.Head(tree, rows[-1].hash))
        return range(rows[0].seq, rows[-1].seq + 1)

    def _rows(self, head: table.Head, now: datetime, entries: tuple[Entry, ...]) -> list[table.Row]:
        rows: list[table.Row] = []
        prev = head.last
        for seq, entry in enumerate(entries, head.tree.size + 1):
            leaf = canonical(
                {
                    **entry.body,
                    "seq": seq,
                    "at": rfc3339(now),
                    "kind": str(entry.kind),
                    "version": self._version,
                    "prev": prev.hex(),
                }
            )
            prev = leaf_hash(leaf)
            rows.append(table.Row(seq, table.month_of(now), str(entry.kind), now, leaf, prev))
        return rows

    async def begin(self, tx: Tx) -> None:
        """Keep the checkpoint of an empty ledger where none is kept: before its first entry, a start is the first."""
        if self.high_water is None or self.high_water.note() is not None or (await table.head(tx)).tree.size:
            return
        await asyncio.to_thread(self.high_water.keep, self._key.sign(Checkpoint(self.origin, 0, TreeHead().root())))

    async def require_continued(self, tx: Tx) -> None:
        """Raise Guarded (`control_state`) when the ledger does not continue the checkpoint kept in the state folder."""
        if self.high_water is not None:
            await self.high_water.require(tx)

    async def accept(self, database: Database, *, by: str, reason: str, key: bytes) -> str:
        """Take the ledger as it is, after a restore that is meant: say so in it, and keep its checkpoint; the note.

        `key` digests the reason. Raises UsageError where no state folder is kept, LedgerError.
        """
        if self.high_water is None:
            raise UsageError("no state_dir is set, so nothing is remembered that could be given up")
        try:
            given_up = self.high_water.note()
        except Guarded as error:
            given_up = error.message
        async with database.transaction() as tx:
            await self.append(tx, kinds.accepted(given_up, by=by, reason=reason, key=key))
        async with database.transaction() as tx:
            note = await self._sign(tx)
        await asyncio.to_thread(self.high_water.replace, note)
        return note

    async def checkpoint(self, tx: Tx) -> str:
        """A signed note over the committed head, kept in the database when the ledger has grown, and in the folder.

        The transaction must not have written anything, or the note could be about entries that are undone later.
        Raises LedgerError or Guarded, and signs nothing, when the head does not continue our last checkpoint.
        """
        await self.require_continued(tx)
        note = await self._sign(tx)
        if self.high_water is not None:
            await asyncio.to_thread(self.high_water.keep, note)
        return note

    async def _sign(self, tx: Tx) -> str:
        if await table.has_written(tx):
            raise LedgerError("a checkpoint is signed in a transaction of its own, over what is committed")
        tree = (await table.head(tx)).tree
        key_id = self.verifier.id.hex()
        last = await table.latest_checkpoint(tx, key_id)
        if await self._grown(tx, last, tree.size) != tree:
            raise LedgerError("the ledger's entries don't lead to its head: nothing is signed", remedy=_BROKEN)
        note = self._key.sign(Checkpoint(self.origin, tree.size, tree.root()))
        if last is None or last.tree.size < tree.size:
            await table.save_checkpoint(tx, key_id, table.SavedCheckpoint(note, tree))
        return note

    async def _grown(self, tx: Tx, last: table.SavedCheckpoint | None, size: int) -> TreeHead:
        """The tree of our last checkpoint with the entries since, up to `size`."""
        tree = self._signed_tree(last) if last else TreeHead()
        async for page in table.read_to(tx, tree.size, size):
            tree = tree.extend(leaf_hash(row.leaf) for row in page)
        return tree

    def _signed_tree(self, saved: table.SavedCheckpoint) -> TreeHead:
        """The tree beside a saved note, once the note's signature vouches for it."""
        signed = parse_and_verify(saved.note, self.verifier)
        if signed != Checkpoint(self.origin, saved.tree.size, saved.tree.root()):
            raise LedgerError("the last checkpoint in the control database was altered", remedy=_BROKEN)
        return saved.tree
