"""One window of files: read, with what is kept of each written beside it; judged again; then put in its place.

So that a permit lasts for moments, however large the files are, all of the reading and writing comes before it. Under
the permit the directory is asked once more about every account that lines go of: where it says anything else than
before, all of that is thrown away and the window is looked at again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from retentiond.domain.permit import Permit
from retentiond.domain.plan import TargetPlan
from retentiond.errors import Blind, Conflict, Refused, Unreachable
from retentiond.stores.base import Intended, Tally, Window
from retentiond.stores.files.folder import Changed, Folder, shown
from retentiond.stores.files.ground import Ground, Walker, in_thread
from retentiond.stores.files.intent import Item, document, tidied, went
from retentiond.stores.files.presence import Presence
from retentiond.stores.files.swap import Swap, Undone, carried_out
from retentiond.stores.files.work import Made
from retentiond.stores.rulings import Account, Rulings

_TRIES: Final = 20
_PAUSE_SECONDS: Final = 0.05


@dataclass(slots=True)
class _Came:
    """What came of the files, by their place among those that were intended."""

    done: list[int] = field(default_factory=list)
    changed: list[int] = field(default_factory=list)
    undone: list[int] = field(default_factory=list)
    why: str = ""
    guarded: bool = True


class FilesBatch:
    """See `stores.base.PresentBatch`."""

    def __init__(self, ground: Ground, plan: TargetPlan, rulings: Callable[[TargetPlan], Rulings]) -> None:
        """`rulings` gives those that looks under a plan go by."""
        self._ground, self._plan = ground, plan
        self._rulings = rulings(plan)
        self._presence = Presence(ground.folder, ground.name)
        self._walker: Walker | None = None
        self._items: list[Item] = []
        self._attended: Mapping[str, Any] | None = None
        self._asked = 0.0

    async def close(self) -> None:
        """Throw away what was not taken, and be there no more."""
        try:
            if self._walker is not None:
                await self._walker.close()
        finally:
            self._presence.leave()

    async def looked(self, window: Window) -> Tally:
        """Read and judge the window, and write what is kept of files where lines are due; see `Walker`."""
        if self._walker is not None:
            await self._walker.close()
        self._walker = Walker(self._ground, self._plan, self._rulings, erasing=True)
        return await self._walker.walk(window)

    async def attend(self) -> Mapping[str, Any]:
        """Lock the target's lock file, and throw away what earlier workers have left."""
        if not self._ground.folder.same:
            raise Blind(
                f"folder {shown(self._ground.folder.path)} is another one by now",
                remedy="nothing to do: the next sweep opens it anew",
            )
        told = await self._taken()
        try:
            await in_thread(lambda: tidied(self._ground.folder, self._ground.name))
        except OSError as error:
            raise Refused(
                f"what an earlier sweep of target {self._ground.name} has left can't be removed: {error.strerror}",
                remedy=f"let this process write in {shown(self._ground.folder.path)}",
            ) from error
        self._attended = told
        return told

    async def _taken(self) -> Mapping[str, Any]:
        tries_left = _TRIES
        while True:
            try:
                return await in_thread(self._presence.take)
            except Unreachable:
                # Somebody who only asks has the lock for a moment.
                if not tries_left:
                    raise
                tries_left -= 1
                await asyncio.sleep(_PAUSE_SECONDS)
            except OSError as error:
                raise Refused(
                    f"the lock file of target {self._ground.name} can't be written: {error.strerror}",
                    remedy=f"let this process write in {shown(self._ground.folder.path)}",
                ) from error

    async def intended(self, permit: Permit, window: Window) -> Intended:
        """See that the directory says the same of all accounts concerned; the verdicts are then the same."""
        del window
        assert permit.epoch == self._plan.epoch
        assert self._walker is not None, "it was not looked at"
        accounts: set[Account] = set()
        for made in self._walker.made:
            accounts |= {each[0] if isinstance(each, tuple) else each for each in made.sums.seen}
        fresh, self._asked = Rulings(self._plan), _uptime()
        await fresh.ask(accounts, self._ground.directory)
        if not fresh.knows_the_same(self._rulings, accounts):
            self._rulings.forget()
            self._ground.memory.forget()
            raise Conflict
        written = await self._ground.written(
            await self._ground.entries(anew=True), [made.entry for made in self._walker.made], anew=True
        )
        if written:
            # Somebody has opened one of them since: it is seen to at the next look.
            self._ground.stale()
            raise Conflict
        self._items = [Item.of(made, self._ground.name) for made in self._walker.made]
        return Intended(self._walker.total.selected, document(self._items, self._attended))

    async def erase(self, permit: Permit, window: Window, *, salt: str) -> Tally:
        """Put each file's kept lines in its place, or take it away; then make that outlast a loss of power."""
        del window
        until = self._asked + (permit.deadline - permit.issued_at).total_seconds()
        walker = self._walker
        assert walker is not None
        assert self._presence.held, "nobody could tell that this worker is there"
        try:
            came = await in_thread(lambda: _carried_out(self._ground.folder, walker.made, self._items, until))
        except OSError as error:
            raise Unreachable(
                f"files of target {self._ground.name} are changed in part: {error.strerror}",
                remedy="nothing to do: the next sweep looks what is there",
            ) from error
        finally:
            self._ground.stale()
        made, walker.made = walker.made, []
        for each in made:
            if each.fd >= 0:
                os.close(each.fd)
        self._remember(made, came)
        return self._told(walker.total, made, came, salt)

    def _remember(self, files: Sequence[Made], came: _Came) -> None:
        for at in came.done:
            made = files[at]
            if made.after is not None:
                kept = made.sums.tally()
                went_away = kept.selected if self._ground.changing is None else 0
                left = replace(
                    kept,
                    scanned=kept.scanned - went_away,
                    selected=0,
                    bytes=0,
                    by_tier={},
                    oldest=None,
                    newest=None,
                )
                self._ground.memory.learn(made.after, self._plan, left, exact=False)

    def _told(self, seen: Tally, made: Sequence[Made], came: _Came, salt: str) -> Tally:
        gone = went([self._items[at] for at in came.done], salt)
        refusal = seen.refusal
        if came.undone:
            refusal = Refused(
                f"files of target {self._ground.name} can't be replaced: {came.why}",
                remedy=f"let this process write in {shown(self._ground.folder.path)}",
            )
        return replace(
            seen,
            changed=gone.changed,
            by_tier=gone.by_tier,
            bytes=gone.bytes,
            oldest=gone.oldest,
            newest=gone.newest,
            ids_digest=gone.ids_digest,
            locked=sum(made[at].sums.due.total() for at in came.changed),
            failed=seen.failed + sum(made[at].sums.due.total() for at in came.undone),
            verified="exchanged, read back" if came.guarded else "replaced, read back",
            refusal=refusal,
        )


def _uptime() -> float:
    """Seconds that nobody sets, which go on while the machine sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _carried_out(folder: Folder, made: list[Made], items: list[Item], until: float) -> _Came:
    """Each file in turn, as long as what was said of its accounts is no older than a permit's life.

    Nobody enforces that: it is for a worker that stood still in between, and then goes by what was true a day ago.
    """
    came = _Came()
    for at, (each, item) in enumerate(zip(made, items, strict=True)):
        try:
            if _uptime() > until:
                raise Changed
            if each.part:
                os.rename(each.part, item.private, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
            guarded = carried_out(folder, Swap(item.name, item.before, item.private, item.after))
        except Changed:
            came.changed.append(at)
        except Undone as error:
            came.undone.append(at)
            came.why = str(error)
        else:
            came.done.append(at)
            came.guarded = came.guarded and guarded
    os.fsync(folder.fd)
    return _put_away(folder, made, items, came)


def _put_away(folder: Folder, made: list[Made], items: list[Item], came: _Came) -> _Came:
    """What was made for nothing goes; only that, whatever else a rotation has brought under its name."""
    for at in (*came.changed, *came.undone):
        for name in (made[at].part, items[at].private) if made[at].part else ():
            found = folder.entry(name)
            if found is not None and found.mark == made[at].after:
                os.unlink(name, dir_fd=folder.fd)
    return came
