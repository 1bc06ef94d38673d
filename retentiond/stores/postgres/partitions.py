"""The partitions of a Postgres target, as `stores.base.Partitions` has them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from retentiond.domain.plan import TargetPlan
from retentiond.errors import Refused
from retentiond.stores.base import Finding, Part, PartState
from retentiond.stores.postgres import detach
from retentiond.stores.postgres.config import PostgresTarget
from retentiond.stores.postgres.connection import Connection, TargetDatabase
from retentiond.stores.postgres.parts import HELD, old_parts, read_parted, read_parts
from retentiond.stores.postgres.proof import prove, settled_by_accounts
from retentiond.stores.postgres.shape import Shape

if TYPE_CHECKING:
    from retentiond.stores.postgres.store import PostgresStore

# A batch's time is to be short, since whoever places a hold waits for it, and detached records are out of sight.
_MOST_PARTS, _MOST_RECORDS = 10, 2_500_000
_SAMPLE = 1_000
_LOOK_MS = 10_000


class PostgresPartitions:
    """The partitions of one table; see `stores.base.Partitions`."""

    def __init__(self, store: PostgresStore, database: TargetDatabase) -> None:
        self._store, self._database = store, database
        self._declined: set[int] = set()
        self._doubted: set[int] = set()

    @property
    def wanted(self) -> bool:
        """Whether the configuration lets whole ones go: only what is deleted, for what is dropped is read by nobody."""
        return self._store.config.partitions == "drop" and self._store.action == "delete"

    async def due(self, plan: Callable[[], TargetPlan]) -> AsyncIterator[tuple[Part, ...]]:
        """Partitions before the plan's horizon in which all is due, as it looks without a lock."""
        for group in _grouped(await self._likely(plan())):
            try:
                found = await self._looked(plan(), group)
            except Refused:
                continue  # it takes too long, or others are at them: they go by rows
            if found:
                yield found

    async def _looked(self, plan: TargetPlan, group: list[Part]) -> tuple[Part, ...]:
        """Those of the group in which all is due, their records counted where they had to be read."""
        shape, directory = self._store.shape, self._store.directory
        async with self._database.transaction(statement_ms=_LOOK_MS) as connection:
            trusted = [part for part in group if part.number not in self._doubted]
            settled = await settled_by_accounts(connection, shape, plan, trusted)
            read = [part for part in group if part.number not in settled]
            proved = await prove(connection, shape, directory, plan, read)
        whole = {part.number: proved[part.number].records for part in read if proved[part.number].whole}
        return tuple(
            replace(part, records=whole.get(part.number, part.records))
            for part in group
            if part.number in settled or part.number in whole
        )

    async def _likely(self, plan: TargetPlan) -> list[Part]:
        """Of the partitions before the horizon those of which a sample is due: that settles nearly all others."""
        shape = self._store.shape
        if not self.wanted or plan.counts_from_deletion or not shape.table.partitioned or plan.action != "delete":
            return []
        async with self._database.transaction(statement_ms=_LOOK_MS) as connection:
            if not (await read_parted(connection, shape)).droppable:
                return []
            found = await old_parts(connection, shape, plan)
            old = [each.part for each in found if each.obstacle is None and each.part.number not in self._declined]
            sample = await prove(connection, shape, self._store.directory, plan, old, most=_SAMPLE)
            return [part for part in old if sample[part.number].whole]

    def decline(self, parts: Sequence[Part]) -> None:
        """They go by rows as long as this process lives."""
        self._declined.update(part.number for part in parts)

    def doubt(self, parts: Sequence[Part]) -> None:
        """Their accounts told too little: they are read before they are offered again."""
        self._doubted.update(part.number for part in parts)

    async def detaches(self) -> bool:
        """PostgreSQL detaches concurrently only where there is no default partition."""
        async with self._database.transaction() as connection:
            return not (await read_parted(connection, self._store.shape)).has_default

    async def states(self, parts: Sequence[Part]) -> Mapping[int, PartState]:
        """How these stand now."""
        found = dict.fromkeys((part.number for part in parts), PartState.GONE)
        async with self._database.transaction() as connection:
            for each in await read_parts(connection, self._store.shape, found):
                found[each.part.number] = each.state
        return found

    async def detach(self, part: Part) -> PartState:
        """Take it off its table."""
        return await detach.detach(self._dsn, self._store.shape, part, f"target {self._store.name}")

    async def attach(self, part: Part) -> PartState:
        """Bring it back."""
        what = f"target {self._store.name}"
        return await detach.attach(
            self._dsn, lambda: self._database.transaction(read_only=False), self._store.shape, part, what
        )

    @property
    def _dsn(self) -> str:
        return self._store.config.dsn.get_secret_value()


def _grouped(parts: Sequence[Part]) -> list[list[Part]]:
    """In their order, so that each group is about as much as a batch should have."""
    groups: list[list[Part]] = []
    records = 0
    for part in parts:
        if not groups or len(groups[-1]) == _MOST_PARTS or records + part.records > _MOST_RECORDS:
            groups.append([])
            records = 0
        groups[-1].append(part)
        records += part.records
    return groups


async def findings(
    connection: Connection, config: PostgresTarget, name: str, shape: Shape, action: str
) -> list[Finding]:
    """Why partitions that are by the anchor go by rows all the same, if not by the configuration."""
    if action != "delete" or not shape.table.partitioned:
        return []
    parted = await read_parted(connection, shape)
    if not parted.by_anchor or shape.table.children:
        return []  # of foreign keys other findings tell
    table = f"{shape.table.schema}.{shape.table.name}"
    slow = f"expired partitions of {table} are erased by rows and not dropped"
    wanted = config.partitions == "drop"
    if parted.obstacle is not None and wanted:
        return [Finding("info", name, f"{slow}: {parted.obstacle}", _shown(shape.table.sql))]
    reasons: dict[str, list[str]] = {}
    pending = []
    for each in await read_parts(connection, shape):
        if each.obstacle is not None and wanted:
            reasons.setdefault(each.obstacle, []).append(each.part.name)
        if each.state is PartState.PENDING:
            pending.append(each.part.name)
    return [_by_rows(name, slow, why, names) for why, names in sorted(reasons.items())] + [
        Finding(
            "warning",
            name,
            f"partition {part} of {table} is half detached: its records are in no query, and no other can be detached",
            f"ALTER TABLE {shape.table.sql} DETACH PARTITION {part} FINALIZE;",
        )
        for part in pending
    ]


def _by_rows(name: str, slow: str, why: str, parts: Sequence[str]) -> Finding:
    more = f" and {len(parts) - 1} more" if len(parts) > 1 else ""
    remedy = "nothing to do: they are dropped again when no hold covers the table" if why == HELD else _shown(parts[0])
    return Finding("info", name, f"{slow}: {parts[0]}{more}: {why}", remedy)


def _shown(table: str) -> str:
    """SQL that shows what may stand in the way; nothing has to be done: by rows it is only slower."""
    literal = table.replace("'", "''")
    return (
        "SELECT relowner::regrole, relrowsecurity, relhasrules, relhastriggers FROM pg_class"
        f" WHERE oid = '{literal}'::regclass;"
    )
