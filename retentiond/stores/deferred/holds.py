"""Holds over a store whose deletions run later: what it took on and a hold covers is cancelled, and that confirmed.

A hold is active only when the store itself was asked for the deletions that it has, and none is left that may reach
what the hold covers; it is asked again for as long as the hold lives, so that one is caught that was thought lost and
came late. One that was asked for under the hold leaves out what it covers, and stays.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from retentiond.domain.holds import Hold, TargetHold, covers_target
from retentiond.errors import RetentiondError, quoted
from retentiond.stores.base import AccountDirectory
from retentiond.stores.deferred.backend import Backend, Pending
from retentiond.stores.deferred.basis import Basis
from retentiond.stores.deferred.store import ELSEWHERE, DeferredStore

_ANSWER_SECONDS: Final = 20.0
_LOOKS: Final = 10
_PAUSE: Final = 0.2


@dataclass(slots=True)
class RequestHolds:
    """What keeps holds over one target; see `control.natives.NativeStep`."""

    store: DeferredStore
    class_name: str
    directory: AccountDirectory | None

    def concerned(self, known: Sequence[Hold]) -> list[str]:
        """The holds that cover something of it."""
        return [hold.id for hold in known if hold.holds and self._covers(hold)]

    async def settle(self, known: Sequence[Hold]) -> dict[str, str]:
        """Cancel what may reach what a hold covers; for each hold why that is not done yet."""
        concerned = [hold for hold in known if hold.holds and self._covers(hold)]
        if not concerned:
            return {}
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                return await self._settled(concerned)
        except (RetentiondError, OSError, TimeoutError) as error:
            return dict.fromkeys((hold.id for hold in concerned), _told(error))

    def _covers(self, hold: Hold) -> bool:
        return covers_target(hold.scope, target=self.store.name, class_name=self.class_name)

    async def _settled(self, concerned: Sequence[Hold]) -> dict[str, str]:
        backend = self.store.backend
        found = [await self.store.hold_by(hold, self.directory) for hold in concerned]
        holds = _Told(await Basis.today(backend, self.directory), found)
        refused: dict[str, str] = {}
        reached: dict[str, list[str]] = {}
        for look in range(_LOOKS):
            # Asked of the server before what we know of it: what it has by now was written down before.
            pending = await backend.pending()
            known = await self._known() if pending else _Asked({}, {})
            reached = {each.id: ids for each in pending if (ids := holds.reached(known.of(each)))}
            if not reached:
                return await self._lingering(backend, holds)
            for name, ids in reached.items():
                refused[name] = await self._cancel(backend, name, ids)
            await asyncio.sleep(_PAUSE if look else 0)
        lacking: dict[str, list[str]] = {}
        for name, ids in reached.items():
            for hold_id in ids:
                lacking.setdefault(hold_id, []).append(f"deletion {name} {refused[name] or 'is not cancelled yet'}")
        return {hold_id: "; ".join(sorted(why)) for hold_id, why in lacking.items()}

    async def _lingering(self, backend: Backend, holds: _Told) -> dict[str, str]:
        """The holds that cover what may still be carried out though the server lists it no more, whoever cancelled it.

        One that vanished by nobody known counts as cancelled now; one that an open permit intends, as asked for then.
        """
        memory = self.store.memory
        if memory is None:
            return {}
        # In this order: a permit that ends in between has left a row.
        intended = await memory.intended()
        lacking: dict[str, str] = {}
        for number, seconds, document in intended:
            for hold_id in holds.reached(document.get("requests", ())) if backend.lingers(seconds) else ():
                lacking[hold_id] = f"what the batch of permit {number} asked for is not known yet"
        for each in await memory.unfinished():
            if not (ids := holds.reached([each.asked])):
                continue
            if each.place != self.store.records:
                told = f"deletion {each.id} was asked for at {' '.join(each.place)}, which can't be asked; {ELSEWHERE}"
                lacking |= dict.fromkeys(ids, told)
                continue
            age = each.seconds - each.moved_seconds if each.called_off else each.seconds
            if not backend.lingers(age):
                continue
            said = await backend.state(each.id, each.asked["what"], each.seconds, each.moved_seconds)
            if said.word == "done":
                continue
            if not each.called_off:
                await memory.call_off(each.id, ids)
            told = f"deletion {each.id} was cancelled, and it is not certain yet that it is not carried out"
            lacking |= dict.fromkeys(ids, told)
        return lacking

    async def _cancel(self, backend: Backend, id: str, holds: Sequence[str]) -> str:
        if self.store.memory is not None:
            # Before it is asked: however it ends now, that is why.
            await self.store.memory.call_off(id, holds)
        why = await backend.cancel(id)
        if self.store.memory is not None:
            # It may have been cancelled long after it was to be, and its age then tells whether it was in time.
            await self.store.memory.call_off(id, holds)
        return f"can't be cancelled: {why}" if why else ""

    async def _known(self) -> _Asked:
        memory = self.store.memory
        if memory is None:
            return _Asked({}, {})
        intended = {number: document for number, _, document in await memory.intended()}
        recorded: dict[str, list[Mapping[str, Any]]] = {}
        for each in await memory.unfinished():
            if each.place != self.store.records:
                continue
            recorded.setdefault(each.id, []).append(each.asked)
        return _Asked(recorded, intended)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is remembered of deletions: by their ids, and what open permits are about to ask for, by their numbers."""

    recorded: Mapping[str, Sequence[Mapping[str, Any]]]
    intended: Mapping[int, Mapping[str, Any]]

    def of(self, pending: Pending) -> list[Mapping[str, Any]] | None:
        """What it may have been asked for; None: nobody knows."""
        if pending.id in self.recorded:
            return list(self.recorded[pending.id])
        if pending.permit is not None and pending.permit in self.intended:
            return list(self.intended[pending.permit].get("requests", ()))
        return None


@dataclass(frozen=True, slots=True)
class _Told:
    """Holds as the target is configured today."""

    basis: Basis
    holds: Sequence[TargetHold]

    def reached(self, asked: Sequence[Mapping[str, Any]] | None) -> list[str]:
        """Those that cover what a deletion may erase; of one that nobody knows, all of them."""
        if asked is None:
            return [hold.hold_id for hold in self.holds]
        return [
            hold.hold_id
            for hold in self.holds
            if any(hold.hold_id not in one.get("holds", ()) and self.basis.may_hold(one, hold) for one in asked)
        ]


def _told(error: RetentiondError | OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, RetentiondError) and error.remedy:
        return f"{error.message}; remedy: {error.remedy}"
    return quoted(error)
