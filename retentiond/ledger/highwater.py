"""The last checkpoint that was signed here, in a file of the state folder: how a lost or older ledger is noticed.

A control database that was made anew, or restored from a backup, lacks holds; nothing may be erased from it (4-safety,
"Guards"). So each signed note is kept outside of it too, in `ledger.checkpoint` beside the signing key. The note names
the control database (its origin) and verifies with the key, so the file needs no trust of its own.

| file | ledger in the control database | it is | what happens |
|---|---|---|---|
| none, no `state_dir` | any | nothing to compare with: only `control.id` guards | goes on |
| none | empty | a first start | goes on; the empty checkpoint is kept before the first entry |
| none | has entries | a lost state folder, or a new replica beside a database of unknown age | refused |
| of another control database | any | a fresh database, or the wrong one | refused |
| not signed by our key, or unreadable | any | another key, or a damaged file | refused |
| of more entries than there are | smaller | an older copy | refused |
| of as many or fewer | its beginning has another root | another history grown over an older copy | refused |
| of as many or fewer | its beginning has that root | the same ledger, grown | goes on |

Refused: Guarded `control_state`, nothing is erased and nothing signed. `retentiond ledger accept` is the way out after
a restore that is meant and whose holds were looked at; it goes into the ledger. A state folder that is restored
together with the database shows nothing: keep them apart, or watch the checkpoints in the log.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from retentiond.control import entries as table
from retentiond.domain.evidence import Checkpoint, TreeHead, VerifierKey, leaf_hash, parse_and_verify
from retentiond.errors import Guarded, LedgerError
from retentiond.ledger.keys import sync_folder

if TYPE_CHECKING:
    from retentiond.control.database import Tx

FILE = "ledger.checkpoint"
_MAX_NOTE = 100_000
_REMEDY = (
    "let control.dsn name the database that was used last; after a restore that is meant, see that its holds are whole "
    "(`retentiond hold list`), then run `retentiond ledger accept --reason …` with this state_dir"
)
_KEY_REMEDY = (
    "give the signing key that was used here before, by the setting ledger.key or as ledger.key in state_dir; where "
    "another key is meant, run `retentiond ledger accept --reason …` with it"
)


class HighWater:
    """The file of one state folder; `verifier` is the key that signs the ledger of the control database."""

    def __init__(self, folder: Path, verifier: VerifierKey) -> None:
        self.path = folder / FILE
        self._verifier = verifier

    def note(self) -> str | None:
        """The note as it is kept; None where there is none. Raises Guarded when the file can't be read."""
        try:
            with self.path.open("rb") as file:
                return file.read(_MAX_NOTE).decode("utf-8", "replace")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _guarded(f"the last checkpoint in {self.path} can't be read: {error.strerror}") from error

    async def require(self, tx: Tx) -> None:
        """Raise Guarded (`control_state`) unless the ledger of this transaction continues the kept checkpoint."""
        note = self.note()
        head = (await table.head(tx)).tree
        if note is None:
            if head.size:
                raise _guarded(
                    f"the ledger has {head.size} entries, and the state folder {self.path.parent} knows of none: the "
                    "control database may be older than what was done"
                )
            return
        signed = self._signed(note)
        if head.size < signed.size:
            raise _guarded(
                f"the control database is older than what was done: its ledger has {head.size} entries, and a "
                f"checkpoint of {signed.size} was signed here"
            )
        if await self._root(tx, signed) != signed.root:
            raise _guarded(
                f"the control database has another history: a checkpoint was signed here over the first {signed.size} "
                "entries of its ledger, and they are not the same any more"
            )

    def keep(self, note: str) -> None:
        """Keep a note that was signed just now, unless a larger one of the same ledger is there; raises LedgerError."""
        signed = parse_and_verify(note, self._verifier)

        def larger(kept: str | None) -> bool:
            return kept is None or self._signed(kept).size <= signed.size

        self._write(note, larger)

    def replace(self, note: str) -> None:
        """Keep the note whatever is there: the operator accepted the ledger as it is. Raises LedgerError."""
        self._write(note, lambda _: True)

    def _signed(self, note: str) -> Checkpoint:
        origin = note.partition("\n")[0]
        if origin != self._verifier.name:
            raise _guarded(
                f"the state folder was last used with the control database of {origin}, and this one is "
                f"{self._verifier.name}: holds may be missing from it"
            )
        try:
            return parse_and_verify(note, self._verifier)
        except LedgerError as error:
            raise _guarded(
                f"the last checkpoint in {self.path} does not verify with the signing key: {error}", _KEY_REMEDY
            ) from error

    async def _root(self, tx: Tx, signed: Checkpoint) -> bytes:
        """The root over as many entries as were signed: by our own checkpoint in the database, else by the entries."""
        for _, note in await table.checkpoints(tx, self._verifier.id.hex(), signed.size - 1, signed.size):
            with suppress(LedgerError):  # a note that is not ours tells nothing; the entries do
                return parse_and_verify(note, self._verifier).root
        tree = TreeHead()
        async for page in table.read_to(tx, 0, signed.size):
            tree = tree.extend(leaf_hash(row.leaf) for row in page)
        return tree.root()

    def _write(self, note: str, wanted: Callable[[str | None], bool]) -> None:
        draft = self.path.with_name(f".{FILE}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                fcntl.flock(
                    folder, fcntl.LOCK_EX
                )  # another process of this host must not put a smaller one in its place
                if not wanted(self.note()):
                    return
                with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                    file.write(note.encode())
                    file.flush()
                    os.fsync(file.fileno())
                draft.rename(self.path)
            finally:
                os.close(folder)
            sync_folder(self.path.parent)
        except OSError as error:
            raise LedgerError(
                f"the checkpoint can't be kept in {self.path}: {error.strerror}",
                remedy="make the state folder writable and give its disk room: an older ledger would not be noticed",
            ) from error
        finally:
            with suppress(FileNotFoundError):
                draft.unlink()


def _guarded(message: str, remedy: str = _REMEDY) -> Guarded:
    return Guarded("control_state", f"{message}; nothing is erased", remedy=remedy)
