"""The ledger as files that anybody can verify without us: leaves, a checkpoint over them, and the public key.

All entries up to the head that was read first are written, and none after: entries never change, so that is one
state of the ledger although no snapshot is held for the time it takes. They are verified on the way, and a checkpoint
is signed only when they hold together and continue every one that was signed before.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Self

from retentiond.domain.evidence import Checkpoint
from retentiond.errors import LedgerError, UsageError
from retentiond.ledger.highwater import HighWater
from retentiond.ledger.keys import SigningKey
from retentiond.ledger.verify import CHECKPOINT, LEAVES, PUBLIC_KEY, walk_database

if TYPE_CHECKING:
    from retentiond.control.database import Database

_DRAFT = ".partial"


async def export(
    db: Database, out_dir: Path, key: SigningKey, origin: str, high_water: HighWater | None = None
) -> Checkpoint:
    """Write leaves.jsonl, key.pub and checkpoint into the folder, made where missing, and return the checkpoint.

    An export that is there is replaced. Raises LedgerError, leaving the folder as it was, when the ledger does not
    hold together, Guarded when it does not continue the checkpoint kept here (`high_water`), and UsageError when the
    folder can't be written.
    """
    verifier = key.verifier(origin)
    if high_water is not None:
        async with db.transaction(read_only=True) as tx:
            await high_water.require(tx)
    try:
        with _Leaves(out_dir / LEAVES) as leaves:
            report = await walk_database(db, verifier, leaves.write)
            if report.first_break:
                raise LedgerError(
                    f"the ledger does not hold together and is not signed: {report.first_break}",
                    remedy="run `retentiond ledger verify`; the database has the altered entries",
                )
            checkpoint = Checkpoint(origin, report.size, bytes.fromhex(report.root))
            note = key.sign(checkpoint)
            if high_water is not None:
                await asyncio.to_thread(high_water.keep, note)
            await asyncio.to_thread(_publish, leaves, f"{verifier}\n", note)
    except OSError as error:
        raise UsageError(
            f"the export can't be written to {out_dir}: {error.strerror or error}",
            remedy="name a folder on a disk with room that this user may write",
        ) from error
    return checkpoint


class _Leaves:
    """The file of leaves under its temporary name, until it is published; removed when it never is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.draft = path.with_name(path.name + _DRAFT)

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.file: BinaryIO = self.draft.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self.file.close()
        with suppress(FileNotFoundError):
            self.draft.unlink()

    async def write(self, leaves: Sequence[bytes]) -> None:
        """Add a line for each."""
        await asyncio.to_thread(self.file.write, b"".join(leaf + b"\n" for leaf in leaves))


def _publish(leaves: _Leaves, public: str, note: str) -> None:
    """Put all three in place, the checkpoint last: a folder without one is seen to be incomplete."""
    folder = leaves.path.parent
    _sync(leaves.file)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    leaves.draft.replace(leaves.path)
    _write(folder / PUBLIC_KEY, public)
    _write(folder / CHECKPOINT, note)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(path: Path, text: str) -> None:
    draft = path.with_name(path.name + _DRAFT)
    with draft.open("wb") as file:
        file.write(text.encode())
        _sync(file)
    draft.replace(path)


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
