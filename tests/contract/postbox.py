"""The simplest honest store whose deletions run later: records in memory, behind a server that takes requests on.

It is what `stores.deferred.backend` means in code, and what the sweeper's order of such a batch, holds and the following
are proved with. The server carries out what it has at once, or when a test lets it `work`; it can be told to lose an
answer, to lose a request, to get one late, and to refuse or to forget.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Literal

from retentiond.domain.clock import ClockReading
from retentiond.errors import NotFound, Refused, Unreachable
from retentiond.stores.config import TargetConfig
from retentiond.stores.deferred.backend import Facet, Facets, Measured, Pending, Single, State
from retentiond.stores.deferred.clauses import Clause
from retentiond.stores.deferred.store import DeferredStore, Identity

Script = Literal["lose the answer", "lose the request", "get it late", "refuse"]


@dataclass(frozen=True)
class Line:
    """One record; `anchor` None: it has none."""

    account: str | None
    anchor: datetime | None


@dataclass
class Deletion:
    """One that the server has taken on."""

    permit: int
    clauses: list[Clause]
    word: Literal["running", "done"] = "running"


@dataclass
class Server:
    """`refuses`: it takes nothing on whose fence is gone. `busy`: it carries nothing out by itself."""

    lines: dict[int, Line] = field(default_factory=dict)
    deletions: dict[str, Deletion] = field(default_factory=dict)
    fences: set[str] = field(default_factory=set)
    refuses: bool = True
    busy: bool = False
    hides: bool = False
    uncancellable: str = ""
    acts: bool = True
    calls: list[str] = field(default_factory=list)
    script: deque[Script] = field(default_factory=deque)
    late: list[tuple[int, str, list[Clause]]] = field(default_factory=list)
    before_submit: Callable[[], Awaitable[None]] | None = None
    after_submit: Callable[[], Awaitable[None]] | None = None

    def take(self, permit: int, fence: str, clauses: list[Clause]) -> str:
        if self.refuses and fence not in self.fences:
            raise Refused(f"there is no {fence}")
        name = f"d{len(self.deletions) + 1}"
        self.deletions[name] = Deletion(permit, clauses)
        if not self.busy:
            self.work()
        return name

    def work(self) -> None:
        """Carry out what it has."""
        for deletion in self.deletions.values():
            if deletion.word == "running":
                deletion.word = "done"
                if self.acts:
                    for key in self.matching(deletion.clauses, all_of_them=True):
                        del self.lines[key]

    def get_late(self) -> list[str]:
        """What was on its way arrives."""
        arrived = []
        while self.late:
            try:
                arrived.append(self.take(*self.late.pop()))
            except Refused:
                continue
        return arrived

    def matching(self, clauses: Sequence[Clause], *, all_of_them: bool = False) -> list[int]:
        hidden = set()
        if self.hides and not all_of_them:
            running = [d for d in self.deletions.values() if d.word == "running"]
            hidden = {key for each in running for key in self.matching(each.clauses, all_of_them=True)}
        return [
            key for key, line in self.lines.items() if key not in hidden and any(_is_of(line, each) for each in clauses)
        ]


def _is_of(line: Line, clause: Clause) -> bool:
    if line.account not in clause.accounts:
        return False
    if line.anchor is None:
        return clause.range.undated
    since, until = clause.range.since, clause.range.until
    return (since is None or line.anchor >= since) and (until is None or line.anchor < until)


SERVERS: dict[str, Server] = {}
"""The servers that configurations name."""


class PostboxTarget(TargetConfig):
    """Records of a server by its name."""

    store: Literal["postbox"]
    server: str

    def records(self) -> tuple[str, ...]:
        return (self.store, self.server)


@dataclass
class PostboxBackend:
    """See `stores.deferred.backend.Backend`."""

    server: Server
    follow_seconds: float = 0.3
    most_subjects: int = 1000
    settle_seconds: float = 0.0

    @property
    def told_by(self) -> tuple[str, str | None]:
        return "anchor", "account"

    reach: ClassVar[timedelta | None] = None

    @property
    def hides(self) -> bool:
        return self.server.hides

    async def open(self) -> None:
        return

    async def close(self) -> None:
        return

    async def clock(self) -> ClockReading:
        return ClockReading(datetime.now(UTC), datetime.now(UTC), same_machine=True)

    async def check(self) -> tuple[()]:
        return ()

    async def native_rules(self) -> tuple[()]:
        return ()

    async def facets(self, after: str | None, size: int, until: str | None) -> Facets:
        self.server.calls.append("facets")
        names = sorted({line.account or "" for line in self.server.lines.values()})
        names = [each for each in names if (after is None or each > after) and (until is None or each <= until)]
        page = names[:size]
        counts = [sum((line.account or "") == each for line in self.server.lines.values()) for each in page]
        found = tuple(Facet(each or None, None, count) for each, count in zip(page, counts, strict=True))
        return Facets(found, page[-1] if len(names) > len(page) else None)

    async def measure(self, clauses: Sequence[Clause]) -> list[Measured]:
        found = []
        for clause in clauses:
            keys = self.server.matching([clause])
            anchors = [anchor for key in keys if (anchor := self.server.lines[key].anchor) is not None]
            found.append(Measured(len(keys), min(anchors, default=None), max(anchors, default=None)))
        return found

    async def total(self) -> Measured:
        anchors = [line.anchor for line in self.server.lines.values() if line.anchor is not None]
        return Measured(len(self.server.lines), min(anchors, default=None), max(anchors, default=None))

    async def single(self, key: str) -> Single:
        line = self.server.lines.get(int(key))
        if line is None:
            raise NotFound(f"there is no record {key}")
        return Single(key, line.anchor, line.account)

    def fit(self, clauses: Sequence[Clause]) -> Sequence[Clause]:
        return clauses

    async def requests(self, clauses: Sequence[Clause]) -> list[tuple[Mapping[str, Any], Sequence[Clause]]]:
        return [({"clauses": [each.document(0) for each in clauses]}, clauses)]

    async def fence(self) -> str:
        if not self.server.refuses:
            return ""
        fence = f"f{len(self.server.fences) + len(self.server.calls)}"
        self.server.calls.append("fence")
        self.server.fences.add(fence)
        return fence

    async def unfence(self, fence: str) -> bool:
        self.server.fences.discard(fence)
        return True

    async def submit(self, permit: int, fence: str, what: Mapping[str, Any]) -> str:
        server = self.server
        if server.before_submit is not None:
            await server.before_submit()
        script = server.script.popleft() if server.script else "answer"
        clauses = [Clause.of(each) for each in what["clauses"]]
        if script == "lose the request":
            raise Unreachable("no answer")
        if script == "get it late":
            server.late.append((permit, fence, clauses))
            raise Unreachable("no answer")
        if script == "refuse":
            raise Refused("the index is read-only")
        name = server.take(permit, fence, clauses)
        if server.after_submit is not None:
            await server.after_submit()
        if script == "lose the answer":
            raise Unreachable("no answer")
        return name

    async def pending(self) -> list[Pending]:
        self.server.calls.append("pending")
        return [Pending(name, each.permit) for name, each in self.server.deletions.items() if each.word == "running"]

    async def find(self, permit: int, what: Mapping[str, Any]) -> str | None:
        return next(
            (n for n, d in self.server.deletions.items() if d.permit == permit and d.word == "running"),
            None,
        )

    async def cancel(self, id: str) -> str:
        if self.server.uncancellable:
            return self.server.uncancellable
        self.server.deletions[id].word = "done"
        return ""

    async def state(self, id: str, what: Mapping[str, Any], seconds: float, moved: float) -> State:
        there = self.server.deletions.get(id)
        return State(there.word if there else "unknown")

    def lingers(self, seconds: float) -> bool:
        return False

    async def forget(self, id: str) -> None:
        self.server.calls.append("forget")


def postbox(name: str, config: PostboxTarget, action: str) -> DeferredStore:
    """The store of a target."""
    identity = Identity(
        name=name,
        kind="postbox",
        action=action,
        records=config.records(),
        described=f"records of {config.server}",
        address=f"postbox:{config.server}",
        knows_account=True,
        by_tier=False,
    )
    return DeferredStore(identity, PostboxBackend(SERVERS[config.server]))
