"""A window made definite: where it ends, which accounts it is of, and what the directory says of them.

Found once a batch, before the statements that judge and destroy: they all are about the same piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retentiond.domain.plan import TargetPlan
from retentiond.stores.base import Window
from retentiond.stores.postgres import walks
from retentiond.stores.postgres.catalog import quote
from retentiond.stores.postgres.connection import Connection
from retentiond.stores.postgres.directory import Directory
from retentiond.stores.postgres.shape import Context, Params, Shape
from retentiond.stores.postgres.walks import Walk

_CHUNK = 50


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the directory beside its rows: accounts whose tier changed of late, when it was surveyed."""

    directory: Directory | None = None
    recent: frozenset[str] = frozenset()
    surveyed: int | None = None


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
    connection: Connection, shape: Shape, known: Known, plan: TargetPlan, window: Window
) -> Piece | None:
    """The piece that the window is; None where nothing is left of the walk."""
    accounts, more = await _accounts(connection, shape, known, plan, window)
    if accounts == ():
        return None
    until = await _end(connection, shape, plan, window, accounts or ())
    after = until if until is not None else (more,) if more is not None else None
    piece = Piece(shape, plan, window, accounts or (), until, after, Context())
    return await _with_context(connection, piece, known)


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


async def _with_context(connection: Connection, piece: Piece, known: Known) -> Piece:
    shape, plan = piece.shape, piece.plan
    context = Context(tuple(known.recent), await _age(connection, shape, known))
    if shape.directory is None and known.directory is not None and shape.account is not None:
        params = Params()
        walk = piece.walk(params)
        column = f"r.{quote(shape.account.name)}"
        sql = (
            f"SELECT DISTINCT {column}::text AS id FROM {shape.table.sql} r"
            f" WHERE {walk.condition} AND {column} IS NOT NULL"
        )
        asked = tuple(row["id"] for row in await connection.fetch(sql, *params.values))
        looked = await known.directory.look_up(asked, plan, known.recent)
        context = Context(tuple(known.recent), None, looked)
    return Piece(shape, plan, piece.window, piece.accounts, piece.until, piece.after, context)


async def _age(connection: Connection, shape: Shape, known: Known) -> int | None:
    """How many transactions ago the directory was surveyed, where its rows don't date their changes themselves."""
    if known.surveyed is None or shape.directory is None or shape.directory.changed_at is not None:
        return None
    latest: int = await connection.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint")
    return max(latest - known.surveyed, 0)


async def _accounts(
    connection: Connection, shape: Shape, known: Known, plan: TargetPlan, window: Window
) -> tuple[tuple[str, ...] | None, str | None]:
    """For the erasure walk, the next accounts due that have records here, and where to go on if there are more."""
    if window.walk != walks.ERASURE:
        return None, None
    after = window.after[0] if window.after else None
    inclusive = window.after is not None and len(window.after) > 1
    if shape.directory is None:
        found, more = await _foreign_accounts(connection, shape, known, plan, after, inclusive=inclusive)
    else:
        found, more = await _local_accounts(connection, shape, plan, after, inclusive=inclusive)
    return tuple(found), more


async def _local_accounts(
    connection: Connection, shape: Shape, plan: TargetPlan, after: str | None, *, inclusive: bool
) -> tuple[list[str], str | None]:
    source, account = shape.directory, shape.account
    assert source is not None and account is not None  # noqa: PT018 - `walks.names` saw to it
    if source.deleted_at is None:
        return [], None
    params = Params()
    edge = params.moment(walks.erasure_edge(plan))
    outside = walks.outside(shape, plan, params)
    sign = ">=" if inclusive else ">"
    start = f" AND d.{source.id} {sign} {params.add(after, 'text')}::{account.type}" if after else ""
    deleted = f"d.{source.deleted_at}::timestamptz"
    sql = (
        f"SELECT d.{source.id}::text AS id FROM {source.relation} d WHERE {deleted} < {edge}"
        f" AND isfinite({deleted}){start} AND EXISTS (SELECT 1 FROM {shape.table.sql} r"
        f" WHERE r.{quote(account.name)} = d.{source.id}{outside}) ORDER BY d.{source.id} LIMIT {_CHUNK}"
    )
    found = [row["id"] for row in await connection.fetch(sql, *params.values)]
    return found, found[-1] if len(found) == _CHUNK else None


async def _foreign_accounts(
    connection: Connection, shape: Shape, known: Known, plan: TargetPlan, after: str | None, *, inclusive: bool
) -> tuple[Sequence[str], str | None]:
    assert known.directory is not None and shape.account is not None  # noqa: PT018 - `walks.names` saw to it
    due = await known.directory.due(walks.erasure_edge(plan), after, inclusive=inclusive, limit=_CHUNK)
    column = shape.account
    sql = (
        f"SELECT DISTINCT r.{quote(column.name)}::text AS id FROM {shape.table.sql} r"
        f" WHERE r.{quote(column.name)} = ANY($1::text[]::{column.type}[])"
    )
    here = {row["id"] for row in await connection.fetch(sql, due)} if due else set()
    more = due[-1] if len(due) == _CHUNK else None
    found = [account for account in due if account in here]
    # An empty chunk in the middle is still a chunk: an account that has nothing here stands for it.
    return (found or due[-1:]) if more else found, more
