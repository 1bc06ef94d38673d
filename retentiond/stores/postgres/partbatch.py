"""A batch that destroys whole partitions: the transaction in which they are proved and dropped (4-safety).

It is fenced and permitted as any batch. The partitions are locked against every writer, then each is proved to have
no record but such as are due (`proof`), with the holds of the permit. They are dropped by the last statement before
COMMIT, when the outcome is written: a partition that is still attached (where there is a default one it can't be
detached without a lock on the whole table) keeps that lock for no longer than the COMMIT takes.
"""

from __future__ import annotations

import asyncpg

from retentiond.domain.permit import Permit
from retentiond.errors import Blind, Locked, Refused, quoted
from retentiond.stores.base import Part, PartState, Tally, Window, earliest, latest
from retentiond.stores.postgres.batch import PostgresBatch
from retentiond.stores.postgres.connection import translated
from retentiond.stores.postgres.parts import Found, read_parted, read_parts
from retentiond.stores.postgres.proof import Proved, prove


class PartBatch(PostgresBatch):
    """As PostgresBatch; the window names partitions, and what is not due as a whole stays as it is."""

    _going: tuple[Part, ...] = ()

    async def erase(self, permit: Permit, window: Window, *, salt: str) -> Tally:  # noqa: ARG002 - see ADR 5
        """Lock and prove; `commit` drops. Raises Locked where others have them, and Blind as for rows."""
        if permit.number != self._number or permit.epoch != self._plan.epoch:
            raise Blind("the permit is not of this transaction and these holds")
        self._require_rights()
        await self._require_unchanged()
        bounds = {part.number: part.bounds for part in window.parts}
        locked = await self._locked(bounds)
        proved = await prove(
            self.connection, self._store.shape, self._store.directory, self._plan, locked, evidence=True
        )
        self._going = tuple(part for part in locked if proved[part.number].whole)
        return self._tally([(bounds[part.number], proved[part.number]) for part in self._going])

    async def _locked(self, bounds: dict[int, str]) -> list[Part]:
        """Those that may be dropped, locked: nobody writes to them or changes them until the end."""
        shape = self._store.shape
        attached = await self._attached_may_go()
        before = [each for each in await read_parts(self.connection, shape, bounds) if _may_go(each, attached=attached)]
        if not before:
            return []
        names = ", ".join(each.part.name for each in before)
        try:
            await self.connection.execute(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE")
        except asyncpg.LockNotAvailableError as error:
            raise Locked("a partition that is due is in use by other transactions") from error
        except asyncpg.UndefinedTableError as error:
            raise Locked("a partition that is due is being changed by another session") from error
        # Only now does nobody rename, detach or alter them any more.
        after = {each.part.number: each for each in await read_parts(self.connection, shape, bounds)}
        return [each.part for each in before if _same(each, after.get(each.part.number))]

    async def _attached_may_go(self) -> bool:
        """Whether one that is attached is dropped as it is: else it was to be detached, and another attached it."""
        parted = await read_parted(self.connection, self._store.shape)
        if not parted.droppable or self._store.config.partitions == "rows":
            raise Refused("partitions may not be dropped any more", remedy="run `retentiond check`")
        return parted.has_default

    def _tally(self, going: list[tuple[str, Proved]]) -> Tally:
        tiers: dict[str, int] = {}
        for _, each in going:
            for label, count in each.by_tier.items():
                tiers[label] = tiers.get(label, 0) + count
        records = sum(each.records for _, each in going)
        return Tally(
            scanned=records,
            selected=records,
            changed=records,
            bytes=sum(each.bytes for _, each in going),
            oldest=earliest(*(each.oldest for _, each in going)),
            newest=latest(*(each.newest for _, each in going)),
            by_tier=tiers,
            transaction=self.transaction_id,
            whole=tuple(bounds for bounds, _ in going),
        )

    async def commit(self) -> None:
        """Drop them and make it so; raises Locked and Refused where nothing was done, else as for rows."""
        if self._going:
            names = ", ".join(part.name for part in self._going)
            what = f"target {self._store.name}"
            with translated(what):
                try:
                    await self.connection.execute(f"DROP TABLE {names}")
                except asyncpg.LockNotAvailableError as error:
                    raise Locked("the table or a partition of it is in use by other transactions") from error
                except (asyncpg.InsufficientPrivilegeError, asyncpg.DependentObjectsStillExistError) as error:
                    raise Refused(f"{what}: {quoted(error)}", remedy="see what rests on the partition") from error
        await super().commit()


def _may_go(found: Found, *, attached: bool) -> bool:
    wanted = (PartState.DETACHED, PartState.ATTACHED) if attached else (PartState.DETACHED,)
    return found.obstacle is None and found.state in wanted


def _same(before: Found, after: Found | None) -> bool:
    return (
        after is not None
        and after.obstacle is None
        and (before.state, before.part.name) == (after.state, after.part.name)
    )
