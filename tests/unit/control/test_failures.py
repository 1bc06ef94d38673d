"""Which failures of the driver mean "can't be reached", which leave a commit unknown, and which are bugs."""

from __future__ import annotations

import asyncpg
import pytest

from retentiond.control.failures import CommitUnknown, commit_failure, is_lost, reaching, unreachable
from retentiond.errors import Fenced, StateMissing, Unreachable


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("reset"),
        TimeoutError(),
        asyncpg.ConnectionDoesNotExistError("gone"),
        asyncpg.AdminShutdownError("shutting down"),
        asyncpg.IdleInTransactionSessionTimeoutError("idle"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.InternalClientError("cannot switch to state 12"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_lost_connection_is_unreachable_and_leaves_a_commit_unknown(error):
    assert is_lost(error)
    with pytest.raises(Unreachable), reaching():
        raise error
    assert isinstance(commit_failure(error, lost=False), CommitUnknown)


@pytest.mark.parametrize(
    "error",
    [
        asyncpg.QueryCanceledError("timeout"),
        asyncpg.LockNotAvailableError("lock"),
        asyncpg.DeadlockDetectedError("deadlock"),
        asyncpg.DiskFullError("full"),
        asyncpg.ReadOnlySQLTransactionError("standby"),
        asyncpg.InvalidPasswordError("no"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_busy_or_refusing_server_is_unreachable_but_a_commit_is_known_not_to_have_happened(error):
    assert not is_lost(error)
    found = commit_failure(error, lost=False)
    assert isinstance(found, Unreachable)
    assert not isinstance(found, CommitUnknown)
    assert found.remedy


def test_a_table_that_is_not_there_means_that_the_state_is_missing():
    assert isinstance(unreachable(asyncpg.UndefinedTableError("retentiond.holds")), StateMissing)


@pytest.mark.parametrize("error", [asyncpg.UniqueViolationError("twice"), asyncpg.InterfaceError("wrong arguments")])
def test_a_mistake_of_ours_passes_as_it_is(error):
    with pytest.raises(type(error)), reaching():
        raise error
    assert commit_failure(error, lost=False) is error


def test_our_own_errors_pass_as_they_are():
    with pytest.raises(Fenced), reaching():
        raise Fenced
    error = Fenced()
    assert commit_failure(error, lost=True) is error


def test_a_commit_is_unknown_when_the_connection_went_whatever_was_raised():
    assert isinstance(commit_failure(asyncpg.UniqueViolationError("twice"), lost=True), CommitUnknown)
