"""Every error that retentiond raises on purpose, and the exit code each ends a command with.

An error says what is wrong, where, and how to mend it: the message holds the first two, `remedy` the third.
The class docstring is the default message. Exit codes are those of `retentiond --help`: 1 findings or a failed
sweep, 2 usage or configuration, 3 refused by a guard, 4 something needed can't be reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

# SQLSTATE classes whose message speaks of the server, the session or names in a schema, and never of a row's values:
# connection, transaction state, login, catalogue and schema names, rollback, syntax and rights, resources, limits,
# state, intervention, system, and RH, with which our native holds refuse. Not 22 (data), 23 (constraints), P0 (whatever
# a trigger says).
_SPEAKS_OF_NO_VALUES = frozenset({"08", "25", "28", "3D", "3F", "40", "42", "53", "54", "55", "57", "58", "RH"})


class RetentiondError(Exception):
    """Something went wrong."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str | None = None, *, remedy: str | None = None) -> None:
        self.message = message or (type(self).__doc__ or "").strip()
        self.remedy = remedy
        super().__init__(self.message)

    @property
    def kind(self) -> str:
        """The error's name as metrics, logs and JSON show it: `EpochMoved` is `epoch_moved`."""
        return _kind_of(type(self))


@dataclass(frozen=True, slots=True)
class Problem:
    """One fault of the configuration: `key` (dotted), where the value came from, what is wrong, how to mend it."""

    key: str
    message: str
    remedy: str
    source: str = ""


class ConfigurationError(RetentiondError):
    """The configuration can't be used."""

    exit_code = 2

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        super().__init__("; ".join(f"{p.key}: {p.message}" for p in problems) or None)


class DurationError(RetentiondError, ValueError):
    """Not an ISO 8601 duration."""

    exit_code = 2

    def __init__(self, text: str, position: int, message: str) -> None:
        self.text, self.position = text, position
        super().__init__(
            f"{text!r}: {message} (at position {position})",
            remedy="write an ISO 8601 duration such as P90D, P7Y, P1Y6M10D, PT36H or P2W, or `forever`",
        )


class UsageError(RetentiondError):
    """The request can't be carried out as it was given."""

    exit_code = 2


class NotFound(UsageError):
    """There is no such thing."""


class Otherwise(UsageError):
    """What is asked for does not fit how things stand now."""


class InvalidScope(UsageError):
    """The hold's scope can't be used."""


class Guarded(RetentiondError):
    """A guard refuses to let this go on without an approval."""

    exit_code = 3

    def __init__(self, guard: str, message: str, *, remedy: str | None = None) -> None:
        self.guard = guard
        super().__init__(message, remedy=remedy)


class Unreachable(RetentiondError):
    """Something that this needs can't be reached."""

    exit_code = 4


class StateMissing(Unreachable):
    """There is no control state yet."""


class NoState(StateMissing):
    """There is nothing of ours at all where the control state should be."""


class StillPending(Unreachable):
    """The hold is placed but not active yet."""


class NotArchived(Unreachable):
    """The archive can't be written, or does not have what was written; nothing was deleted."""


class Blind(RetentiondError):
    """The target can't be judged, so nothing in it is erased."""


class Refused(RetentiondError):
    """The target's database refused a statement."""


class Late(Refused):
    """The target's database did not answer in time."""


class Locked(Refused):
    """The application holds locks on records that are due."""


class Conflict(RetentiondError):
    """Other transactions are in the way of a quick batch, which has done nothing; a careful one gets past them."""


class Hostile(Refused):
    """A statement failed on a value in the data."""


class Unexpected(RetentiondError):
    """An error that nobody foresaw: a mistake of retentiond's own."""

    @classmethod
    def of(cls, error: BaseException) -> Unexpected:
        """That error, without what it may say of records."""
        return cls(
            f"unexpected: {quoted(error)}",
            remedy="it is tried again; if it stays, report it with the traceback in the log",
        )


class Fenced(RetentiondError):
    """The lease of this unit has gone to another worker, or is over."""


class Busy(RetentiondError):
    """Another worker is still at it; it is waited for."""


class EpochMoved(RetentiondError):
    """A hold was placed, released or reinstated since the holds were last read."""


class Paused(RetentiondError):
    """Erasing is paused."""


class Unattended(RetentiondError):
    """What is due is begun by nobody."""


class Strained(RetentiondError):
    """The target's server has too much to do for a sweep."""


class PlanMode(RetentiondError):
    """The mode is `plan`: nothing is ever erased."""


class PolicySuperseded(RetentiondError):
    """Another policy digest is in force now."""

    exit_code = 3


class LedgerError(RetentiondError):
    """The ledger can't be written or does not hold together."""


def kinds() -> tuple[str, ...]:
    """The kinds of all errors of ours that have been imported, and of defects: what `errors_total{kind}` can be."""
    return tuple(sorted({_kind_of(each) for each in _below(RetentiondError)}))


def quoted(error: BaseException) -> str:
    """What an error that is not ours says, for messages and logs, without any value of a record.

    Postgres puts values into DETAIL and into some messages ("Key (id)=(4711)", "invalid input syntax … 4711"), a driver
    into others; of those only the name, the SQLSTATE and the names in the schema are told.
    """
    name = type(error).__name__
    state = getattr(error, "sqlstate", None)
    if state:
        if str(state)[:2] in _SPEAKS_OF_NO_VALUES:
            return str(error.args[0]).partition("\n")[0] if error.args else name
        where = [
            f"{part} {value}"
            for part in ("schema", "table", "column", "constraint")
            if (value := getattr(error, f"{part}_name", None))
        ]
        return " ".join([name, f"(SQLSTATE {state})", *where])
    of_driver = type(error).__module__.startswith("asyncpg") and not isinstance(error, ValueError)
    if isinstance(error, (RetentiondError, OSError)) or of_driver:
        return str(error) or name
    return name


def _kind_of(error: type[RetentiondError]) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() and i else c.lower() for i, c in enumerate(error.__name__))


def _below(error: type[RetentiondError]) -> Iterator[type[RetentiondError]]:
    yield error
    for each in error.__subclasses__():
        yield from _below(each)
