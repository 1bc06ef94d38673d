"""The survey of the account directory before a sweep, and the guard against a damaged one.

retentiond remembers each account by an HMAC of its id: the tier, overrides and deletion last seen. A survey compares
the directory with that memory; when more than `guards.max_accounts_shortened` of the accounts are missing, deleted or
have a shorter term, nothing that depends on the directory is swept until an operator approves (2-semantics, "Tiers").

What the memory adds to the directory goes with the plan as `Surveyed`. `recall` gives the same for one account without
a survey, for `explain`; `look` for all, without accepting anything, for plans.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import datetime

import orjson

from retentiond.control import accounts
from retentiond.control.database import Tx
from retentiond.domain.accounts import NOTHING_REMEMBERED, AccountFacts, Surveyed, account_hash, resolve
from retentiond.domain.duration import cutoff
from retentiond.errors import Blind, Guarded
from retentiond.stores.base import SurveyedDirectory
from retentiond.sweep.plans import Tools
from retentiond.sweep.questions import DIRECTORY, Question, allowed, not_asked
from retentiond.sweep.spec import Spec

_COMPARE_MS = 60_000


class Facts:
    """A digest of facts that is the same whatever order they come in."""

    def __init__(self) -> None:
        self._sum = 0

    def add(self, *facts: object) -> None:
        """One more; no two kinds of facts look alike."""
        digest = hashlib.blake2b(repr(facts).encode("utf-8", "backslashreplace"), digest_size=32).digest()
        self._sum = (self._sum + int.from_bytes(digest)) % 2**256

    def digest(self) -> str:
        """In hexadecimal."""
        return f"{self._sum:064x}"


@dataclass(slots=True)
class _Seen:
    """The whole directory as it was read: rows for the comparison, and each hash's id and tier."""

    transaction: int
    facts: Facts
    rows: list[accounts.SurveyRow] = field(default_factory=list)
    ids: dict[bytes, str] = field(default_factory=dict)
    tiers: dict[str, str | None] = field(default_factory=dict)


async def survey(tools: Tools, directory: SurveyedDirectory, now: datetime, key: bytes) -> Surveyed:
    """Compare the directory with the memory and accept it; raises Guarded, Blind or Unreachable and accepts nothing."""
    spec = tools.spec
    seen = await _read(directory, tools.spec, key, now)
    async with tools.database.transaction(timeout_ms=_COMPARE_MS) as tx:
        found = await accounts.compare(tx, seen.rows)
        if found.known and not seen.rows:
            raise Blind(
                f"the account directory is empty, and it had {found.known} accounts",
                remedy="see what happened to accounts.table; nothing that depends on it is erased",
            )
        shortened = sum(1 for change in found.changed if _shortens(spec, now, change))
        question = _question(spec, found, shortened)
        if question is None:
            await not_asked(tx, tools.journal, "directory", DIRECTORY, by=tools.worker)
        if question is None or await allowed(tx, tools.journal, question, by=tools.worker):
            await accounts.accept(tx, now)
            return await _remembered(tx, directory, spec, seen, now, key)
    raise Guarded(
        "directory",
        f"of {found.living} accounts {found.missing} are missing, {found.deleted} newly deleted and {shortened} have a "
        "shorter term: the account directory looks damaged, and nothing that depends on it is erased",
        remedy="mend it, or run `retentiond approve --directory` if it is right",
    )


async def look(tools: Tools, directory: SurveyedDirectory, now: datetime, key: bytes) -> Surveyed:
    """What a survey would find, with nothing written: a tier that has changed is in its grace, as a sweep would see it.

    An account that is missing for the first time is not said to be: that is for a survey to date. Raises Unreachable.
    """
    seen = await _read(directory, tools.spec, key, now)
    async with tools.database.transaction(timeout_ms=_COMPARE_MS) as tx:
        found = await accounts.compare(tx, seen.rows)
        surveyed = await _remembered(tx, directory, tools.spec, seen, now, key)
    if surveyed.tiers is None:
        return surveyed
    changed = {seen.ids[change.hash] for change in found.changed if change.old_tier != change.new_tier}
    return replace(surveyed, recent=surveyed.recent | changed)


async def recall(tools: Tools, directory: SurveyedDirectory, account: str, now: datetime, key: bytes) -> Surveyed:
    """What is remembered of one account, by its id's text."""
    spec = tools.spec
    digest = account_hash(key, account)
    async with tools.database.transaction(read_only=True) as tx:
        known = (await accounts.remembered(tx, [digest])).get(digest)
    if known is None:
        return NOTHING_REMEMBERED
    missing = {digest: known.missing_since} if known.missing_since and spec.missing_means_deleted else {}
    edge = _grace_edge(spec, now)
    if directory.dates_changes or edge is None:
        return Surveyed(missing=missing, key=key)
    changed = known.changed_at is not None and known.changed_at >= edge
    return Surveyed(
        recent=frozenset([account] if changed else []), tiers={account: known.tier}, missing=missing, key=key
    )


async def _read(directory: SurveyedDirectory, spec: Spec, key: bytes, now: datetime) -> _Seen:
    seen = _Seen(await directory.survey_transaction(), Facts())
    grace, erased = _grace_edge(spec, now), cutoff(now, spec.policy.deletion_grace)
    async for chunk in directory.survey():
        for account in chunk:
            digest = account_hash(key, account.id)
            # A deletion to come is none yet: an account that is lost before it would fall due too early.
            deleted = account.deleted_at is not None and account.deleted_at <= now
            seen.rows.append((digest, account.tier, account.overrides, deleted))
            in_grace = grace is not None and account.changed_at is not None and account.changed_at > grace
            erasing = erased is not None and account.deleted_at is not None and account.deleted_at < erased
            seen.facts.add(digest, account.tier, account.overrides, account.deleted_at, in_grace, erasing)
            seen.ids[digest] = account.id
            seen.tiers[account.id] = account.tier
    return seen


async def _remembered(
    tx: Tx, directory: SurveyedDirectory, spec: Spec, seen: _Seen, now: datetime, key: bytes
) -> Surveyed:
    edge = _grace_edge(spec, now)
    dated = directory.dates_changes or edge is None
    recent = set() if dated or edge is None else await accounts.changed_since(tx, edge)
    missing = await accounts.missing_since(tx) if spec.missing_means_deleted else {}
    erased = cutoff(now, spec.policy.deletion_grace)
    for digest in recent:
        seen.facts.add("recent", digest)
    for digest, since in missing.items():
        seen.facts.add("missing", digest, since, erased is not None and since < erased)
    return Surveyed(
        recent=frozenset(seen.ids[digest] for digest in recent if digest in seen.ids),
        tiers=None if dated else seen.tiers,
        missing=missing,
        key=key,
        transaction=seen.transaction,
        digest=seen.facts.digest(),
    )


def _grace_edge(spec: Spec, now: datetime) -> datetime | None:
    grace = spec.policy.downgrade_grace
    return cutoff(now, grace) if grace else None


def _question(spec: Spec, found: accounts.Differences, shortened: int) -> Question | None:
    """The guard's question, None where few enough accounts are worse off."""
    worse = found.missing + found.deleted + shortened
    limits = spec.limits
    if worse <= limits.min_accounts_shortened or worse <= limits.max_accounts_shortened * found.living:
        return None
    detail: dict[str, int] = {
        "known": found.living,
        "missing": found.missing,
        "deleted": found.deleted,
        "shortened": shortened,
    }
    return Question("directory", DIRECTORY, spec.digest, worse, detail=detail)


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
    document = (orjson.loads(overrides) if overrides else None) or {}
    override = document.get(class_name) if isinstance(document, dict) else "(no JSON object)"
    return AccountFacts(found=True, tier=tier, override=None if override is None else str(override))
