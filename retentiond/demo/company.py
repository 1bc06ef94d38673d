"""The company of the privacy policy: its database, the daemon's whole configuration for it, and a hold."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from retentiond.control import holds
from retentiond.control.database import Database
from retentiond.control.hold_rows import HoldDraft
from retentiond.daemon import App
from retentiond.domain.holds import Hold, Scope
from retentiond.errors import StillPending

BY = "demo"
"""Whose name the hold and the approvals of the demo bear."""

_TARGETS = {
    "request_logs": ("operational_logs", "created_at"),
    "build_logs": ("build_logs", "at"),
    "prompts": ("prompts", "at"),
    "usage_metrics": ("usage_metrics", "at"),
    "audit_log": ("audit_log", "at"),
    "invoices": ("invoices", "issued"),
}
_HELD_ACCOUNTS = 100
_MAKE_MS = 120_000


def configuration(dsn: str, folder: Path) -> dict[str, str]:
    """The configuration as environment variables: the company's database is the control database as well.

    `folder` is the state folder, for the signing key and the last checkpoint.
    """
    found = {
        "RETENTIOND_MODE": "enforce",
        "RETENTIOND_STATE_DIR": str(folder),
        "RETENTIOND_CONTROL__DSN": dsn,
        "RETENTIOND_ACCOUNTS__DSN": dsn,
        "RETENTIOND_ACCOUNTS__TABLE": "public.accounts",
        "RETENTIOND_ACCOUNTS__DELETED_AT": "deleted_at",
        "RETENTIOND_ACCOUNTS__OVERRIDES": "retention",
        "RETENTIOND_ACCOUNTS__TIER_CHANGED_AT": "tier_changed_at",
    }
    for name, (class_name, anchor) in _TARGETS.items():
        prefix = f"RETENTIOND_TARGETS__{name.upper()}__"
        found |= {
            prefix + "STORE": "postgres",
            prefix + "CLASS": class_name,
            prefix + "DSN": dsn,
            prefix + "TABLE": f"public.{name}",
            prefix + "ANCHOR": anchor,
            prefix + "ACCOUNT": "account_id",
        }
    return found


async def make_company(dsn: str) -> None:
    """Fill the empty database: 20,000 accounts, eight years of records. Raises Unreachable."""
    database = await Database.connect(dsn)
    try:
        async with database.transaction(timeout_ms=_MAKE_MS) as tx:
            await tx.execute(files("retentiond.demo").joinpath("company.sql").read_text())
    finally:
        await database.close()


async def place_hold(app: App) -> Hold:
    """A legal hold on the first accounts, active when this returns; raises StillPending when it did not become so."""
    draft = HoldDraft(
        matter="2026-17",
        reason="subpoena (made up)",
        scope=Scope(accounts=tuple(str(number) for number in range(1, _HELD_ACCOUNTS + 1))),
        review_by=None,
        notice=None,
    )
    record = app.hold_recorder(BY)
    placed = await holds.place(app.database, draft, BY, record=record)
    for hold in await app.activate_holds(record):
        if hold.id == placed.id:
            return hold
    raise StillPending(f"hold {placed.id} did not become active", remedy="run the demo again")


async def held_record(app: App) -> str:
    """The key of a request that is long past its term and kept by the hold: something to explain."""
    async with app.database.transaction(read_only=True) as tx:
        key = await tx.fetchval(
            "SELECT id::text FROM public.request_logs WHERE account_id <= $1 ORDER BY created_at, id LIMIT 1",
            _HELD_ACCOUNTS,
        )
    return str(key)
