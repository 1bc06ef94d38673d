"""The survey of the account directory before a sweep, and the guard against a damaged one.

retentiond remembers each account by an HMAC of its id: the tier, overrides and deletion last seen. A survey compares
the directory with that memory; when more than `guards.max_accounts_shortened` of the accounts are missing, deleted or
have a shorter term, nothing that depends on the directory is swept until an operator approves (2-semantics, "Tiers").
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import datetime

import orjson

from retentiond.control import accounts, approvals
from retentiond.control.database import Database, Tx
from retentiond.domain.accounts import AccountFacts, resolve
from retentiond.domain.duration import cutoff
from retentiond.errors import Blind, Guarded
from retentiond.stores.postgres.directory import Directory
from retentiond.sweep.spec import Spec

DIRECTORY = "accounts"


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What a survey found: accounts in their downgrade grace by our memory, and the transaction it began in."""

    recent: frozenset[str]
    transaction: int
    accounts: int


async def survey(database: Database, directory: Directory, spec: Spec, now: datetime, key: bytes) -> Surveyed:
    """Compare the directory with the memory and accept it; raises Guarded, Blind or Unreachable and accepts nothing."""
    transaction = await directory.survey_transaction()
    rows: list[tuple[bytes, str | None, str | None, bool]] = []
    ids: dict[bytes, str] = {}
    async for chunk in directory.survey():
        for account in chunk:
            digest = hmac.digest(key, account.id.encode(), hashlib.sha256)[:16]
            rows.append((digest, account.tier, account.overrides, account.deleted_at is not None))
            ids[digest] = account.id
    async with database.transaction(timeout_ms=60_000) as tx:
        found = await accounts.compare(tx, rows)
        if found.known and not rows:
            raise Blind(
                f"the account directory is empty, and it had {found.known} accounts",
                remedy="see what happened to accounts.table; nothing that depends on it is erased",
            )
        shortened = sum(1 for change in found.changed if _shortens(spec, now, change))
        await _guard(tx, spec, known=found.known, missing=found.missing, deleted=found.deleted, shortened=shortened)
        await accounts.accept(tx, now)
        grace = spec.policy.downgrade_grace
        edge = cutoff(now, grace) if grace else None
        recent = await accounts.changed_since(tx, edge) if edge else set()
    return Surveyed(frozenset(ids[digest] for digest in recent if digest in ids), transaction, len(rows))


async def _guard(tx: Tx, spec: Spec, *, known: int, missing: int, deleted: int, shortened: int) -> None:
    worse = missing + deleted + shortened
    limits = spec.limits
    if worse <= limits.min_accounts_shortened or worse <= limits.max_accounts_shortened * known:
        return
    approval = await approvals.find(tx, "directory", DIRECTORY, spec.digest)
    if approval is not None and (approval.bound is None or worse <= approval.bound):
        await approvals.use(tx, approval.id, None)
        return
    raise Guarded(
        "directory",
        f"of {known} accounts {missing} are missing, {deleted} newly deleted and {shortened} have a shorter term: "
        "the account directory looks damaged, and nothing that depends on it is erased",
        remedy="mend it, or run `retentiond approve accounts` if it is right",
    )


def _shortens(spec: Spec, now: datetime, change: accounts.Changed) -> bool:
    for target in spec.targets:
        data_class = target.data_class
        before = resolve(
            spec.policy, data_class, spec.rules, _facts(change.old_tier, change.old_overrides, data_class.name), now
        ).cutoff
        after = resolve(
            spec.policy, data_class, spec.rules, _facts(change.new_tier, change.new_overrides, data_class.name), now
        ).cutoff
        if after is not None and (before is None or after > before):
            return True
    return False


def _facts(tier: str | None, overrides: str | None, class_name: str) -> AccountFacts:
    document = orjson.loads(overrides) if overrides else {}
    override = document.get(class_name) if isinstance(document, dict) else "(no JSON object)"
    return AccountFacts(found=True, tier=tier, override=None if override is None else str(override))
