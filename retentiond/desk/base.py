"""The desk itself: what answering and changing stands on. The daemon's `App` is one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from retentiond.control import holds
from retentiond.control.database import Database, Tx
from retentiond.control.holds import FenceProbe, OnWait, Recorder
from retentiond.control.natives import NativeStep
from retentiond.domain.holds import Hold
from retentiond.ledger import kinds
from retentiond.ledger.journal import Journal
from retentiond.stores.cloudwatch.native import LogRetentionHolds
from retentiond.stores.deferred.holds import RequestHolds
from retentiond.stores.postgres.native import NativeHolds
from retentiond.stores.s3.native import S3NativeHolds
from retentiond.sweep.engine import Engine
from retentiond.sweep.recovery import probe_of
from retentiond.sweep.spec import Spec


@dataclass(frozen=True, slots=True)
class Did:
    """What a change came to: the hold it was about and the event in its life, else what is answered."""

    subject: str | None = None
    answer: Mapping[str, object] | None = None


Also: TypeAlias = Callable[[Tx, Did], Awaitable[None]]
"""What is done in the transaction of a change as well, before its entry in the ledger; it may raise to undo all."""


AnyNative: TypeAlias = NativeHolds | S3NativeHolds | LogRetentionHolds
"""What keeps a target's own store in step with the holds."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What of the settings bears on what a desk may do: the mode, and what is approved or asked for by them."""

    mode: Literal["plan", "enforce"]
    policy_approved: str | None = None
    two_person: bool = False


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything that is asked and changed through; `document` is the configuration of the policy's digest.

    `texts_key` keys the digests of free text in the ledger; `native` are the targets whose store can keep holds,
    `asked` those whose store may have deletions that a hold has cancelled.
    """

    rules: Rules
    database: Database
    journal: Journal
    engine: Engine
    texts_key: bytes
    document: dict[str, object]
    native: Mapping[str, AnyNative]
    asked: Mapping[str, RequestHolds]

    @property
    def spec(self) -> Spec:
        """The configuration of all sweeps."""
        return self.engine.tools.spec

    def fences(self) -> dict[str, FenceProbe]:
        """For each target that has to be asked, how to ask whether a permit's batch there is over for good."""
        probes = {name: probe_of(store) for name, store in self.engine.stores.items()}
        return {name: probe for name, probe in probes.items() if probe is not None}

    async def activate_holds(self, record: Recorder, on_wait: OnWait | None = None) -> list[Hold]:
        """Make active every pending hold that can be, once; see `control.activation`."""
        return await holds.activate_pending(
            self.database,
            self.fences(),
            on_wait,
            native=self.natives(),
            record=record,
            grace_seconds=self.spec.late_effect_grace.total_seconds(),
        )

    def natives(self) -> dict[str, NativeStep]:
        """For each target whose store has to be asked before a hold is active, what asks it.

        It keeps holds itself (of a bucket any hold may ask that), or erases by itself whoever asks (log groups), or may
        have deletions that have to be cancelled.
        """
        keep = {name: each for name, each in self.native.items() if each.always or not isinstance(each, NativeHolds)}
        return {**keep, **self.asked}

    def hold_recorder(self, by: str, also: Also | None = None) -> Recorder:
        """Writes each change of a hold into the ledger, in the transaction that makes it.

        `also` is done where nothing changed as well: that is an answer, which has to be the same the next time.
        """

        async def record(tx: Tx, hold: Hold, event: str | None) -> None:
            if also is not None:
                await also(tx, Did(subject=hold.id, answer={"event": event}))
            if event is None:
                return
            epoch = (await holds.current(tx)).epoch
            await self.journal.append(tx, kinds.hold(event, hold, by=by, epoch=epoch, key=self.texts_key))

        return record
