"""Appending to the ledger, and signing its head.

Every entry gets `seq` (from 1), `at` (the control clock, read once the head is locked, so that order and time agree),
`kind`, `version` and `prev`, the leaf hash of the entry before it. The tree alone proves that something was altered;
the chain says which entry. An append locks the head until its transaction ends: do it last.

A log must never sign two heads of which one does not continue the other. So a checkpoint is signed only over a
committed head, and only after the entries since our last checkpoint have been hashed again and lead from one to the
other: who rewrites the log in the database gets no signature for it.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from retentiond.control import entries as table
from retentiond.domain.duration import rfc3339
from retentiond.domain.evidence import Checkpoint, TreeHead, VerifierKey, canonical, leaf_hash, parse_and_verify
from retentiond.errors import LedgerError
from retentiond.ledger.keys import SigningKey
from retentiond.ledger.kinds import Entry

if TYPE_CHECKING:
    from retentiond.control.database import Tx

_BROKEN = "run `retentiond ledger verify`: it names the first entry that was altered"


class Journal:
    """The way into one ledger. `origin` names it (`keys.origin_of`), `version` is that of the software."""

    def __init__(self, key: SigningKey, origin: str, version: str) -> None:
        self._key = key
        self.origin = origin
        self._version = version

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

    async def checkpoint(self, tx: Tx) -> str:
        """A signed note over the committed head, kept in the database when the ledger has grown.

        The transaction must not have written anything, or the note could be about entries that are undone later.
        Raises LedgerError, and signs nothing, when the head does not continue our last checkpoint.
        """
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
