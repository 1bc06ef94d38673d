"""A window made definite: where it ends, which accounts it is of, and what the directory says of them.

Found once a batch, before the statements that judge and destroy: they all are about the same piece.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from retentiond.domain.plan import TargetPlan
from retentiond.errors import Blind, Refused
from retentiond.stores.base import Window
from retentiond.stores.postgres import walks
from retentiond.stores.postgres.catalog import quote
from retentiond.stores.postgres.connection import Connection
from retentiond.stores.postgres.directory import Directory
from retentiond.stores.postgres.missing import directory_has, missing_rows
from retentiond.stores.postgres.shape import Context, Params, Shape
from retentiond.stores.postgres.walks import Walk

_CHUNK = 50


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a walk: `until` is its last position (None: the walk's end), `after` where the walk goes on."""

    shape: Shape
    plan: TargetPlan
    window: Window
    accounts: tuple[str, ...]
    until: tuple[str, ...] | None
    after: tuple[str, ...] | None
    context: Context

    def walk(self, params: Params) -> Walk:
        """The piece as a walk, its placeholders in `params`."""
        whole = walks.walk_of(self.shape, self.plan, params, self.window, self.accounts)
        return whole.until(self.until, params)


async def find_piece(
    connection: Connection, shape: Shape, directory: Directory | None, plan: TargetPlan, window: Window
) -> Piece | None:
    """The piece that the window is; None where nothing is left of the walk."""
    accounts, more = await _accounts(connection, shape, directory, plan, window)
    if accounts == ():
        return None
    until = window.end or await _end(connection, shape, plan, window, accounts or ())
    after = until if until is not None else (more,) if more is not None else None
    if after is not None and after == window.after:
        # Its text does not say the position in full: the walk would come back to it for ever.
        raise Blind(
            f"a walk over table {shape.table.schema}.{shape.table.name} ({window.walk}) does not get past a position",
            remedy="see the types of the key and the anchor: a value's text must give the same value again",
        )
    piece = Piece(shape, plan, window, accounts or (), until, after, Context())
    return await _with_context(connection, piece, directory)


async def is_empty(connection: Connection, piece: Piece) -> bool:
    """Whether no record of the piece is there any more; in the walk's order, so that its index answers."""
    params = Params()
    walk = piece.walk(params)
    order = f"r.{quote(walk.columns[0].name)}"
    sql = f"SELECT true FROM {piece.shape.table.sql} r WHERE {walk.condition} ORDER BY {order} LIMIT 1"
    return not await connection.fetchval(sql, *params.values)


async def measured(connection: Connection, shape: Shape, plan: TargetPlan, window: Window) -> Window:
    """A window of the terms with the position of its last record; another, or one at the walk's end, as it is."""
    if window.walk != walks.TERM:
        return window
    return replace(window, end=await _end(connection, shape, plan, window, ()))


async def _end(
    connection: Connection, shape: Shape, plan: TargetPlan, window: Window, accounts: Sequence[str]
) -> tuple[str, ...] | None:
    """The position of the window's last record; None where the walk ends with it."""
    params = Params()
    walk = walks.walk_of(shape, plan, params, window, accounts)
    if len(walk.columns) > 1 and window.walk == walks.TERM:
        two = await connection.fetch(walk.leading(params, window.size, shape.table.sql), *params.values)
        if len(two) < 2:
            return None
        if two[0]["first"] != two[1]["first"]:
            return (two[0]["first"],)
        params = Params()
        walk = walks.walk_of(shape, plan, params, window, accounts)
    end = await connection.fetchval(walk.position(params, window.size, shape.table.sql), *params.values)
    return None if end is None else tuple(end)


async def _with_context(connection: Connection, piece: Piece, directory: Directory | None) -> Piece:
    return replace(piece, context=await context_of(connection, piece.shape, directory, piece.plan, piece.walk))


async def context_of(
    connection: Connection,
    shape: Shape,
    directory: Directory | None,
    plan: TargetPlan,
    make: Callable[[Params], Walk],
    *,
    most: int | None = None,
) -> Context:
    """What the statements over a walk know of its accounts; with `most`, Refused where a directory elsewhere would have
    to be asked for more.
    """
    context = Context(tuple(plan.surveyed.recent), since_survey(shape, plan))
    if shape.directory is not None or directory is None or shape.account is None:
        return context
    params = Params()
    walk = make(params)
    column = f"r.{quote(shape.account.name)}"
    sql = (
        f"SELECT DISTINCT {column}::text AS id FROM {shape.table.sql} r WHERE {walk.condition} AND {column} IS NOT NULL"
    )
    asked = tuple(row["id"] for row in await connection.fetch(sql, *params.values))
    if most is not None and len(asked) > most:
        raise Refused(f"more than {most} accounts would have to be looked up at once")
    return replace(context, looked=await directory.look_up(asked, plan))


def since_survey(shape: Shape, plan: TargetPlan) -> str | None:
    """The number, as an xid, from which on transactions came after the survey; None where rows date their changes."""
    surveyed = plan.surveyed.transaction
    if surveyed is None or shape.directory is None or shape.directory.changed_at is not None:
        return None
    return str(surveyed % 2**32)


async def _accounts(
    connection: Connection, shape: Shape, directory: Directory | None, plan: TargetPlan, window: Window
) -> tuple[tuple[str, ...] | None, str | None]:
    """For the erasure walk, the next accounts due that have records here, and where to go on if there are more."""
    if window.walk != walks.ERASURE:
        return None, None
    after = window.after[0] if window.after else None
    inclusive = window.after is not None and len(window.after) > 1
    if shape.directory is not None:
        found, more = await _local_accounts(connection, shape, plan, after, inclusive=inclusive)
    elif inclusive and after is not None:
        # The order of texts may not be that of the column's type: what ended within an account goes on with it alone.
        found, more = [after], after
    else:
        assert directory is not None  # `walks.names` saw to it
        found, more = await _foreign_accounts(connection, shape, directory, plan, after, size=window.size)
    return tuple(found), more


async def _local_accounts(
    connection: Connection, shape: Shape, plan: TargetPlan, after: str | None, *, inclusive: bool
) -> tuple[list[str], str | None]:
    source, account = shape.directory, shape.account
    assert source is not None and account is not None  # noqa: PT018 - `walks.names` saw to it
    params = Params()
    relations = []
    if source.deleted_at is not None:
        deleted = f"d.{source.deleted_at}::timestamptz"
        edge = params.moment(walks.erasure_edge(plan))
        relations.append(
            f"SELECT d.{source.id} AS id FROM {source.relation} d WHERE {deleted} < {edge} AND isfinite({deleted})"
        )
    if plan.missing:
        lost = missing_rows(plan, account, params)
        relations.append(f"SELECT m.id FROM {lost} WHERE NOT {directory_has(source, 'm.id')}")
    if not relations:
        return [], None
    outside = walks.outside(shape, plan, params)
    start = f" AND d.id {'>=' if inclusive else '>'} {params.add(after, 'text')}::{account.type}" if after else ""
    sql = (
        f"SELECT d.id::text AS id FROM ({' UNION '.join(relations)}) d WHERE EXISTS (SELECT 1"
        f" FROM {shape.table.sql} r WHERE r.{quote(account.name)} = d.id{outside}){start}"
        f" ORDER BY d.id LIMIT {_CHUNK}"
    )
    found = [row["id"] for row in await connection.fetch(sql, *params.values)]
    return found, found[-1] if len(found) == _CHUNK else None


async def _foreign_accounts(
    connection: Connection, shape: Shape, directory: Directory, plan: TargetPlan, after: str | None, *, size: int
) -> tuple[list[str], str | None]:
    """Accounts whose records fit into one window, in the order of their texts: no window ends between two of them."""
    assert shape.account is not None
    due = await directory.due(walks.erasure_edge(plan), after, inclusive=False, limit=_CHUNK)
    due = sorted({*due, *(each.id for each in plan.missing if after is None or each.id > after)})[:_CHUNK]
    if not due:
        return [], None
    column = shape.account
    sql = (
        f"SELECT r.{quote(column.name)}::text AS id, count(*) AS records FROM {shape.table.sql} r"
        f" WHERE r.{quote(column.name)} = ANY($1::text[]::{column.type}[]) GROUP BY r.{quote(column.name)}"
    )
    here = {row["id"]: row["records"] for row in await connection.fetch(sql, due)}
    found: list[str] = []
    for account in due:
        if found and sum(here.get(each, 0) for each in (*found, account)) >= size:
            return found, found[-1]
        found.append(account)
    return found, due[-1] if len(due) == _CHUNK else None
