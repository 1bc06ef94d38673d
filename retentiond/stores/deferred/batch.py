"""One window of a store that erases by query: judged as clauses, asked for as requests, and counted afterwards."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from retentiond.domain.duration import rfc3339
from retentiond.domain.permit import Permit
from retentiond.domain.plan import TargetPlan
from retentiond.errors import Blind, Refused, RetentiondError, Unreachable, quoted
from retentiond.stores.base import AccountDirectory, Intended, Progress, Stage, Taken, Tally, TierTally, Window
from retentiond.stores.deferred.backend import Backend, Measured, Memory, tally_of
from retentiond.stores.deferred.basis import BASIS, Basis, countable
from retentiond.stores.deferred.clauses import Clause, clauses_of
from retentiond.stores.rulings import Rulings, Subject

_MARGIN: Final = timedelta(days=30)
"""How long after their term records must still be counted, at least: deletions take days, and fail, and are late."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What batches stand on; `by_tier`: records name their own tier."""

    backend: Backend
    directory: AccountDirectory | None
    memory: Memory | None
    by_tier: bool
    place: tuple[str, ...]


@dataclass(slots=True)
class _Judged:
    """A window as it was judged: its clauses and what was counted of each."""

    clauses: Sequence[Clause]
    measured: Sequence[Measured]
    tally: Tally


class DeferredBatch:
    """See `stores.base.DeferringBatch`."""

    def __init__(self, ground: Ground, plan: TargetPlan) -> None:
        self._ground, self._plan = ground, plan
        self._intended: list[tuple[dict[str, Any], dict[str, int]]] = []
        self._fence = ""
        self._began = 0.0

    async def ready(self) -> None:
        """Make the fence, before the permit is asked for."""
        self._fence = await self._ground.backend.fence()
        self._began = time.monotonic()

    async def close(self) -> None:
        """Take the fence away; what can't be taken away now is by whoever shuts the permit, or stands for nothing."""
        fence, self._fence = self._fence, ""
        if fence:
            with suppress(RetentiondError):
                await self._ground.backend.unfence(fence)

    async def looked(self, window: Window) -> Tally:
        """Judge the window, touching nothing."""
        return (await self._judged(window, await self._under_way())).tally

    async def intended(self, permit: Permit, window: Window) -> Intended:
        """What is to be asked for, by what the directory says now."""
        judged = await self._judged(window, await self._under_way())
        counts = {
            id(clause): found.count
            for clause, found in zip(judged.clauses, judged.measured, strict=True)
            if clause.kind == "due" and found.count
        }
        due = [clause for clause in judged.clauses if id(clause) in counts]
        for clause in due:
            if clause.range.until is None:
                raise Refused("a deletion without a bound of time is never asked for")
        due, counts = await self._canonical(due, counts)
        basis = (await Basis.today(self._ground.backend, self._ground.directory)).document() if due else {}
        self._intended = []
        for what, clauses in await self._ground.backend.requests(due) if due else ():
            by_tier: dict[str, int] = {}
            for clause in clauses:
                by_tier[clause.label] = by_tier.get(clause.label, 0) + counts[id(clause)]
            asked = {
                "permit": permit.number,
                "fence": self._fence,
                "what": dict(what),
                "clauses": [clause.document(counts[id(clause)]) for clause in clauses],
                "holds": sorted(hold.hold_id for hold in self._plan.holds),
                BASIS: basis,
            }
            self._intended.append((asked, by_tier))
        selected = sum(sum(by_tier.values()) for _, by_tier in self._intended)
        return Intended(selected, {"requests": [asked for asked, _ in self._intended], "fence": self._fence})

    async def erase(self, permit: Permit, window: Window, *, salt: str) -> tuple[Taken, ...]:  # noqa: ARG002 - nothing names records
        """Ask for it, one deletion after the other."""
        taken: list[Taken] = []
        for asked, by_tier in self._intended:
            try:
                self._require_time(permit)
                name = await self._ground.backend.submit(permit.number, self._fence, asked["what"])
            except Unreachable:
                raise
            except RetentiondError as error:
                if taken:
                    raise Unreachable(
                        f"the store took {len(taken)} of {len(self._intended)} deletions: {quoted(error)}",
                        remedy=error.remedy,
                    ) from error
                raise
            except Exception as error:
                raise Unreachable(f"what became of a deletion is not known: {quoted(error)}") from error
            taken.append(Taken(name, asked, by_tier))
        # What was taken on may have only begun, and still needs its fence; it goes at the deletion's end.
        self._fence = ""
        return tuple(taken)

    async def _canonical(self, due: Sequence[Clause], counts: Mapping[int, int]) -> tuple[list[Clause], dict[int, int]]:
        """The clauses with all accounts in the directory's canonical text, those too that it does not have.

        A hold that comes later is compared with that.
        """
        directory = self._ground.directory
        given = {each for clause in due for each in clause.accounts if each is not None}
        texts = await directory.canonical(given) if directory is not None and given else {}
        found = [
            replace(clause, ids=tuple(None if each is None else texts.get(each, each) for each in clause.accounts))
            for clause in due
        ]
        return found, {id(new): counts[id(old)] for new, old in zip(found, due, strict=True)}

    def _require_time(self, permit: Permit) -> None:
        """Raise Refused where it may be too late to send anything, and the server would not refuse it."""
        life = (permit.deadline - permit.issued_at).total_seconds()
        if not self._fence and time.monotonic() - self._began > life:
            raise Refused(
                f"the time of permit {permit.number} was over before a deletion was asked for under it",
                remedy="nothing to do: it is asked for again under another permit",
            )

    async def _under_way(self) -> list[Clause]:
        memory = self._ground.memory
        known = await memory.unfinished() if memory is not None else ()
        return [Clause.of(each) for one in known if one.place == self._ground.place for each in one.asked["clauses"]]

    async def _judged(self, window: Window, under_way: Sequence[Clause]) -> _Judged:
        ground = self._ground
        _require_reach(self._plan, ground.backend.reach)
        size = min(window.size, ground.backend.most_subjects)
        after, until = (edge[0] if edge else None for edge in (window.after, window.until))
        facets = await ground.backend.facets(after, size, until)
        rulings = Rulings(self._plan)
        await rulings.ask([each.account for each in facets.found], ground.directory)
        subjects: list[Subject] = [
            (each.account, each.tier) if ground.by_tier else each.account for each in facets.found
        ]
        clauses = ground.backend.fit(clauses_of(rulings, subjects, by_tier=ground.by_tier, requested=under_way))
        measured = await ground.backend.measure(clauses) if clauses else ()
        return _Judged(
            clauses, measured, self._tally(facets.after, sum(f.count for f in facets.found), clauses, measured)
        )

    def _tally(self, after: str | None, scanned: int, clauses: Sequence[Clause], measured: Sequence[Measured]) -> Tally:
        tiers: dict[str, TierTally] = {}
        for clause, each in zip(clauses, measured, strict=True):
            shown = (_text(each.oldest), _text(each.newest))
            tiers[clause.label] = tiers.get(clause.label, TierTally()).plus(tally_of(clause, each, shown))
        requested = sum(f.count for c, f in zip(clauses, measured, strict=True) if c.kind == "requested")
        found = Tally(scanned=scanned, requested=requested, after=(after,) if after is not None else None).by(tiers)
        return replace(found, requests=2)


async def looked_for(
    backend: Backend, permit: int, intended: Mapping[str, Any], age: float
) -> tuple[tuple[Taken, ...], Tally]:
    """What became of a batch that nobody wrote the end of: what the server works on, and of the rest what is gone.

    `age` is the permit's in seconds: what is not listed, and may have been cancelled too late, is followed as well.
    """
    taken: list[Taken] = []
    gone = Tally()
    for n, asked in enumerate(intended["requests"]):
        by_tier: dict[str, int] = {}
        for clause in asked["clauses"]:
            by_tier[clause["label"]] = by_tier.get(clause["label"], 0) + clause["count"]
        name = await backend.find(permit, asked["what"])
        if name is None and backend.lingers(age):
            name = f"unlisted-{permit}-{n}"
        if name is not None:
            taken.append(Taken(name, asked, by_tier))
        elif countable(backend, asked):
            gone = _plus(gone, await went(backend, asked))
        else:
            gone = _plus(gone, Tally(failed=sum(by_tier.values())))
    return tuple(taken), gone


async def went(backend: Backend, asked: Mapping[str, Any]) -> Tally:
    """What of that which was asked for is gone by now, by counting again; `failed` are those that are there."""
    clauses = [Clause.of(each) for each in asked["clauses"]]
    measured = await backend.measure(clauses)
    by_tier: dict[str, int] = {}
    left = 0
    for kept, found in zip(asked["clauses"], measured, strict=True):
        left += found.count
        if less := max(kept["count"] - found.count, 0):
            by_tier[kept["label"]] = by_tier.get(kept["label"], 0) + less
    return Tally(changed=sum(by_tier.values()), by_tier=by_tier, failed=left)


async def progress(backend: Backend, taken: Taken, *, stage: Stage, seconds: float, moved: float) -> Progress:
    """How far a deletion is; see `stores.base.Deferring.progress`.

    Where the server says that it is over, it is counted; where nothing is left it is `erased`, then `verified`. One of
    a target that is configured differently since can't be counted, and nothing is credited.
    """
    said = await backend.state(taken.id, taken.asked["what"], seconds, moved)
    known = countable(backend, taken.asked)
    if said.word == "running":
        if known and backend.hides and stage == "requested" and not (await went(backend, taken.asked)).failed:
            return Progress("hidden", said.told)
        return Progress("requested" if stage == "requested" else "hidden", said.told)
    if stage == "erased" and moved < backend.settle_seconds:
        return Progress("erased", said.told)
    found = await went(backend, taken.asked) if known else Tally(failed=taken.selected)
    if not found.failed and stage != "erased":
        return Progress("erased", said.told)
    await backend.forget(taken.id)
    if fence := taken.asked.get("fence"):
        await backend.unfence(fence)
    if not found.failed:
        return Progress("verified", said.told, found)
    told = (
        f"{found.failed} records of it are there still" if known else "its target tells records by other fields since"
    )
    told += f"; {said.told}" if said.told else ""
    left = min(found.failed, max(taken.selected - found.changed, 0))
    return Progress("failed", told, replace(found, failed=left))


def _require_reach(plan: TargetPlan, reach: timedelta | None) -> None:
    """Raise Blind where records are not counted any more before a term of theirs is over: they would never go."""
    if reach is None:
        return
    found = [*plan.resolutions().values(), plan.of_nobody(), plan.of_unknown()]
    longest = max((plan.now - each.cutoff for each in found if each.cutoff is not None), default=timedelta())
    if reach < longest + _MARGIN:
        raise Blind(
            f"records are counted {reach.days} days back, and a term is {longest.days} days: what it ends for would "
            "never be seen",
            remedy=f"raise reach_days to {longest.days + _MARGIN.days + 1} or more",
        )


def _plus(one: Tally, other: Tally) -> Tally:
    by_tier = dict(one.by_tier)
    for tier, count in other.by_tier.items():
        by_tier[tier] = by_tier.get(tier, 0) + count
    return Tally(changed=one.changed + other.changed, by_tier=by_tier, failed=one.failed + other.failed)


def _text(moment: Any) -> str | None:
    return rfc3339(moment) if moment is not None else None
