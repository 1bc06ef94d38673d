"""What our messages say of errors that are not ours."""

import asyncpg

from retentiond.errors import Blind, EpochMoved, kinds, quoted


def postgres(cls, message, **fields):
    error = cls(message)
    for name, value in fields.items():
        setattr(error, name, value)
    return error


def test_a_constraint_is_named_and_the_values_that_broke_it_are_not():
    error = postgres(
        asyncpg.UniqueViolationError,
        'duplicate key value violates unique constraint "people_pkey"',
        detail="Key (id)=(4711) already exists.",
        table_name="people",
        constraint_name="people_pkey",
    )
    assert "4711" in str(error)
    assert quoted(error) == "UniqueViolationError (SQLSTATE 23505) table people constraint people_pkey"


def test_a_value_in_the_message_itself_is_left_out():
    for cls in (asyncpg.InvalidTextRepresentationError, asyncpg.RaiseError, asyncpg.CheckViolationError):
        assert "4711" not in quoted(postgres(cls, 'invalid input syntax for type uuid: "4711"'))
    assert "4711" not in quoted(asyncpg.DataError("invalid input for query argument $1: '4711'"))
    assert quoted(KeyError("4711")) == "KeyError"
    assert quoted(RuntimeError("account 4711")) == "RuntimeError"


def test_what_speaks_of_the_server_or_the_schema_is_told_without_its_detail():
    error = postgres(asyncpg.UndefinedColumnError, 'column "at" does not exist', detail="Key (id)=(4711)", hint="x")
    assert quoted(error) == 'column "at" does not exist'
    assert quoted(asyncpg.InterfaceError("connection is closed")) == "connection is closed"
    assert "refused" in quoted(ConnectionRefusedError(111, "Connection refused"))
    assert quoted(TimeoutError()) == "TimeoutError"
    assert quoted(Blind("the table is gone")) == "the table is gone"


def test_kinds_are_those_of_every_error_of_ours_and_of_defects():
    assert {"blind", "guarded", "unreachable", "ledger_error", "epoch_moved", "unexpected"} <= set(kinds())
    assert EpochMoved().kind in kinds()
    assert len(set(kinds())) == len(kinds())
