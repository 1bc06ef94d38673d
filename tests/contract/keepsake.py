"""A store that is as simple as an honest one with an expiry fence can be: objects in memory behind a scripted server.

It proves the sweeper's order of such a batch, and is what the contract means in code. Every record is judged by
`verdict.judge`. The server has a clock of its own, refuses what has expired by it, and can be told what to do with the
next requests: to lose its answer, to lose the request, to take it and carry it out later.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

from retentiond.domain.accounts import AccountFacts, MissingAccount
from retentiond.domain.clock import ClockReading
from retentiond.domain.duration import expires_at, instant, rfc3339
from retentiond.domain.holds import Hold, TargetHold
from retentiond.domain.native_expiry import NativeRule
from retentiond.domain.permit import Permit
from retentiond.domain.plan import Group, TargetPlan
from retentiond.domain.verdict import Kind, RecordFacts, Verdict, judge
from retentiond.errors import NotFound
from retentiond.stores.base import (
    AccountDirectory,
    Fate,
    Finding,
    Intended,
    Matches,
    Tally,
    TierTally,
    Vitals,
    Window,
    earliest,
    latest,
)
from retentiond.stores.config import TargetConfig

MARGIN_SECONDS = 2.0

Script = Literal["answer", "lose the answer", "lose the request", "carry it out later"]


@dataclass(frozen=True)
class Kept:
    """One object: `etag` tells it from a later one under the same key."""

    key: str
    account: str | None
    etag: str
    modified: datetime
    size: int = 100


@dataclass
class Server:
    """The server; `ahead`: how far its clock is, in seconds; `calls` are those that it has got, in order."""

    objects: dict[str, Kept] = field(default_factory=dict)
    locked: set[str] = field(default_factory=set)
    ahead: float = 0.0
    calls: list[str] = field(default_factory=list)
    script: deque[Script] = field(default_factory=deque)
    at_once: int = 1000
    before_delete: Callable[[], Awaitable[None]] | None = None
    after_delete: Callable[[], Awaitable[None]] | None = None
    _accepted: list[Sequence[tuple[str, str]]] = field(default_factory=list)

    def put(self, key: str, account: str | None, modified: datetime) -> None:
        """As a service does; a new object under an old key has another etag."""
        self.objects[key] = Kept(key, account, f"{key}@{rfc3339(modified)}", modified)

    def now(self) -> datetime:
        """The server's own clock."""
        return datetime.now(UTC) + timedelta(seconds=self.ahead)

    def list(self, after: str | None, most: int, until: str | None) -> list[Kept]:
        """The next objects in the order of their keys."""
        self.calls.append("list")
        keys = sorted(key for key in self.objects if (after is None or key > after) and (until is None or key <= until))
        return [self.objects[key] for key in keys[:most]]

    def head(self, key: str) -> Kept | None:
        """The object as it is now."""
        self.calls.append("head")
        return self.objects.get(key)

    async def delete(self, items: Sequence[tuple[str, str]], *, expires: datetime) -> Mapping[str, str] | None:
        """What the server said of each key, `erased`, `gone`, `held` or `expired`; None: nothing was heard."""
        if self.before_delete is not None:
            await self.before_delete()
        script = self.script.popleft() if self.script else "answer"
        if script == "lose the request":
            return None
        self.calls.append("delete")
        if self.now() >= expires:
            return {key: "expired" for key, _ in items}
        if script == "carry it out later":
            self._accepted.append(items)
            return None
        found = self._carry_out(items)
        if self.after_delete is not None:
            await self.after_delete()
        return None if script == "lose the answer" else found

    def catch_up(self) -> None:
        """Carry out what was accepted in time."""
        while self._accepted:
            self._carry_out(self._accepted.pop())

    def _carry_out(self, items: Sequence[tuple[str, str]]) -> Mapping[str, str]:
        said = {}
        for key, etag in items:
            there = self.objects.get(key)
            if there is None or there.etag != etag:
                said[key] = "gone"
            elif key in self.locked:
                said[key] = "held"
            else:
                del self.objects[key]
                said[key] = "erased"
        return said


SERVERS: dict[str, Server] = {}
"""The servers that configurations name."""


class KeepsakeTarget(TargetConfig):
    """Objects of a server by its name."""

    no_verdict: ClassVar[frozenset[str]] = TargetConfig.no_verdict

    store: Literal["keepsake"]
    server: str

    def records(self) -> tuple[str, ...]:
        return (self.store, self.server)


@dataclass(frozen=True)
class KeepsakeExtent:
    """All objects of a server."""

    server: str

    def meets(self, other: object) -> bool:
        return self == other


class Keepsake:
    """One target; see `stores.base.Expiring` for what each method promises."""

    fence: Literal["expiry"] = "expiry"
    kind = "keepsake"
    anchor = None
    rests = True
    as_of = None
    mark = ""
    children: frozenset[tuple[str, ...]] = frozenset()
    partitions = None

    def __init__(self, name: str, config: KeepsakeTarget, action: str) -> None:
        self.name, self.config, self.action = name, config, action
        self.records = config.records()
        self.described = f"objects of {config.server}"
        self.address = f"keepsake:{config.server}"
        self.accounts: AccountDirectory | None = None

    @property
    def server(self) -> Server:
        return SERVERS[self.config.server]

    async def open(self, accounts: AccountDirectory | None) -> None:
        self.accounts = accounts

    async def close(self) -> None:
        return

    async def extent(self) -> KeepsakeExtent:
        return KeepsakeExtent(self.config.server)

    async def clock(self) -> ClockReading:
        self.server.calls.append("clock")
        return ClockReading(self.server.now(), datetime.now(UTC), same_machine=True)

    async def check(self) -> Sequence[Finding]:
        return ()

    async def groups(self, class_name: str) -> tuple[Group, ...]:
        return await self.accounts.groups(class_name) if self.accounts else ()

    async def missing(self, plan: TargetPlan) -> tuple[MissingAccount, ...]:
        return ()

    async def hold(self, hold: Hold) -> TargetHold:
        scope, accounts = hold.scope, None
        if scope.accounts:
            canonical = await self.accounts.canonical(scope.accounts) if self.accounts else {}
            fit = self.accounts is None or len(canonical) == len(set(scope.accounts))
            accounts = frozenset(canonical.values() if self.accounts else scope.accounts) if fit else None
        records = frozenset(scope.records[self.name]) if self.name in scope.records else None
        return TargetHold(hold.id, accounts, records, scope.prefixes.get(self.name, ()), scope.since, scope.until)

    async def total(self) -> int:
        return len(self.server.objects)

    async def counted(self, most: int) -> int:
        return min(len(self.server.objects), most)

    def walks(self, plan: TargetPlan) -> tuple[str, ...]:
        return ("keys",)

    async def shards(self, plan: TargetPlan, *, each: int, most: int) -> tuple[Window, ...]:
        return ()

    def order(self, plan: TargetPlan, walk: str) -> tuple[str, ...]:
        return ("key",)

    async def count(self, plan: TargetPlan, window: Window) -> Tally:
        return await self._batch(plan).looked(window)

    async def past(self, plan: TargetPlan, window: Window) -> tuple[str, ...] | None:
        return (await self.count(plan, window)).after

    async def matches(self, hold: TargetHold, *, seconds: float) -> Matches:
        found = self.server.list(None, 10_000, None)
        known = await known_of(self.accounts, {each.account for each in found})
        of = {each.key: known.get(each.account) for each in found}
        covered = [
            each
            for each in found
            if hold.matches(
                account=of[each.key].id if of[each.key] else each.account, key=each.key, anchor=each.modified
            )
        ]
        return Matches(len(covered), exact=True)

    async def beyond(self, plan: TargetPlan) -> Tally | None:
        return None

    async def fate(self, prepared: Mapping[str, Any]) -> Fate:
        gone = [
            item
            for item in prepared["intended"]["items"]
            if (there := self.server.head(item["key"])) is None or there.etag != item["etag"]
        ]
        return Fate("looked", went(gone))

    async def record(self, plan: TargetPlan, key: str) -> tuple[RecordFacts, AccountFacts]:
        there = self.server.head(key)
        if there is None:
            raise NotFound(f"target {self.name} has no record {key}")
        return await self._batch(plan).facts(there)

    async def next_expiry(self, plan: TargetPlan) -> datetime | None:
        return None

    async def oldest(self, plan: TargetPlan) -> datetime | None:
        return None

    async def vitals(self, signals: Collection[str]) -> Vitals:
        return Vitals()

    async def upkeep(self) -> None:
        return None

    async def vacuum(self, seconds: float) -> None:
        return

    async def native_rules(self) -> tuple[NativeRule, ...]:
        return ()

    async def require_unchanged(self) -> None:
        return

    @asynccontextmanager
    async def batch(self, plan: TargetPlan) -> AsyncIterator[KeepsakeBatch]:
        yield self._batch(plan)

    def _batch(self, plan: TargetPlan) -> KeepsakeBatch:
        return KeepsakeBatch(self, plan)


class KeepsakeBatch:
    """One window of it."""

    def __init__(self, store: Keepsake, plan: TargetPlan) -> None:
        self._store, self._plan = store, plan
        self._page: list[Kept] = []
        self._due: list[dict[str, Any]] = []
        self._seen = Tally()

    async def looked(self, window: Window) -> Tally:
        server = self._store.server
        until = window.until[0] if window.until else None
        self._page = server.list(window.after[0] if window.after else None, window.size, until)
        last = self._page[-1].key if len(self._page) == window.size else None
        self._seen = replace(await self._judged(), after=(last,) if last is not None else None, requests=1)
        return self._seen

    async def intended(self, permit: Permit, window: Window) -> Intended:
        assert permit.epoch == self._plan.epoch
        self._seen = replace(await self._judged(), after=self._seen.after, requests=self._seen.requests)
        return Intended(len(self._due), {"items": list(self._due)})

    async def erase(self, permit: Permit, window: Window, *, salt: str) -> Tally:
        server = self._store.server
        expires = permit.deadline - timedelta(seconds=MARGIN_SECONDS)
        groups = [self._due[at : at + server.at_once] for at in range(0, len(self._due), server.at_once)]
        answers = await asyncio.gather(
            *(server.delete([(each["key"], each["etag"]) for each in group], expires=expires) for group in groups)
        )
        said = {key: word for answer in answers if answer is not None for key, word in answer.items()}
        return replace(self.told(said), requests=self._seen.requests + len(groups))

    def told(self, said: Mapping[str, str]) -> Tally:
        """What it came to by what the server said of each key."""
        by = {word: [each for each in self._due if said.get(each["key"]) == word] for word in {*said.values()}}
        erased = went(by.get("erased", []))
        return replace(
            self._seen,
            changed=erased.changed,
            by_tier=erased.by_tier,
            bytes=erased.bytes,
            oldest=erased.oldest,
            newest=erased.newest,
            ids_digest=None,
            held=self._seen.held + len(by.get("held", ())),
            gone=len(by.get("gone", ())),
            locked=len(by.get("expired", ())),
            in_doubt=len(self._due) - len(said),
            verified="answered",
        )

    async def facts(self, each: Kept) -> tuple[RecordFacts, AccountFacts]:
        known = await known_of(self._store.accounts, {each.account})
        return self._facts(each, known)

    def _facts(self, each: Kept, known: Mapping[str, Any]) -> tuple[RecordFacts, AccountFacts]:
        found = known.get(each.account)
        account = found.id if found else each.account
        facts = found.facts if found else AccountFacts()
        if account is not None:
            facts = self._plan.surveyed.applied(account, facts, has_grace=self._plan.grace_cutoff is not None)
        return RecordFacts(each.key, each.modified, account, self._plan.tier), facts

    async def _judged(self) -> Tally:
        """The page judged; `_due` is what is to go of it."""
        known = await known_of(self._store.accounts, {each.account for each in self._page})
        tiers: dict[str, TierTally] = {}
        self._due, next_due = [], None
        for each in self._page:
            record, facts = self._facts(each, known)
            verdict = judge(self._plan, record, facts)
            anchor = rfc3339(each.modified)
            one = TierTally(first=anchor)
            if verdict.kind is Kind.ERASE:
                self._due.append(
                    {"key": each.key, "etag": each.etag, "size": each.size, "tier": verdict.tier, "anchor": anchor}
                )
                late = (self._plan.now - verdict.expires_at).total_seconds() if verdict.expires_at else 0.0
                one = replace(one, due=1, bytes=each.size, oldest=anchor, newest=anchor, overdue_seconds=max(late, 0.0))
            elif verdict.kind is Kind.HELD:
                one = replace(one, held=int(verdict.due))
            elif verdict.kind is Kind.MINIMUM:
                one = replace(one, minimum=1)
            elif verdict.kind is Kind.UNRESOLVED:
                one = replace(one, unresolved=1)
            if verdict.kind is not Kind.ERASE:
                next_due = earliest(next_due, self._next_due(verdict, facts))
            tiers[verdict.tier] = tiers.get(verdict.tier, TierTally()).plus(one)
        return Tally(scanned=len(self._page), next_due=next_due).by(tiers)

    def _next_due(self, verdict: Verdict, facts: AccountFacts) -> str | None:
        """When it can become due as things are; what is past and held waits for the hold, whose end is another epoch."""
        ends = [verdict.expires_at]
        if facts.deleted_at is not None:
            ends.append(expires_at(facts.deleted_at, self._plan.policy.deletion_grace))
        return earliest(*(rfc3339(end) for end in ends if end is not None and end > self._plan.now))


async def known_of(directory: AccountDirectory | None, accounts: Collection[str | None]) -> Mapping[str, Any]:
    """What the directory says of accounts, by the texts that objects have."""
    asked = [each for each in accounts if each is not None]
    return await directory.known("operational_logs", asked) if directory is not None and asked else {}


def went(items: Sequence[Mapping[str, Any]]) -> Tally:
    """What these came to that are gone."""
    by_tier: dict[str, int] = {}
    for each in items:
        by_tier[each["tier"]] = by_tier.get(each["tier"], 0) + 1
    anchors = [rfc3339(instant(each["anchor"])) for each in items]
    return Tally(
        changed=len(items),
        by_tier=by_tier,
        bytes=sum(each["size"] for each in items),
        oldest=earliest(*anchors),
        newest=latest(*anchors),
    )
