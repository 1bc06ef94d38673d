"""Erasing objects, versions, markers and uploads: the only code that sends S3 a request that destroys.

Every item asked for gets an outcome, whatever the server says or leaves out. Up to 1000 go in a request; what XML can't
carry goes singly. A request has an absolute expiry that the server enforces (`signing`), and a repeated one has the
same. What the server has answered with SlowDown or InternalError, for all or for single keys, is asked for again until
then; what was *not* answered never is: it may take effect yet, so it is `unknown`, and the permit must outlast it
(4-safety). So it is where something in front of the server has answered for it (a 504), or the server failed in the
middle of a request: that is asked for again, but whatever is said then, the first may still be carried out after it.

An object that has no version is erased only if it is the one that was judged: by its ETag where the server compares it
(`How.conditional`), else by looking right before. A governance bypass is never sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field

from retentiond.errors import RetentiondError
from retentiond.stores.clock import Expiry
from retentiond.stores.s3 import errors
from retentiond.stores.s3.bodies import body_of, checksum, fits, read_answer
from retentiond.stores.s3.documents import Malformed
from retentiond.stores.s3.endpoint import Bucket, Reply
from retentiond.stores.s3.errors import Unanswered, Unsent
from retentiond.stores.s3.items import ERASED, LOCK_NOT_TOLD, Deletion, Doomed, Gone, How
from retentiond.stores.s3.locking import LocksNotTold, lock_of
from retentiond.stores.s3.looking import outcome_by_looking, outcomes_by_listing
from retentiond.stores.s3.throttle import Throttle
from retentiond.stores.s3.uploading import parts_left

_TRIES = 8
_LOOKS = 16
"""How many HEADs at a time."""
PARTS_LEFT = "PartsLeft"
"""The code of an upload that was aborted, and still has parts."""
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 3.0


async def delete(
    bucket: Bucket, items: Sequence[Doomed], *, expiry: Expiry, how: How, throttle: Throttle | None = None
) -> Deletion:
    """Erase them. Never raises for what the server or the network does: that is in the outcomes."""
    before = bucket.endpoint.requests
    work = _Work(bucket, items, expiry, how, throttle or Throttle())
    alone = _singles(items)
    together = [i for i in range(len(items)) if i not in set(alone)] if alone else list(range(len(items)))
    keys = max(1, min(how.keys, 1000))
    tasks = [work.chunk(together[at : at + keys]) for at in range(0, len(together), keys)]
    tasks += [work.single(i) for i in alone]
    await _several(tasks, how.concurrency)
    await work.tell_locks()
    return Deletion(
        tuple(work.outcome(i) for i in range(len(items))),
        work.unanswered,
        bucket.endpoint.requests - before,
    )


@dataclass(slots=True)
class _Work:
    """One call of `delete`: what is known of each item so far."""

    bucket: Bucket
    items: Sequence[Doomed]
    expiry: Expiry
    how: How
    throttle: Throttle
    outcomes: list[Gone | None] = field(init=False)
    unsure: frozenset[int] = field(init=False)
    unanswered: int = 0
    _following: set[int] = field(default_factory=set)
    """Items of a request that may be carried out yet, though something was answered to it."""
    _torn: set[int] = field(default_factory=set)
    """Items of which the server itself said that it failed in the middle: they may be gone by our own hand."""

    def __post_init__(self) -> None:
        self.outcomes = [None] * len(self.items)
        compared = self.how.conditional
        self.unsure = frozenset(i for i, each in enumerate(self.items) if not ((compared and each.etag) or each.fixed))

    def outcome(self, item: int) -> Gone:
        """What became of an item, as far as that is known."""
        said = self.outcomes[item] or Gone("failed", "NotAsked")
        if item in self._following:
            return Gone("unknown", said.code or "MayFollow")
        if item in self._torn and said.outcome in ("already_gone", "changed", "failed"):
            return Gone("unknown", said.code)
        return said

    async def chunk(self, pending: list[int]) -> None:
        """Erase these by DeleteObjects, until each has an outcome."""
        last = "NotAsked"
        for attempt in range(_TRIES):
            await self.throttle.take(len(pending))
            pending = await self._confirmed(pending)
            if not pending:
                return
            if self._late():
                break
            try:
                pending, last = self._settle(await self._ask(pending), pending)
            except Unsent:
                last = "Unreachable"
            except Unanswered as error:
                self._unknown(pending, error)
                return
            if not pending:
                return
            await asyncio.sleep(_wait(attempt))
        self._give_up(pending, "RequestExpired" if self._late() else last)

    async def single(self, item: int) -> None:
        """Erase one by a request of its own: its key can't be written in XML, or it is an upload."""
        each = self.items[item]
        last = "NotAsked"
        for attempt in range(_TRIES):
            await self.throttle.take(1)
            if not await self._confirmed([item]):
                return
            if self._late():
                break
            try:
                reply = self._answered_single(await self._ask_single(each))
            except Unsent:
                last = "Unreachable"
            except Unanswered as error:
                self._unknown([item], error)
                return
            else:
                if reply.trouble is not None:
                    self._note(reply.trouble, [item])
                said = self._outcome_of_single(each, reply)
                if said is ERASED and each.upload_id is not None:
                    said = await self._aborted(each.key, each.upload_id)
                if isinstance(said, Gone):
                    self.outcomes[item] = said
                    return
                last = said
            await asyncio.sleep(_wait(attempt))
        self._give_up([item], "RequestExpired" if self._late() else last)

    async def _aborted(self, key: str, upload_id: str) -> Gone | str:
        """What an upload that was aborted comes to: gone, or to be aborted again, since a part came late."""
        try:
            left = await parts_left(self.bucket, key, upload_id)
        except RetentiondError:
            return Gone("unknown", "NotVerified")
        return PARTS_LEFT if left else ERASED

    async def tell_locks(self) -> None:
        """Tell what a lock keeps from what a right is missing for."""
        denied = [i for i, each in enumerate(self.outcomes) if each is not None and each.outcome == "denied"]
        await _several([self._tell_lock(i) for i in denied if self.items[i].upload_id is None], _LOOKS)

    async def _ask(self, pending: list[int]) -> Reply:
        body = body_of([self.items[i] for i in pending], conditional=self.how.conditional)
        headers = {"Content-Type": "application/xml", **checksum(body, self.how.checksum)}
        return await self.bucket.destroy(self.how.fence, self.expiry, "POST", "", [("delete", "")], headers, body)

    async def _ask_single(self, each: Doomed) -> Reply:
        query: list[tuple[str, str]] = []
        headers: dict[str, str] = {}
        if each.upload_id is not None:
            query = [("uploadId", each.upload_id)]
        elif each.version_id is not None:
            query = [("versionId", each.version_id)]
        if self.how.conditional and not each.fixed and each.etag:
            headers = {"If-Match": f'"{each.etag}"'}
        return await self.bucket.destroy(self.how.fence, self.expiry, "DELETE", each.key, query, headers, b"")

    def _settle(self, reply: Reply, pending: list[int]) -> tuple[list[int], str]:
        """Take down what the answer says; what is to be asked for again, and why."""
        trouble = reply.trouble
        if trouble is not None:
            self._note(trouble, pending)
            if trouble.throttled or trouble.broken:
                return pending, trouble.code
            said = Gone("failed", "RequestExpired") if self._refused_late(trouble) else _outcome_of_code(trouble.code)
            for i in pending:
                self.outcomes[i] = said
            return [], trouble.code
        if reply.status != 200:
            raise _no_answer(self.bucket, reply)
        try:
            faults, unsaid = read_answer(reply.body, [self.items[i] for i in pending])
        except Malformed as error:
            raise Unanswered(f"bucket {self.bucket.name}: {error.message}", remedy=error.remedy) from error
        if not faults and not unsaid:
            for i in pending:
                self.outcomes[i] = ERASED
            self.throttle.passed(len(pending))
            return [], ""
        again: list[int] = []
        for at, i in enumerate(pending):
            code = faults.get(at)
            if code is None:
                self.outcomes[i] = Gone("unknown", "NotAnswered") if at in unsaid else ERASED
            elif code in errors.THROTTLED or code in errors.BROKEN:
                again.append(i)
                if code in errors.BROKEN:
                    self._torn.add(i)
            else:
                self.outcomes[i] = _outcome_of_code(code)
        if any(code in errors.THROTTLED for code in faults.values()):
            self.throttle.slowed()
        else:
            self.throttle.passed(len(pending) - len(again))
        return again, next((faults[at] for at, i in enumerate(pending) if i in set(again)), "")

    async def _confirmed(self, pending: list[int]) -> list[int]:
        """Those that are still what was judged, looked at now where the server won't compare; the rest is settled."""
        unsure, seen = [i for i in pending if i in self.unsure], set[int]()
        if not unsure:
            return pending
        for at, said in (await outcomes_by_listing(self.bucket, [self.items[i] for i in unsure])).items():
            self.outcomes[unsure[at]] = said
            seen.add(unsure[at])

        async def look(i: int) -> None:
            self.outcomes[i] = await outcome_by_looking(self.bucket, self.items[i])

        await _several([look(i) for i in unsure if i not in seen], _LOOKS)
        return [i for i in pending if self.outcomes[i] is None]

    async def _tell_lock(self, item: int) -> None:
        each, said = self.items[item], self.outcomes[item]
        assert said is not None
        try:
            lock = await lock_of(self.bucket, each.key, each.version_id)
        except LocksNotTold:
            self.outcomes[item] = Gone("denied", LOCK_NOT_TOLD)
            return
        except RetentiondError:
            return
        if lock == "absent":
            self.outcomes[item] = Gone("already_gone", said.code)
        elif lock is not None and lock.holds(self.bucket.endpoint.clock.earliest()):
            self.outcomes[item] = Gone("held", said.code, lock)

    def _note(self, trouble: errors.Trouble, pending: Sequence[int]) -> None:
        """What a refusal says of the load, and of what may come after it."""
        if trouble.throttled:
            self.throttle.slowed()
        if trouble.may_follow:
            self.unanswered += 1
            self._following.update(pending)

    def _answered_single(self, reply: Reply) -> Reply:
        """The reply, if it is one to a DELETE: the page of a proxy, with status 200, says nothing of the object."""
        if reply.trouble is None and (reply.status not in (200, 204) or reply.body.strip()):
            raise _no_answer(self.bucket, reply)
        return reply

    def _outcome_of_single(self, each: Doomed, reply: Reply) -> Gone | str:
        """The outcome, or the code of what is to be tried again."""
        trouble = reply.trouble
        if trouble is None:
            made = each.version_id is None and reply.headers.get("x-amz-delete-marker") == "true"
            return Gone("failed", "MarkerMade") if made else ERASED
        if trouble.throttled or trouble.broken:
            return trouble.code
        if self._refused_late(trouble):
            return Gone("failed", "RequestExpired")
        # A 404 that says nothing of S3 may be the page of a proxy, or of a server that can't read the key.
        return _outcome_of_code(trouble.code)

    def _refused_late(self, trouble: errors.Trouble) -> bool:
        """Whether it came after its expiry, which AWS calls AccessDenied."""
        if trouble.code in errors.LATE:
            return True
        clock = self.bucket.endpoint.clock
        return trouble.status == 403 and clock.known and clock.latest() >= self.expiry.expires_at

    def _unknown(self, pending: list[int], error: Unanswered) -> None:
        self.unanswered += 1
        for i in pending:
            self.outcomes[i] = Gone("unknown", error.kind)

    def _give_up(self, pending: list[int], code: str) -> None:
        """The last answer was no outcome: what the server failed in the middle of may be done."""
        for i in pending:
            self.outcomes[i] = Gone("unknown" if code in errors.BROKEN else "failed", code)

    def _late(self) -> bool:
        clock = self.bucket.endpoint.clock
        return self.expiry.spent or (clock.known and clock.earliest() >= self.expiry.expires_at)


def _singles(items: Sequence[Doomed]) -> list[int]:
    """Those that can't go with others: uploads, and keys that XML can't carry."""
    all_fit = fits("".join([each.key for each in items]))
    if all_fit and not any(each.upload_id for each in items):
        return []
    return [i for i, each in enumerate(items) if each.upload_id is not None or not (all_fit or fits(each.key))]


def _outcome_of_code(code: str) -> Gone:
    if code in errors.ABSENT:
        return Gone("already_gone", code)
    if code in errors.OTHER:
        return Gone("changed", code)
    # MinIO says InvalidRequest of a version that is locked.
    return Gone("denied" if code in errors.DENIED or code == "InvalidRequest" else "failed", code)


def _no_answer(bucket: Bucket, reply: Reply) -> Unanswered:
    return Unanswered(
        f"bucket {bucket.name}: what came back has status {reply.status}, and is no answer to a deletion",
        remedy="check endpoint_url, and what stands in front of it",
    )


def _wait(attempt: int) -> float:
    return min(_LONGEST_WAIT, _FIRST_WAIT * 2.0**attempt)


async def _several(work: Sequence[Coroutine[None, None, None]], at_once: int) -> None:
    """All of it, so many at a time; where one raises, nothing more is sent by the others."""
    gate = asyncio.Semaphore(max(1, at_once))

    async def one(each: Coroutine[None, None, None]) -> None:
        async with gate:
            await each

    tasks = [asyncio.ensure_future(one(each)) for each in work]
    try:
        await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for each in work:
            each.close()
        raise
