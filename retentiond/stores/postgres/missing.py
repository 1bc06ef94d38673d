"""Which accounts of a table the directory no longer has, and which of them are due for erasure (`accounts.missing`).

Our memory has hashes of ids only, so the way leads from the records: the table's distinct accounts are walked in their
order, those that the directory has are left out, and the rest are hashed and looked up in what the survey remembers.
An account that the memory never saw stays unknown. The walk costs a step for each account and not for each record
where an index leads with the account; it is done once a sweep, and only where some account is missing for long enough.

What is found goes with the plan as rows that the statements take for the directory's, each as long as the directory
lacks the account at that moment: one that has come back since then is judged by what the directory says of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection

from retentiond.domain.accounts import MissingAccount
from retentiond.domain.plan import TargetPlan
from retentiond.stores.postgres.catalog import Column, quote
from retentiond.stores.postgres.connection import TargetDatabase
from retentiond.stores.postgres.shape import DirectorySource, Params, Shape
from retentiond.stores.postgres.walks import erasure_edge

Lacking = Callable[[Collection[str]], Awaitable[set[str]]]
"""Asks a directory of another database which of these accounts it does not have."""

_CHUNK = 5_000


async def due_missing(
    database: TargetDatabase, shape: Shape, plan: TargetPlan, lacking: Lacking
) -> tuple[MissingAccount, ...]:
    """The accounts of the table's records that are missing for so long that records may be due; raises Unreachable."""
    edge = erasure_edge(plan)
    if shape.account is None or not any(since < edge for since in plan.surveyed.missing.values()):
        return ()
    found: list[MissingAccount] = []
    async for accounts in _absent(database, shape, shape.account, lacking):
        for account in accounts:
            since = plan.surveyed.missing_since(account)
            if since is not None and since < edge:
                found.append(MissingAccount(account, since))
    return tuple(found)


async def _absent(
    database: TargetDatabase, shape: Shape, account: Column, lacking: Lacking
) -> AsyncIterator[list[str]]:
    """The table's accounts that the directory lacks, as texts, in chunks; a short transaction for each."""
    after: str | None = None
    while True:
        params = Params()
        here = directory_has(shape.directory, "w.account") if shape.directory is not None else "NULL::boolean"
        sql = (
            f"SELECT w.account::text AS id, {here} AS here FROM ({_distinct(shape, account, params, after)}) w"
            " ORDER BY w.account"
        )
        async with database.transaction() as connection:
            rows = await connection.fetch(sql, *params.values)
        ids = [row["id"] for row in rows]
        if shape.directory is not None:
            yield [row["id"] for row in rows if not row["here"]]
        else:
            absent = await lacking(ids)
            yield [each for each in ids if each in absent]
        if len(ids) < _CHUNK:
            return
        after = ids[-1]


def directory_has(source: DirectorySource, account: str) -> str:
    """Whether the directory has the account, compared as the columns' own types do."""
    return f"EXISTS (SELECT 1 FROM {source.relation} d WHERE d.{source.id} = {account})"


def missing_rows(plan: TargetPlan, account: Column, params: Params) -> str:
    """The plan's missing accounts as the relation `m` (id, since), in the type of the records' account."""
    ids = params.add([each.id for each in plan.missing], "text[]")
    since = params.add([each.since for each in plan.missing], "timestamptz[]")
    return f"unnest({ids}::{account.type}[], {since}) m (id, since)"


def _distinct(shape: Shape, account: Column, params: Params, after: str | None) -> str:
    """The next distinct accounts of the table, in their order."""
    column = f"r.{quote(account.name)}"
    start = f"{column} > {params.add(after, 'text')}::{account.type}" if after is not None else f"{column} IS NOT NULL"
    table = shape.table.sql
    if account.name not in shape.table.leading:
        return f"SELECT DISTINCT {column} AS account FROM {table} r WHERE {start} ORDER BY 1 LIMIT {_CHUNK}"
    # A loose index scan: from each account straight to the next one.
    step = f"(SELECT {column} FROM {table} r WHERE {column} > w.account ORDER BY 1 LIMIT 1)"
    return (
        f"WITH RECURSIVE w (account) AS ((SELECT {column} FROM {table} r WHERE {start} ORDER BY 1 LIMIT 1)"
        f" UNION ALL SELECT {step} FROM w WHERE w.account IS NOT NULL)"
        f" SELECT account FROM w WHERE account IS NOT NULL LIMIT {_CHUNK}"
    )
