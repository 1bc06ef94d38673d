"""What a table is when its target is opened: the columns that enter the SQL, the change, the mark of its schema.

All that a store later goes by is read here, and given to it as one frozen value: other shards sweep by the store
meanwhile, and none of them may see half of it. Whatever makes the table unfit to be swept as configured is said here.
"""

from __future__ import annotations

from dataclasses import dataclass

from retentiond.errors import Blind
from retentiond.stores.accounts import AccountDirectory
from retentiond.stores.postgres.anonymise import Change, Rule, make_change
from retentiond.stores.postgres.catalog import Column, Table, fingerprint, read_table
from retentiond.stores.postgres.config import PostgresTarget
from retentiond.stores.postgres.connection import TargetDatabase
from retentiond.stores.postgres.directory import Directory
from retentiond.stores.postgres.equality import require_same
from retentiond.stores.postgres.extent import require_local
from retentiond.stores.postgres.paired import Pair, column_of
from retentiond.stores.postgres.shape import Shape

_ANCHORS = ("timestamptz", "timestamp", "date", "int2", "int4", "int8", "numeric", "float4", "float8")
_NUMBERS = _ANCHORS[3:]


@dataclass(frozen=True, slots=True)
class Opened:
    """A table as it was found: `mark` is of the schema that `shape` and `change` were made from."""

    shape: Shape
    change: Change | None
    directory: Directory | None
    mark: str


@dataclass(frozen=True, slots=True)
class Opening:
    """What a target is opened with; `secret` keys hashes of values, `pair` is given where rows own objects."""

    name: str
    config: PostgresTarget
    action: str
    secret: bytes
    database: TargetDatabase
    pair: Pair | None = None

    async def read(self, accounts: AccountDirectory | None) -> Opened:
        """Read the catalogues; raises Blind where the table can't be swept as configured, Unreachable."""
        if accounts is not None and not isinstance(accounts, Directory):
            raise Blind(f"target {self.name} is a table, whose account directory can only be in Postgres")
        table, version = await self._table()
        shape = await self._shape(table, accounts)
        change = self._change(table, version) if self.action == "anonymise" else None
        return Opened(shape, change, accounts, await self._mark(table, columns_of(shape, change)))

    async def _table(self) -> tuple[Table, int]:
        async with self.database.transaction() as connection:
            table = await read_table(connection, self.config.table, self._key)
            await require_local(connection, self.config.table)
            return table, await connection.fetchval("SELECT current_setting('server_version_num')::int")

    @property
    def _key(self) -> tuple[str, ...] | None:
        return tuple(self.config.key or ()) or None

    async def _shape(self, table: Table, directory: Directory | None) -> Shape:
        config = self.config
        anchor = self._anchor(table)
        local = directory is not None and await self._beside(directory) and await directory.joinable()
        account = table.column(config.account, f"targets.{self.name}.account") if config.account else None
        if account is not None and directory is not None:
            ids = await directory.equality()
            async with self.database.transaction() as connection:
                await require_same(connection, self.name, (table.sql, account.name), ids, joined=local)
        return Shape(
            table=table,
            anchor=anchor,
            account=account,
            tier=table.column(config.tier_column, f"targets.{self.name}.tier_column") if config.tier_column else None,
            timezone=config.timezone,
            unit=config.unit,
            directory=directory.source if directory is not None and local else None,
            pair=column_of(table, self.pair) if self.pair is not None and self.action != "anonymise" else None,
        )

    def _anchor(self, table: Table) -> Column:
        config = self.config
        anchor = table.column(config.anchor, f"targets.{self.name}.anchor")
        if anchor.base not in _ANCHORS:
            raise Blind(
                f"the anchor {config.anchor!r} of target {self.name} is of type {anchor.type}",
                remedy="use a timestamptz, timestamp, date, integer or numeric column",
            )
        if anchor.base in _NUMBERS and config.unit is None:
            raise Blind(
                f"the anchor {config.anchor!r} of target {self.name} is a number, and its unit is not given",
                remedy=f"set targets.{self.name}.unit to s, ms or us",
            )
        return anchor

    def _change(self, table: Table, version: int) -> Change:
        config = self.config
        return make_change(
            table,
            {name: Rule(rule.method, rule.value) for name, rule in config.rules().items()},
            marker=config.anonymise.marker if config.anonymise else None,
            account=config.account,
            verdict_columns={config.anchor, *([config.tier_column] if config.tier_column else [])},
            secret=self.secret,
            version=version,
        )

    async def _beside(self, directory: Directory) -> bool:
        """Whether the directory is in the table's own database."""
        if directory.dsn == self.config.dsn.get_secret_value():
            return True
        return await self.database.identity() == await directory.identity()

    async def _mark(self, table: Table, columns: set[str]) -> str:
        """What batches compare; the table is read once more, since the mark must be of what the shape was made from."""
        async with self.database.transaction() as connection:
            mark = await fingerprint(connection, table.oid, columns)
            again = await read_table(connection, self.config.table, self._key)
        if again != table:
            raise Blind(f"the schema of target {self.name} is being changed", remedy="the next sweep reads it anew")
        return mark


def columns_of(shape: Shape, change: Change | None) -> set[str]:
    """The columns that verdicts and changes rest on."""
    named = {column.name for column in (shape.anchor, shape.account, shape.tier, shape.pair) if column}
    changed = {column.name for column, _ in change.columns} if change else set()
    return {*shape.table.key, *named, *changed}
