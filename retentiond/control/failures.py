"""What it means when asyncpg raises: which failures are "can't be reached", and which leave a COMMIT unknown.

One place, so that nobody above has to know asyncpg's exceptions. Anything not listed is a bug of ours and passes as
it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from retentiond.errors import RetentiondError, StateMissing, Unreachable, quoted


class CommitUnknown(Unreachable):
    """The connection was lost during COMMIT: whether it took effect has to be looked up."""


DRIVER_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""All that asyncpg raises of its own."""

_REMEDY = "see that Postgres runs, that control.dsn names it, and that the network lets us through"
_MISSING = "let control.dsn name the running daemon's database; `retentiond run` makes the state"

# SQLSTATEs after which the connection is gone, or was never made.
_LOST_CLASSES = ("08",)
_LOST_STATES = frozenset({"57P01", "57P02", "57P03", "57P05", "25P03", "25P04", "53300"})

# SQLSTATEs that say "not now": the transaction is rolled back, the connection lives.
_BUSY_STATES = frozenset({"57014", "55P03", "40P01", "40001", "53100", "53200", "25006", "55000"})

# SQLSTATEs of a login or a right that is refused.
_REFUSED_STATES = frozenset({"28000", "28P01", "3D000", "42501"})

# SQLSTATEs of a table or schema of ours that is not there.
_MISSING_STATES = frozenset({"42P01", "3F000"})

_EXPECTED_STATES = _BUSY_STATES | _REFUSED_STATES | _MISSING_STATES


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone, so that the answer can't be known from it any more."""
    # InternalClientError: the server's last word and our next query crossed on the way, and asyncpg is out of step.
    if isinstance(error, OSError | TimeoutError | asyncpg.InternalClientError | asyncpg.ConnectionDoesNotExistError):
        return True
    if isinstance(error, asyncpg.PostgresError):
        state = str(error.sqlstate or "")
        return state in _LOST_STATES or state.startswith(_LOST_CLASSES)
    # asyncpg has one InterfaceError for a closed connection and for a wrong call; only its text tells them apart.
    return isinstance(error, asyncpg.InterfaceError) and ("closed" in str(error) or "released" in str(error))


def unreachable(error: BaseException) -> Unreachable:
    """The error that callers see instead of asyncpg's."""
    text = quoted(error)
    state = str(getattr(error, "sqlstate", None) or "")
    if state in _BUSY_STATES:
        return Unreachable(f"the control database could not do it now: {text}", remedy="it is safe to try again")
    if state in _REFUSED_STATES:
        return Unreachable(f"the control database refuses: {text}", remedy="see control.dsn and the grants of its role")
    if state in _MISSING_STATES:
        return StateMissing(f"the control database lacks a part of its state: {text}", remedy=_MISSING)
    return Unreachable(f"the control database can't be reached: {text}", remedy=_REMEDY)


def commit_failure(error: Exception, *, lost: bool) -> Exception:
    """What to raise when COMMIT itself failed: unknown if the connection went, else known not to have happened."""
    if isinstance(error, RetentiondError):
        return error
    if lost or is_lost(error):
        return CommitUnknown(f"the connection was lost during COMMIT: {quoted(error)}", remedy=_REMEDY)
    return unreachable(error) if is_expected(error) else error


@contextmanager
def reaching() -> Iterator[None]:
    """Turn what asyncpg raises for a lost, busy or refusing server into Unreachable; let bugs through."""
    try:
        yield
    except RetentiondError:
        raise
    except (OSError, *DRIVER_ERRORS) as error:
        if not is_expected(error):
            raise
        raise unreachable(error) from error


def is_expected(error: BaseException) -> bool:
    """Whether this is a lost, busy or refusing server, and not a mistake of ours."""
    return is_lost(error) or str(getattr(error, "sqlstate", None) or "") in _EXPECTED_STATES
