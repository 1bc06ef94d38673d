"""Sessions of people at the page, by the SHA-256 of their cookie; in the database, so that each replica knows them."""

from __future__ import annotations

from dataclasses import dataclass

from retentiond.control.database import Tx


@dataclass(frozen=True, slots=True)
class Session:
    """Who is logged in, by the SHA-256 (hex) of which token."""

    principal: str
    token: str


async def begin(tx: Tx, id: bytes, session: Session, seconds: float) -> None:
    """Open it for so long; those that are over are forgotten."""
    await tx.execute("DELETE FROM retentiond.sessions WHERE expires_at <= pg_catalog.clock_timestamp()")
    await tx.execute(
        "INSERT INTO retentiond.sessions (id, principal, token, expires_at)"
        " VALUES ($1, $2, $3, pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $4))",
        id,
        session.principal,
        session.token,
        seconds,
    )


async def find(tx: Tx, id: bytes) -> Session | None:
    """The session, unless it is over."""
    row = await tx.fetchrow(
        "SELECT principal, token FROM retentiond.sessions WHERE id = $1 AND expires_at > pg_catalog.clock_timestamp()",
        id,
    )
    return None if row is None else Session(row["principal"], row["token"])


async def end(tx: Tx, id: bytes) -> None:
    """Log out."""
    await tx.execute("DELETE FROM retentiond.sessions WHERE id = $1", id)
