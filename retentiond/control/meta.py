"""Which control database this is: its id, its keys, and the guard against a fresh or an older one.

Holds may be missing from a control database that was made anew or restored, so nothing may be erased from it
(4-safety.md, "Guards"): `control.id` pinned in the configuration is compared here.
"""

from __future__ import annotations

from uuid import UUID

from retentiond.control.database import Tx
from retentiond.errors import Guarded, StateMissing


async def control_id(tx: Tx) -> str:
    """The id that was made with the state, as lower-case text."""
    found = await tx.fetchval("SELECT control_id::text FROM retentiond.meta")
    if found is None:
        raise StateMissing("the control database has lost its id", remedy="restore it from a backup")
    return str(found)


async def require_control_id(tx: Tx, pinned: str | None) -> None:
    """Raise Guarded when the configuration pins another control database; None pins nothing."""
    found = await control_id(tx)
    if pinned is not None and pinned.strip().lower() != found:
        raise Guarded(
            "control_id",
            f"the control database is {found}, but control.id pins {pinned}: holds may be missing from it",
            remedy="let control.dsn name the right database; after a restore that is known to be whole, pin the new id",
        )


async def secret(tx: Tx, name: str) -> bytes:
    """The 32-byte key of that name: `accounts`, `evidence` or `texts`."""
    value = await tx.fetchval("SELECT value FROM retentiond.secrets WHERE name = $1", name)
    if value is None:
        raise StateMissing(f"the control database has no key {name!r}", remedy="restore it from a backup")
    return bytes(value)


def is_control_id(text: str) -> bool:
    """Whether the text can be a control id at all, for the settings to check."""
    try:
        UUID(text.strip())
    except ValueError:
        return False
    return True
