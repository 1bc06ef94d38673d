"""The advisory locks of the control database, all of them bound to a transaction (a pooler strands session locks).

They use the form with two keys, which is a space of its own: a permit's number, a lock with one key in the target's
database, can't meet them even where target and control state share a database.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from retentiond.control.database import Tx

NAMESPACE: Final = 0x7265746E
"""The first key of all of them: `retn` in ASCII."""

BARRIER: Final = 1
MIGRATIONS: Final = 2


async def share_barrier(tx: Tx) -> None:
    """Take the hold barrier shared, in a statement of its own: what is read must be read by a later one."""
    await tx.execute(f"SELECT pg_catalog.pg_advisory_xact_lock_shared({NAMESPACE}, {BARRIER})")


async def close_barrier(tx: Tx) -> None:
    """Take the hold barrier alone, in a statement of its own: no permit is being issued until this commits."""
    await tx.execute(f"SELECT pg_catalog.pg_advisory_xact_lock({NAMESPACE}, {BARRIER})")
