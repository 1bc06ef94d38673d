"""One window of objects: looked at, judged again under the permit, asked to go until an instant of the server's clock.

The expiry of the requests is the permit's life, counted from before the permit was asked for, by the server's own clock
(`ServerClock.earliest`). So it can't be later than the permit's deadline, whatever the clocks of this host and of the
control database say, and however long this process stood still in between.

Delete markers go after the versions of their key, and only where all of those are gone for certain.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from retentiond.domain.duration import rfc3339
from retentiond.domain.permit import Permit
from retentiond.domain.plan import TargetPlan
from retentiond.errors import Refused
from retentiond.stores.base import AccountDirectory, Intended, Tally, Window
from retentiond.stores.clock import Expiry
from retentiond.stores.rulings import Rulings
from retentiond.stores.s3 import errors
from retentiond.stores.s3.deleting import PARTS_LEFT, delete
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.intent import Items
from retentiond.stores.s3.inventory.recheck import rechecked
from retentiond.stores.s3.inventory.source import bounded
from retentiond.stores.s3.items import LOCK_NOT_TOLD, Deletion, Gone, How
from retentiond.stores.s3.locks import Locks
from retentiond.stores.s3.place import Place
from retentiond.stores.s3.reading import Found, Reading, accounts_of
from retentiond.stores.s3.rows import Listing
from retentiond.stores.s3.sources import Sources
from retentiond.stores.s3.walk import UPLOADS, Taken, Walks

_MARGIN = timedelta(seconds=2)
"""Between the requests' expiry and the permit's deadline: a signature has whole seconds."""
_PASSES = errors.THROTTLED | errors.LATE | {"RequestExpired", "Unreachable", "NotAsked", PARTS_LEFT}
"""Codes of what was surely not done and may go later."""
_OVER = frozenset({"erased", "already_gone", "changed"})
"""What is not there any more as it was."""


@dataclass(frozen=True, slots=True)
class Ground:
    """What all batches of a target stand on; `looking` gives the rulings of a plan that looks go by."""

    name: str
    head: str
    place: Place
    walks: Walks
    reading: Reading
    sources: Sources
    locks: Locks
    directory: AccountDirectory | None
    looking: Callable[[TargetPlan], Rulings]
    seen: Callable[[Window, Taken, Found], None]

    def listing(self, walk: str) -> Listing:
        """What the walk goes through."""
        return "uploads" if walk == UPLOADS else self.place.listing


async def as_it_is_now(
    ground: Ground, rulings: Rulings, walk: str, taken: Taken, found: Found
) -> tuple[Taken, Found, int]:
    """What an inventory says is due, listed anew, and all of the window judged again with that.

    Also how much of what was due is not there any more. Raises Blind, Unreachable.
    """
    bucket = await ground.place.bucket()
    due = ground.locks.apart(rulings, found, taken.rows, rulings.plan.now)
    if not due.due and not due.markers:
        return taken, found, 0
    fresh = await rechecked(bucket, ground.listing(walk), ground.head, taken, [*due.due, *due.markers])
    taken = fresh.taken
    page = await ground.sources.after(bucket, taken.rows, found.page, fresh.was)
    await rulings.ask(accounts_of(page), ground.directory)
    return taken, ground.reading.found(rulings, page, taken.rows, taken.torn), fresh.gone


@dataclass(frozen=True, slots=True)
class _Look:
    """What a window was found to hold, and `at` which instant of the server's clock; `how` where something is due.

    `gone`: how much was due by an inventory, and is not there any more.
    """

    taken: Taken
    found: Found
    at: datetime
    how: How | None
    gone: int

    def tally(self) -> Tally:
        """As it is told."""
        found, taken = self.found, self.taken
        return replace(found.tally, after=taken.after, next_due=found.next_due, requests=taken.requests, gone=self.gone)


class S3Batch:
    """See `stores.base.ExpiringBatch`."""

    def __init__(self, ground: Ground, plan: TargetPlan) -> None:
        self._ground, self._plan = ground, plan
        self._rulings = ground.looking(plan)
        self._look: _Look | None = None
        self._items: Items | None = None

    async def looked(self, window: Window) -> Tally:
        """Read and judge the window; where something is due, see that it can be erased here at all."""
        ground = self._ground
        bucket = await ground.place.bucket()
        async with ground.walks.at(bucket, ground.listing(window.walk), window.after, window.until) as pages:
            taken = await pages.take(window.after, window.size)
        page = await ground.sources.page(bucket, taken.rows)
        await self._rulings.ask(accounts_of(page), ground.directory)
        found = ground.reading.found(self._rulings, page, taken.rows, taken.torn)
        gone = 0
        if taken.picture is not None:
            taken, found, gone = await as_it_is_now(ground, self._rulings, window.walk, taken, found)
        ground.seen(window, taken, found)
        found = ground.locks.apart(self._rulings, found, taken.rows, self._plan.now)
        how = (await ground.place.abilities()).how() if found.tally.selected else None
        # The permit is asked for after this.
        self._look = look = _Look(taken, found, bucket.endpoint.clock.earliest(), how, gone)
        return self._told(look)

    async def intended(self, permit: Permit, window: Window) -> Intended:
        """Judge it once more, by what the directory, tags and owning rows say now."""
        assert permit.epoch == self._plan.epoch
        assert self._look is not None, "it was not looked at"
        ground, taken, found = self._ground, self._look.taken, self._look.found
        page = await ground.sources.again(await ground.place.bucket(), taken.rows, found.page, found.due)
        accounts, fresh = accounts_of(page), Rulings(self._plan)
        await fresh.ask(accounts, ground.directory)
        # By the same rules and the same facts the verdicts are the same.
        if page is not found.page or not fresh.knows_the_same(self._rulings, accounts):
            found = ground.reading.found(fresh, page, taken.rows, taken.torn)
            found = ground.locks.apart(fresh, found, taken.rows, self._plan.now)
            self._look = replace(self._look, found=found)
        anchors = found.page.anchors
        self._items = items = Items(
            ground.listing(window.walk),
            taken.rows.doomed([*found.due, *found.markers]),
            [*found.labels, *found.marker_labels],
            [*map(anchors.__getitem__, found.due), *[None] * len(found.markers)],
            len(found.markers),
        )
        return Intended(len(items), items.document())

    async def erase(self, permit: Permit, window: Window, *, salt: str) -> Tally:
        """Ask for what was intended, until the permit's deadline by the server's clock; each item is accounted for."""
        del window
        look, items = self._look, self._items
        assert look is not None
        assert items is not None, "nothing was intended"
        assert look.how is not None, "nothing was due"
        expiry = Expiry(look.at, look.at + (permit.deadline - permit.issued_at) - _MARGIN)
        done = await self._delete(await self._ground.place.bucket(), items, expiry, look.how)
        if (picture := look.taken.picture) is not None:
            over = zip(items.doomed, done.outcomes, strict=True)
            await picture.mark_gone((each.key, each.version_id) for each, gone in over if gone.outcome in _OVER)
        return self._erased(look, items, done, salt)

    def _told(self, look: _Look) -> Tally:
        picture = look.taken.picture
        return look.tally() if picture is None else bounded(look.tally(), self._plan, picture)

    async def _delete(self, bucket: Bucket, items: Items, expiry: Expiry, how: How) -> Deletion:
        """Versions, then the markers that are left alone by them."""
        throttle = self._ground.place.throttle
        versions = items.doomed[: len(items) - items.markers]
        done = await delete(bucket, versions, expiry=expiry, how=how, throttle=throttle)
        if not items.markers:
            return done
        left = {
            each.key
            for each, gone in zip(versions, done.outcomes, strict=True)
            if gone.outcome not in ("erased", "already_gone")
        }
        markers = items.doomed[len(versions) :]
        lone = [each for each in markers if each.key not in left]
        then = await delete(bucket, lone, expiry=expiry, how=how, throttle=throttle)
        told = iter(then.outcomes)
        outcomes = [Gone("failed", "NotAsked") if each.key in left else next(told) for each in markers]
        return Deletion((*done.outcomes, *outcomes), done.unanswered + then.unanswered, done.requests + then.requests)

    def _erased(self, look: _Look, items: Items, done: Deletion, salt: str) -> Tally:
        """What it came to: what was kept as it was judged, and what became of the rest."""
        assert look.how is not None
        outcomes, seen = done.outcomes, self._told(look)
        came_to = Counter(each.outcome for each in outcomes)
        went = items.went([i for i, each in enumerate(outcomes) if each.outcome == "erased"], salt)
        passed = sum(each.code in _PASSES for each in outcomes if each.outcome == "failed") if came_to["failed"] else 0
        failed = came_to["failed"] + came_to["denied"] - passed
        again = self._locked(items, outcomes) if came_to["held"] else None
        return replace(
            seen,
            selected=len(items) + seen.gone,
            changed=went.changed,
            by_tier=went.by_tier,
            bytes=went.bytes,
            oldest=went.oldest,
            newest=went.newest,
            ids_digest=went.ids_digest,
            held=seen.held + came_to["held"],
            gone=seen.gone + came_to["already_gone"] + came_to["changed"],
            locked=passed,
            failed=failed,
            in_doubt=came_to["unknown"],
            next_due=min((each for each in (seen.next_due, again) if each is not None), default=None),
            requests=seen.requests + done.requests,
            verified=_verified(items, look.how),
            refusal=_refusal(self._ground.name, items.what, outcomes) if failed else None,
        )

    def _locked(self, items: Items, outcomes: Sequence[Gone]) -> str | None:
        """Remember what Object Lock keeps; when to ask for the first of it again."""
        locks, now = self._ground.locks, self._plan.now
        again = [
            locks.found(each.key, each.version_id, gone.lock, now)
            for each, gone in zip(items.doomed, outcomes, strict=True)
            if gone.outcome == "held"
        ]
        return rfc3339(min(again)) if again else None


def _verified(items: Items, how: How) -> str:
    """How it is known that nothing else went than what was judged."""
    if all(each.fixed for each in items.doomed):
        return "version" if items.what == "versions" else "upload"
    return "conditional" if how.conditional else "unconditional"


def _refusal(name: str, what: Listing, outcomes: Sequence[Gone]) -> Refused:
    """Why some could not be erased, by the first of them."""
    denied = next((each for each in outcomes if each.outcome == "denied"), None)
    right = {
        "objects": "s3:DeleteObject",
        "versions": "s3:DeleteObjectVersion",
        "uploads": "s3:AbortMultipartUpload",
    }[what]
    if any(each.code == LOCK_NOT_TOLD for each in outcomes):
        return Refused(
            f"target {name}: erasing is refused, and whether Object Lock is why may not be seen",
            remedy="grant s3:GetObjectLegalHold and s3:GetObjectRetention on all keys of the target",
        )
    if denied is not None:
        return Refused(
            f"target {name}: erasing is not allowed ({denied.code}), and no lock explains it: {right} is missing",
            remedy=f"grant {right} on all keys of the target",
        )
    other = next(each for each in outcomes if each.outcome == "failed" and each.code not in _PASSES)
    if other.code == "NotLookedAt":
        return Refused(
            f"target {name}: objects can't be looked at right before they are erased",
            remedy="grant s3:GetObject on all keys of the target",
        )
    if other.code == "MarkerMade":
        return Refused(
            f"target {name}: the bucket keeps versions since a moment ago, so that erasing left markers",
            remedy="nothing to do: the next sweep erases versions",
        )
    return Refused(
        f"target {name}: the endpoint does not erase: {other.code}",
        remedy="see the documentation of the endpoint for this code",
    )
