"""The memory of the account directory: what each account's tier was, when it changed, since when it is missing.

It serves the guard against a damaged directory, the downgrade grace, and `accounts.missing` (2-semantics.md, "Tiers").
Accounts are keyed by a 16-byte HMAC that the caller makes, so no account id is stored. A survey of the whole directory
is compared as sets in the database, and then accepted in the same transaction; surveys are compared one after another.

Only a change of the tier is dated. An override that an account changes is its own wish and in force at once; whether
too many terms became shorter is the guard's question.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from retentiond.control.database import Tx
from retentiond.errors import Blind

if TYPE_CHECKING:
    import asyncpg

SurveyRow: TypeAlias = tuple[bytes, str | None, str | None, bool]
"""An account as the directory has it: hash, tier, overrides as canonical JSON text, whether it is deleted."""


class Changed(NamedTuple):
    """An account whose tier or overrides are not those that were remembered."""

    hash: bytes
    old_tier: str | None
    old_overrides: str | None
    new_tier: str | None
    new_overrides: str | None


@dataclass(frozen=True, slots=True)
class Differences:
    """What a survey found; an account is in at most one of `missing`, `deleted` (both newly so) and `changed`.

    `known` counts the accounts that were there before (not missing), `living` those of them that were not deleted,
    `seen` those of the survey, `new` those never seen. One that was said to be deleted is not `missing` when it goes:
    the directory's own row goes at last with a deletion, often by our own hand, and nothing falls due by it.
    """

    known: int
    living: int
    seen: int
    new: int
    missing: int
    deleted: int
    changed: list[Changed]


@dataclass(frozen=True, slots=True)
class Remembered:
    """An account as it was last seen; instants in UTC. `changed_at`: when its tier last changed."""

    tier: str | None
    overrides: str | None
    deleted: bool
    changed_at: datetime | None
    missing_since: datetime | None
    first_seen: datetime


async def compare(tx: Tx, survey: Iterable[SurveyRow]) -> Differences:
    """Load a survey of the whole directory and compare it with the memory, which stays as it is until `accept`.

    Raises Blind when the directory has an account twice: which of them counts can't be known.
    """
    # Against another survey at the same time: both would find the same accounts shortened, and need two approvals.
    await tx.execute(
        "LOCK TABLE retentiond.account_memory IN SHARE ROW EXCLUSIVE MODE; DROP TABLE IF EXISTS pg_temp._survey;"
        " CREATE TEMPORARY TABLE _survey (hash bytea, tier text, overrides text, deleted boolean) ON COMMIT DROP"
    )
    await tx.copy_records_to_table("_survey", records=survey, schema_name="pg_temp")
    await tx.execute("ANALYZE pg_temp._survey")
    counts = await tx.fetchrow(_COUNTS)
    if counts is None or counts["seen"] != counts["distinct"]:
        raise Blind(
            "the account directory gives an account more than once",
            remedy="let accounts.table or accounts.query give each account once",
        )
    changed = [Changed(*row) for row in await tx.fetch(_CHANGED)]
    return Differences(
        known=counts["known"],
        living=counts["living"],
        seen=counts["seen"],
        new=counts["new"],
        missing=counts["missing"],
        deleted=counts["deleted"],
        changed=changed,
    )


async def accept(tx: Tx, at: datetime) -> None:
    """Write the compared survey into the memory, in the same transaction; `at` (UTC) dates what changed."""
    await tx.execute(
        "INSERT INTO retentiond.account_memory AS m (hash, tier, overrides, deleted, first_seen)"
        " SELECT hash, tier, overrides, deleted, $1 FROM pg_temp._survey"
        " ON CONFLICT (hash) DO UPDATE SET tier = excluded.tier, overrides = excluded.overrides,"
        " deleted = excluded.deleted, missing_since = NULL, changed_at = CASE"
        " WHEN m.tier IS DISTINCT FROM excluded.tier THEN $1 ELSE m.changed_at END"
        " WHERE (m.tier, m.overrides, m.deleted) IS DISTINCT FROM (excluded.tier, excluded.overrides, excluded.deleted)"
        " OR m.missing_since IS NOT NULL",
        at,
    )
    await tx.execute(
        "UPDATE retentiond.account_memory m SET missing_since = $1 WHERE m.missing_since IS NULL"
        " AND NOT EXISTS (SELECT FROM pg_temp._survey s WHERE s.hash = m.hash)",
        at,
    )


async def changed_since(tx: Tx, instant: datetime) -> set[bytes]:
    """The accounts whose tier changed at that instant (UTC) or later."""
    rows = await tx.fetch("SELECT hash FROM retentiond.account_memory WHERE changed_at >= $1", instant)
    return {row["hash"] for row in rows}


async def remembered(tx: Tx, hashes: Collection[bytes]) -> dict[bytes, Remembered]:
    """What is remembered of these accounts; those never seen are left out."""
    rows = await tx.fetch(
        "SELECT hash, tier, overrides, deleted, changed_at, missing_since, first_seen FROM retentiond.account_memory"
        " WHERE hash = ANY($1::bytea[])",
        list(hashes),
    )
    return {row["hash"]: _remembered(row) for row in rows}


async def missing_since(tx: Tx, hashes: Collection[bytes] | None = None) -> dict[bytes, datetime]:
    """Since when (UTC) these accounts, or all, are missing from the directory; those that are there are left out."""
    rows = await tx.fetch(
        "SELECT hash, missing_since FROM retentiond.account_memory"
        " WHERE missing_since IS NOT NULL AND ($1::bytea[] IS NULL OR hash = ANY($1))",
        None if hashes is None else list(hashes),
    )
    return {row["hash"]: row["missing_since"] for row in rows}


_COUNTS = (
    "SELECT pg_catalog.count(m.hash) FILTER (WHERE m.missing_since IS NULL) AS known,"
    " pg_catalog.count(m.hash) FILTER (WHERE m.missing_since IS NULL AND NOT m.deleted) AS living,"
    " pg_catalog.count(s.hash) AS seen,"
    " (SELECT pg_catalog.count(DISTINCT hash) FROM pg_temp._survey) AS distinct,"
    " pg_catalog.count(*) FILTER (WHERE m.hash IS NULL) AS new,"
    " pg_catalog.count(*) FILTER (WHERE s.hash IS NULL AND m.missing_since IS NULL AND NOT m.deleted) AS missing,"
    " pg_catalog.count(*) FILTER (WHERE s.deleted AND NOT m.deleted) AS deleted"
    " FROM retentiond.account_memory m FULL JOIN pg_temp._survey s ON s.hash = m.hash"
)

_CHANGED = (
    "SELECT m.hash, m.tier, m.overrides, s.tier, s.overrides FROM retentiond.account_memory m"
    " JOIN pg_temp._survey s ON s.hash = m.hash WHERE (m.tier, m.overrides) IS DISTINCT FROM (s.tier, s.overrides)"
    " AND NOT (s.deleted AND NOT m.deleted) ORDER BY m.hash"
)


def _remembered(row: asyncpg.Record) -> Remembered:
    values = {name: value for name, value in row.items() if name != "hash"}
    return Remembered(**values)
