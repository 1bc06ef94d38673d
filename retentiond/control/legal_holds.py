"""Which legal holds on versions of objects are ours, and who is writing them: what stores of objects can't remember.

One process at a time brings a place (a bucket, and what the keys begin with) in step, under a lease by the control
database's clock. The holds are read *after* the lease was had: so nobody has an older view than who was before.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from retentiond.control import hold_rows
from retentiond.control.database import Database, Tx
from retentiond.domain.holds import Hold
from retentiond.errors import Fenced

Version = tuple[bytes, str]
"""Its key's bytes, and its id."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How a place stands: the holds written there, how many seconds ago it was looked at and verified, if it was.

    `any_left`: some legal hold there is ours. `free`: nobody else is at it.
    """

    holds: Mapping[str, str]
    looked: float | None
    verified: float | None
    any_left: bool
    free: bool


class LegalHolds:
    """The memory of one place; `owner` names this process."""

    def __init__(self, database: Database, owner: str, place: str, head: bytes) -> None:
        self._database, self._owner, self._place, self._head = database, owner, place, head

    async def standing(self) -> Standing:
        """How it stands; raises Unreachable."""
        async with self._database.transaction(read_only=True) as tx:
            row = await tx.fetchrow(
                f"SELECT holds::text, {_AGE.format('looked_at')} AS looked, {_AGE.format('verified_at')} AS verified,"
                " (owner IS NULL OR owner = $3 OR lease_until <= pg_catalog.clock_timestamp()) AS free"
                " FROM retentiond.legal_hold_walks WHERE place = $1 AND head = $2",
                self._place,
                self._head,
                self._owner,
            )
            left = await tx.fetchval(
                f"SELECT EXISTS (SELECT FROM retentiond.legal_holds WHERE {_HERE})", self._place, self._head
            )
        if row is None:
            return Standing({}, None, None, left, free=True)
        return Standing(json.loads(row["holds"]), row["looked"], row["verified"], left, row["free"])

    async def take(self, seconds: float) -> list[Hold] | None:
        """Have the lease, or keep it, for so long; all holds as they are then. None: somebody else has it."""
        async with self._database.transaction() as tx:
            taken = await tx.fetchval(
                "INSERT INTO retentiond.legal_hold_walks AS w (place, head, owner, lease_until)"
                " VALUES ($1, $2, $3, pg_catalog.clock_timestamp() + pg_catalog.make_interval(secs => $4))"
                " ON CONFLICT (place, head) DO UPDATE SET owner = excluded.owner,"
                " lease_until = GREATEST(excluded.lease_until, CASE WHEN w.owner = $3 THEN w.lease_until END)"
                " WHERE w.owner IS NULL OR w.owner = $3 OR w.lease_until <= pg_catalog.clock_timestamp()"
                " RETURNING true",
                self._place,
                self._head,
                self._owner,
                seconds,
            )
            if not taken:
                return None
        # A later statement of a later transaction: what the one before had seen is seen here as well.
        async with self._database.transaction(read_only=True) as tx:
            rows = await tx.fetch(f"SELECT {hold_rows.COLUMNS} FROM retentiond.holds ORDER BY placed_at, id")
        return [hold_rows.from_row(row) for row in rows]

    async def ours(self, keys: Collection[bytes]) -> dict[Version, bool]:
        """The versions of these keys that are ours, and whether the legal hold is known to be written."""
        async with self._database.transaction(read_only=True) as tx:
            rows = await tx.fetch(
                "SELECT key, version, written FROM retentiond.legal_holds WHERE place = $1 AND key = ANY($2::bytea[])",
                self._place,
                sorted(keys),
            )
        return {(bytes(row["key"]), row["version"]): row["written"] for row in rows}

    async def all_ours(self, most: int, *, written: bool = False) -> list[Version]:
        """The first of all that are ours; with `written` of those that are known to be written."""
        async with self._database.transaction(read_only=True) as tx:
            rows = await tx.fetch(
                f"SELECT key, version FROM retentiond.legal_holds WHERE {_HERE} AND (written OR NOT $4)"
                " ORDER BY key, version LIMIT $3",
                self._place,
                self._head,
                most,
                written,
            )
        return [(bytes(row["key"]), row["version"]) for row in rows]

    async def intend(self, versions: Collection[Version]) -> None:
        """These are about to be written or taken off: ours, and not known to be written. Raises Fenced."""
        async with self._database.transaction() as tx:
            await self._require_lease(tx)
            await tx.execute(
                "INSERT INTO retentiond.legal_holds (place, key, version)"
                " SELECT $1, * FROM unnest($2::bytea[], $3::text[])"
                " ON CONFLICT (place, key, version) DO UPDATE SET written = false",
                self._place,
                *_columns(versions),
            )

    async def wrote(self, versions: Collection[Version]) -> None:
        """These are written; raises Fenced."""
        await self._change("UPDATE retentiond.legal_holds l SET written = true", versions)

    async def forget(self, versions: Collection[Version]) -> None:
        """These are off, or their versions are gone; raises Fenced."""
        await self._change("DELETE FROM retentiond.legal_holds l", versions)

    async def done(self, holds: Mapping[str, str], *, verified: bool) -> None:
        """All is in step with these holds: their ids, and the digests of what was written; the lease ends."""
        async with self._database.transaction() as tx:
            await self._require_lease(tx)
            await tx.execute(
                "UPDATE retentiond.legal_hold_walks SET holds = $3::text::jsonb, owner = NULL, lease_until = NULL,"
                " looked_at = pg_catalog.clock_timestamp(),"
                " verified_at = CASE WHEN $4 THEN pg_catalog.clock_timestamp() ELSE verified_at END"
                " WHERE place = $1 AND head = $2",
                self._place,
                self._head,
                json.dumps(dict(holds), sort_keys=True),
                verified,
            )

    async def leave(self) -> None:
        """The lease ends, if it is ours."""
        async with self._database.transaction() as tx:
            await tx.execute(
                "UPDATE retentiond.legal_hold_walks SET owner = NULL, lease_until = NULL"
                " WHERE place = $1 AND head = $2 AND owner = $3",
                self._place,
                self._head,
                self._owner,
            )

    async def _change(self, statement: str, versions: Collection[Version]) -> None:
        async with self._database.transaction() as tx:
            await self._require_lease(tx)
            where = "place = $1 AND (key, version) IN (SELECT * FROM unnest($2::bytea[], $3::text[]))"
            await tx.execute(f"{statement} WHERE {where}", self._place, *_columns(versions))

    async def _require_lease(self, tx: Tx) -> None:
        mine = await tx.fetchval(
            "SELECT owner = $3 AND lease_until > pg_catalog.clock_timestamp() FROM retentiond.legal_hold_walks"
            " WHERE place = $1 AND head = $2 FOR UPDATE",
            self._place,
            self._head,
            self._owner,
        )
        if not mine:
            raise Fenced("another process writes the legal holds of this bucket")


_AGE = "EXTRACT(epoch FROM pg_catalog.clock_timestamp() - {})::float8"
_HERE = "place = $1 AND substring(key FROM 1 FOR octet_length($2::bytea)) = $2"


def _columns(versions: Collection[Version]) -> tuple[list[bytes], list[str]]:
    return [key for key, _ in versions], [version for _, version in versions]
