"""The account directory, a Postgres table or query: surveyed as a whole, or asked about one account.

In the target's own database it is joined by the statements that judge and delete, so a tier raised a moment ago counts.
A directory elsewhere is asked about the accounts of each window; so is one here that neither dates its tier changes nor
has rows that carry their transaction (a query, a view), since a change after the survey would not be seen in a join.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from datetime import datetime
from typing import TYPE_CHECKING

from retentiond.domain.accounts import AccountFacts
from retentiond.domain.plan import Group, TargetPlan
from retentiond.errors import Blind
from retentiond.stores.accounts import Rules
from retentiond.stores.base import AccountRow, Finding, Known
from retentiond.stores.postgres import inspect_directory, typed
from retentiond.stores.postgres.catalog import quote
from retentiond.stores.postgres.config import AccountsConfig, parse_table
from retentiond.stores.postgres.connection import Connection, TargetDatabase
from retentiond.stores.postgres.equality import Equality, of_column, of_query
from retentiond.stores.postgres.pools import Pools
from retentiond.stores.postgres.shape import DirectorySource, Looked, Params, canonical
from retentiond.stores.postgres.terms import override_expression

if TYPE_CHECKING:
    import asyncpg

_CHUNK = 5_000
_CONNECTIONS = 8
_EARLIEST, _LATEST = "'0001-01-02+00'::timestamptz", "'9999-12-30+00'::timestamptz"


class Directory:
    """The account directory of the configuration."""

    def __init__(self, config: AccountsConfig) -> None:
        self.config = config
        self.dsn = config.dsn.get_secret_value()
        # Connections of its own: one that is slow must not have those of the targets beside it.
        self._database = TargetDatabase(self.dsn, what="account directory", pools=Pools(_CONNECTIONS))

    @property
    def source(self) -> DirectorySource:
        """The directory as a relation for the statements of targets in the same database."""
        config = self.config
        if config.table:
            schema, name = parse_table(config.table)
            relation = f"{quote(schema)}.{quote(name)}" if schema else quote(name)
        else:
            relation = f"({config.query})"
        return DirectorySource(
            relation=relation,
            id=quote(config.id),
            tier=quote(config.tier),
            deleted_at=quote(config.deleted_at) if config.deleted_at else None,
            overrides=quote(config.overrides) if config.overrides else None,
            changed_at=quote(config.tier_changed_at) if config.tier_changed_at else None,
            has_xmin=config.table is not None,
        )

    @property
    def dates_changes(self) -> bool:
        """Whether it says itself when an account's tier last changed."""
        return self.config.tier_changed_at is not None

    async def joinable(self) -> bool:
        """Whether a statement that joins it sees every tier change that the last survey did not see."""
        if self.dates_changes:
            return True
        if self.config.table is None:
            return False
        async with self._database.transaction() as connection:
            kind = await connection.fetchval(
                "SELECT relkind::text FROM pg_class WHERE oid = to_regclass($1)", self.source.relation
            )
        return kind in ("r", "p")

    async def equality(self) -> Equality:
        """How its ids are told apart; raises Blind where it has no such column, Unreachable."""
        source, column = self.source, self.config.id
        async with self._database.transaction() as connection:
            if self.config.query is not None:
                return await of_query(connection, source.relation, column)
            found = await of_column(connection, source.relation, column)
        if found is None:
            raise Blind(
                f"the account directory has no column {column!r}, or this role may not see it",
                remedy="set accounts.table and accounts.id; see `retentiond check`",
            )
        return found

    async def close(self) -> None:
        """Give up all connections."""
        await self._database.close()

    async def reach(self) -> None:
        """See that it and its columns are there and may be read; raises Blind, Unreachable."""
        source = self.source
        columns = (source.id, source.tier, source.deleted_at, source.overrides, source.changed_at)
        shown = ", ".join(f"d.{column}" for column in columns if column)
        async with self._database.transaction() as connection:
            await connection.fetchval(f"SELECT count(*) FROM (SELECT {shown} FROM {source.relation} d LIMIT 0) found")

    async def check(self, rules: Rules) -> list[Finding]:
        """What is wrong or unwise about it; raises Blind where it can't be read at all, Unreachable."""
        async with self._database.transaction() as connection:
            return await inspect_directory.findings(connection, self.source, self.config, rules)

    async def survey_transaction(self) -> int:
        """The oldest transaction not over now: what it and later ones write is newer than a survey begun after this."""
        async with self._database.transaction() as connection:
            found: int = await connection.fetchval("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
            return found

    async def survey(self) -> AsyncIterator[list[AccountRow]]:
        """Every account, in chunks; raises Blind where an id stands twice or is null, Unreachable."""
        source = self.source
        deleted = f"d.{source.deleted_at}::timestamptz" if source.deleted_at else "NULL::timestamptz"
        overrides = f"d.{source.overrides}::jsonb::text" if source.overrides else "NULL::text"
        changed = f"d.{source.changed_at}::timestamptz" if source.changed_at else "NULL::timestamptz"
        sql = (
            f"SELECT d.{source.id}::text AS id, d.{source.tier}::text AS tier, {overrides} AS overrides,"
            f" CASE WHEN isfinite({deleted}) THEN {deleted} END AS deleted_at,"
            f" {_sayable(changed)} AS changed_at FROM {source.relation} d"
        )
        async with self._database.transaction() as connection:
            twice = await connection.fetchval(
                f"SELECT count(*) - count(DISTINCT d.{source.id}) FROM {source.relation} d"
            )
            if twice:
                raise Blind(
                    f"the account directory has {twice} accounts whose id is null or stands twice",
                    remedy="make accounts.table or accounts.query give each account once",
                )
            chunk: list[AccountRow] = []
            async for row in connection.cursor(sql, prefetch=_CHUNK):
                chunk.append(AccountRow(*row))
                if len(chunk) == _CHUNK:
                    yield chunk
                    chunk = []
            yield chunk

    async def groups(self, class_name: str) -> tuple[Group, ...]:
        """The distinct pairs of tier and override text of a class."""
        source, params = self.source, Params()
        override = override_expression(source, class_name, params)
        sql = f"SELECT d.{source.tier}::text AS tier, {override} AS override FROM {source.relation} d GROUP BY 1, 2"
        async with self._database.transaction() as connection:
            rows = await connection.fetch(sql, *params.values)
        return tuple(Group(row["tier"], row["override"]) for row in rows)

    async def facts(self, account: str, class_name: str, grace_cutoff: datetime | None) -> AccountFacts:
        """What the directory says of one account, by the text of its id."""
        async with self._database.transaction() as connection:
            return await read_facts(connection, self.source, account, class_name, grace_cutoff)

    async def known(self, class_name: str, ids: Collection[str]) -> Mapping[str, Known]:
        """What it says now of these accounts, compared in the type of its own ids; see `stores.base`."""
        source, params = self.source, Params()
        override = override_expression(source, class_name, params)
        deleted = f"d.{source.deleted_at}::timestamptz" if source.deleted_at else "NULL::timestamptz"
        changed = f"d.{source.changed_at}::timestamptz" if source.changed_at else "NULL::timestamptz"
        async with self._database.transaction() as connection:
            column = await typed.type_of(connection, source.relation, source.id)
            given = params.add(await typed.valid(connection, column.type, ids), "text[]")
            own = f"d.{source.id}"
            rows = await connection.fetch(
                f"SELECT g.given, {canonical(column, own)} AS id, {own}::text AS written, {override} AS override,"
                f" d.{source.tier}::text AS tier, {_sayable(changed)} AS changed_at,"
                f" CASE WHEN isfinite({deleted}) THEN {deleted} END AS deleted_at"
                f" FROM unnest({given}) AS g(given) JOIN {source.relation} d ON {own} = g.given::{column.type}",
                *params.values,
            )
        found = {row["given"]: _known(row) for row in rows}
        if len(found) < len(rows):
            raise Blind(
                "the account directory has an account whose id stands twice",
                remedy="make accounts.table or accounts.query give each account once",
            )
        return found

    async def canonical(self, ids: Collection[str]) -> Mapping[str, str]:
        """These ids in the canonical text of its own type; see `stores.base`."""
        async with self._database.transaction() as connection:
            column = await typed.type_of(connection, self.source.relation, self.source.id)
            given = await typed.valid(connection, column.type, ids)
            text = canonical(column, f"(g.given::{column.type})")
            rows = await connection.fetch(f"SELECT g.given, {text} AS text FROM unnest($1::text[]) AS g(given)", given)
        return {row["given"]: row["text"] for row in rows}

    async def identity(self) -> str:
        """What tells this database from every other; compared with a target's."""
        return await self._database.identity()

    async def due(self, edge: datetime, after: str | None, *, inclusive: bool, limit: int) -> list[str]:
        """The next accounts deleted before `edge`, in the order of their ids' text."""
        source = self.source
        if source.deleted_at is None:
            return []
        order = f'd.{source.id}::text COLLATE "C"'
        start = f" AND {order} {'>=' if inclusive else '>'} $2" if after is not None else " AND $2::text IS NULL"
        sql = (
            f"SELECT d.{source.id}::text AS id FROM {source.relation} d"
            f" WHERE isfinite(d.{source.deleted_at}::timestamptz) AND d.{source.deleted_at}::timestamptz < $1{start}"
            f" ORDER BY {order} LIMIT {limit}"
        )
        async with self._database.transaction() as connection:
            return [row["id"] for row in await connection.fetch(sql, edge, after)]

    async def lacking(self, accounts: Collection[str]) -> set[str]:
        """Which of these accounts, by their ids' text, it does not have now."""
        source = self.source
        sql = f"SELECT d.{source.id}::text AS id FROM {source.relation} d WHERE d.{source.id}::text = ANY($1::text[])"
        async with self._database.transaction() as connection:
            return set(accounts) - {row["id"] for row in await connection.fetch(sql, list(accounts))}

    async def look_up(self, asked: tuple[str, ...], plan: TargetPlan) -> Looked:
        """What the directory says now of these accounts, with what the plan's survey remembers of their tiers."""
        source, params = self.source, Params()
        override = override_expression(source, plan.data_class.name, params)
        deleted = f"d.{source.deleted_at}::timestamptz" if source.deleted_at else "NULL::timestamptz"
        grace = "false"
        if source.changed_at and plan.grace_cutoff is not None:
            grace = f"COALESCE(d.{source.changed_at}::timestamptz > {params.moment(plan.grace_cutoff)}, false)"
        sql = (
            f"SELECT d.{source.id}::text AS id, d.{source.tier}::text AS tier, {override} AS override,"
            f" {deleted} AS deleted_at, {grace} AS in_grace FROM {source.relation} d"
            f" WHERE d.{source.id}::text = ANY({params.add(list(asked), 'text[]')})"
        )
        async with self._database.transaction() as connection:
            rows = await connection.fetch(sql, *params.values)
        has_grace = plan.grace_cutoff is not None and plan.tier_source == "directory"
        remembered = plan.surveyed.in_grace
        return Looked(
            asked=asked,
            ids=tuple(row["id"] for row in rows),
            tiers=tuple(row["tier"] for row in rows),
            overrides=tuple(row["override"] for row in rows),
            deleted_at=tuple(row["deleted_at"] for row in rows),
            in_grace=tuple(has_grace and (row["in_grace"] or remembered(row["id"], row["tier"])) for row in rows),
        )


def _sayable(moment: str) -> str:
    """An instant that Python can say: a change of tier at infinity is later than any other."""
    return f"CASE WHEN {moment} IS NOT NULL THEN GREATEST(LEAST({moment}, {_LATEST}), {_EARLIEST}) END"


def _known(row: asyncpg.Record) -> Known:
    facts = AccountFacts(True, row["tier"], row["override"], row["deleted_at"])
    written = row["written"] if row["written"] != row["id"] else None
    return Known(row["id"], facts, written, row["changed_at"])


async def read_facts(
    connection: Connection, source: DirectorySource, account: str, class_name: str, grace: datetime | None
) -> AccountFacts:
    """What the directory says of one account."""
    params = Params()
    override = override_expression(source, class_name, params)
    deleted = f"d.{source.deleted_at}::timestamptz" if source.deleted_at else "NULL::timestamptz"
    changed = f"d.{source.changed_at}::timestamptz" if source.changed_at and grace else "NULL::timestamptz"
    sql = (
        f"SELECT d.{source.tier}::text AS tier, {override} AS override,"
        f" CASE WHEN isfinite({deleted}) THEN {deleted} END AS deleted_at,"
        f" COALESCE({changed} > {params.moment(grace)}, false) AS in_grace"
        f" FROM {source.relation} d WHERE d.{source.id}::text = {params.add(account, 'text')}"
    )
    row = await connection.fetchrow(sql, *params.values)
    if row is None:
        return AccountFacts()
    return AccountFacts(True, row["tier"], row["override"], row["deleted_at"], in_grace=row["in_grace"])
