"""Which server the control database runs on now, so that a failover or a restored copy is noticed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from retentiond.errors import Unreachable

if TYPE_CHECKING:
    from retentiond.control.database import Tx


@dataclass(frozen=True, slots=True)
class Identity:
    """Which server this is: `system_identifier` is None where we may not read it."""

    system_identifier: str | None
    timeline: str
    database_oid: int

    @property
    def line(self) -> str:
        """One text for "the same server, not failed over, not restored": another means that rows may be missing."""
        return f"{self.system_identifier or '-'}/{self.timeline}"


async def identity_of(tx: Tx) -> Identity:
    """Which server, timeline and database this transaction runs on; raises Unreachable on a standby.

    A failover raises the timeline, a restored copy on a new server has another system identifier; both mean that the
    last permits and holds may be missing (4-safety.md, "Placing a hold").
    """
    # pg_control_system is open to everybody by default, but a provider may have revoked it.
    readable = await tx.fetchrow(
        "SELECT pg_catalog.pg_is_in_recovery() AS standby,"
        " pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'execute') AS system"
    )
    if readable is None or readable["standby"]:
        raise Unreachable(
            "the control database is a standby, which can't be written",
            remedy="let control.dsn name the primary (several hosts and target_session_attrs=read-write)",
        )
    row = await tx.fetchrow(_WITH_SYSTEM if readable["system"] else _WITHOUT_SYSTEM)
    if row is None:
        raise Unreachable("the control database gave no answer to the question which server it is")
    return Identity(row["system"], row["timeline"], row["oid"])


_WITHOUT_SYSTEM = (
    "SELECT pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8) AS timeline,"
    " (SELECT oid::bigint FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) AS oid,"
    " NULL::text AS system"
)
_WITH_SYSTEM = _WITHOUT_SYSTEM.replace(
    "NULL::text", "(SELECT system_identifier::text FROM pg_catalog.pg_control_system())"
)


def line_sql(*, reads_system: bool) -> str:
    """`Identity.line` as an SQL expression, for a statement that needs more than that; an error on a standby."""
    system = "(SELECT system_identifier::text FROM pg_catalog.pg_control_system())" if reads_system else "'-'"
    return f"({system} || '/' || pg_catalog.left(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 8))"


async def reads_system(tx: Tx) -> bool:
    """Whether we may read the server's identifier."""
    return bool(
        await tx.fetchval("SELECT pg_catalog.has_function_privilege('pg_catalog.pg_control_system()', 'execute')")
    )
