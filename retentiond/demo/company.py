"""The company of the privacy policy: its database, the daemon's whole configuration, and two holds."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final

from retentiond.control import holds
from retentiond.control.database import Database
from retentiond.control.hold_rows import HoldDraft
from retentiond.daemon import App
from retentiond.demo.artifacts import BUCKET, HELD_ACCOUNT, KEY
from retentiond.demo.logs import FOLDER, NAMES
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
ARTIFACTS: Final = "artifacts"
"""The target that is a bucket."""
EDGE_LOGS: Final = "edge_logs"
"""The target that is a folder of log files."""
_HELD_ACCOUNTS = 100
_MAKE_MS = 120_000
_DRAFTS = (
    HoldDraft(
        matter="2026-17",
        reason="subpoena (made up)",
        scope=Scope(accounts=tuple(str(number) for number in range(1, _HELD_ACCOUNTS + 1))),
        review_by=None,
        notice=None,
    ),
    HoldDraft(
        matter="2026-19",
        reason="dispute about a licence (made up)",
        scope=Scope(accounts=(str(HELD_ACCOUNT),), targets=(ARTIFACTS,)),
        review_by=None,
        notice=None,
    ),
)


def configuration(dsn: str, folder: Path, storage: str) -> dict[str, str]:
    """The configuration as environment variables: the company's database is the control database as well.

    `folder` is the state folder, for the signing key and the last checkpoint; `storage` the address of the S3 server.
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
    prefix = f"RETENTIOND_TARGETS__{ARTIFACTS.upper()}__"
    return found | {
        prefix + "STORE": "s3",
        prefix + "CLASS": "generated_artifacts",
        prefix + "BUCKET": BUCKET,
        prefix + "KEY": KEY,
        prefix + "ENDPOINT_URL": storage,
        prefix + "ADDRESSING": "path",
        prefix + "REGION": "us-east-1",
        prefix + "ACCESS_KEY_ID": "demo",
        prefix + "SECRET_ACCESS_KEY": "demo",
        # moto's server carries out requests that have expired.
        prefix + "UNFENCED": "true",
        **_logs(folder / FOLDER),
    }


def _logs(folder: Path) -> dict[str, str]:
    prefix = f"RETENTIOND_TARGETS__{EDGE_LOGS.upper()}__"
    return {
        prefix + "STORE": "files",
        prefix + "CLASS": "operational_logs",
        prefix + "PATH": str(folder / NAMES),
        prefix + "FORMAT": "jsonl",
        prefix + "ANCHOR": "ts",
        prefix + "ACCOUNT": "account_id",
    }


def bucket_address(variables: Mapping[str, str]) -> str:
    """Where the bucket of that configuration answers."""
    return f"{variables[f'RETENTIOND_TARGETS__{ARTIFACTS.upper()}__ENDPOINT_URL']}/{BUCKET}"


async def make_company(dsn: str) -> None:
    """Fill the empty database: 20,000 accounts, eight years of records. Raises Unreachable."""
    database = await Database.connect(dsn)
    try:
        async with database.transaction(timeout_ms=_MAKE_MS) as tx:
            await tx.execute(files("retentiond.demo").joinpath("company.sql").read_text())
    finally:
        await database.close()


async def place_holds(app: App) -> list[Hold]:
    """Legal holds on the first accounts, and on the artifacts of one more; active when this returns.

    Raises StillPending when one did not become so.
    """
    record = app.hold_recorder(BY)
    placed = [(await holds.place(app.database, draft, BY, record=record)).id for draft in _DRAFTS]
    active = {hold.id: hold for hold in await app.activate_holds(record)}
    for each in placed:
        if each not in active:
            raise StillPending(f"hold {each} did not become active", remedy="run the demo again")
    return [active[each] for each in placed]


async def held_record(app: App) -> str:
    """The key of a request that is long past its term and kept by the hold: something to explain."""
    async with app.database.transaction(read_only=True) as tx:
        key = await tx.fetchval(
            "SELECT id::text FROM public.request_logs WHERE account_id <= $1 ORDER BY created_at, id LIMIT 1",
            _HELD_ACCOUNTS,
        )
    return str(key)
