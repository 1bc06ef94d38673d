"""What the daemon does beside sweeping: carries holds on, signs and verifies the ledger, adds its heartbeat.

Each job is a task of its own, so that none of them keeps a sweep or another job waiting, and one that fails is a fault
of its check and is tried again; none runs twice at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import structlog

from retentiond.control import entries, holds, idempotency, natives, overview, permits, requests, workers
from retentiond.control.holds import Waiting
from retentiond.control.overview import Overview
from retentiond.control.queue import Bell
from retentiond.control.workers import Role
from retentiond.daemon import App
from retentiond.daemon_ready import CONTROL, HOLDS, LEDGER, LOOP
from retentiond.daemon_watch import Watch
from retentiond.domain.duration import rfc3339
from retentiond.domain.evidence import parse_and_verify
from retentiond.domain.holds import Hold
from retentiond.errors import Blind, LedgerError, StillPending, Unreachable
from retentiond.ledger import kinds
from retentiond.ledger.verify import verify_database
from retentiond.sweep import native_expiry
from retentiond.sweep.following import Patience, follow

log = structlog.get_logger()
BY = "daemon"
HEARTBEAT_EVERY = timedelta(days=1)
STUCK_SECONDS = 60.0
"""A hold that is pending for longer is one that somebody has to see to: normally it takes one batch."""

_VERIFY_SECONDS = 86_400.0
_AGAIN_SECONDS = 60.0
_SOON_SECONDS = 5.0
_PRUNE_SECONDS = 3_600.0
# Between two pages of the ledger: verifying takes at most about half of the loop's time.
_PAGE_REST_SECONDS = 0.05
_STUCK = "stuck"
# A partition that was attached, a trigger that somebody disabled: seen by nobody until looked for.
_NATIVE_SECONDS = 60.0
# Somebody may set a lifecycle rule at any time; a call or two for each target that can have one.
_EXPIRY_SECONDS = 300.0
# A store's deletions take from a second to days; asking costs a call for each that is under way.
_FOLLOW_SECONDS = 5.0


@dataclass(slots=True)
class Jobs:
    """The jobs of one daemon; `consider` begins what is due, `close` ends all."""

    app: App
    watch: Watch
    role: Role = "all"
    _running: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _began: dict[str, float] = field(default_factory=dict)
    _not_before: dict[str, float] = field(default_factory=dict)
    _signed: int = 0
    _why: dict[str, str] = field(default_factory=dict)
    _native_epoch: int = -1
    _expiry_epoch: int = -1
    _patience: Patience = field(default_factory=Patience)

    def consider(self, seen: Overview, *, sweeping: bool, entered: bool) -> None:
        """Begin what is due; `sweeping`: the ledger grows at this moment; `entered`: the mode is in force."""
        self._begin_if(bool(seen.pending or seen.release_due), "holds", HOLDS, self._carry_holds_on, every=0)
        if self.app.natives():
            every = _NATIVE_SECONDS if self._native_epoch == seen.epoch else 0
            self._begin("native", HOLDS, lambda: self._keep_native(seen), every=every)
        every = _EXPIRY_SECONDS if self._expiry_epoch == seen.epoch else 0
        self._begin("native expiry", HOLDS, lambda: self._look_at_native_expiry(seen), every=every)
        self._begin_if(bool(self.app.asked), "following", LOOP, self._follow, every=_FOLLOW_SECONDS)
        self._judge_pending(seen)
        self._begin("presence", CONTROL, self._appear, every=workers.SEEN_EVERY_SECONDS)
        beats = _is_due(seen, entered=entered)
        self._begin_if(beats, "heartbeat", LEDGER, lambda: self._beat(entered=entered), every=_AGAIN_SECONDS)
        grown, every = seen.ledger_entries > self._signed, _AGAIN_SECONDS if sweeping else 0
        self._begin_if(grown, "checkpoint", LEDGER, self._sign, every=every)
        self._begin("verify", LEDGER, self._verify, every=_VERIFY_SECONDS)
        self._begin("prune", LOOP, self._prune, every=_PRUNE_SECONDS)

    async def close(self) -> None:
        """End all jobs, and take leave; what they had begun in the control database is undone there."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)
        with suppress(Unreachable):
            async with self.app.database.transaction() as tx:
                await workers.leave(tx, self.app.engine.tools.worker)

    async def _appear(self) -> None:
        async with self.app.database.transaction() as tx:
            await workers.appear(tx, self.app.presence(self.role))

    async def last_checkpoint(self) -> None:
        """Sign what the last sweeps have added."""
        try:
            await self._sign()
        except (LedgerError, Unreachable) as error:
            self.watch.fault(LEDGER, error, part="checkpoint")

    def _begin_if(
        self, wanted: bool, name: str, check: str, job: Callable[[], Awaitable[None]], *, every: float
    ) -> None:
        """Begin it where there is something to do; where another process has done it, nothing of it stands here."""
        if wanted:
            self._begin(name, check, job, every=every)
        elif name not in self._running:
            self.watch.clear(check, name)

    def _begin(self, name: str, check: str, job: Callable[[], Awaitable[None]], *, every: float) -> None:
        now = asyncio.get_running_loop().time()
        never = float("-inf")
        if name in self._running or now < max(self._began.get(name, never) + every, self._not_before.get(name, never)):
            return
        self._began[name] = now
        self._running[name] = asyncio.create_task(self._run(name, check, job))

    async def _run(self, name: str, check: str, job: Callable[[], Awaitable[None]]) -> None:
        try:
            await job()
            self.watch.clear(check, name)
        except Unreachable as error:
            # The loop may see nothing of it: a control database that takes no writes (its disk is full) can be read.
            self.watch.fault(check, error, part=name)
            self._retry_in(name, _SOON_SECONDS)
        except Exception as error:
            self.watch.fault(check, error, part=name)
            self._retry_in(name, _AGAIN_SECONDS)
        finally:
            self._running.pop(name, None)

    def _retry_in(self, name: str, seconds: float) -> None:
        self._began.pop(name, None)
        self._not_before[name] = asyncio.get_running_loop().time() + seconds

    async def _carry_holds_on(self) -> None:
        app, record = self.app, self.app.hold_recorder(BY)
        self._why = {}
        active = await app.activate_holds(record, self._note_waiting)
        for hold in active:
            log.info("hold active", hold=hold.id)
        if ended := await holds.finish_releases(app.database, until=datetime.now(UTC), record=record):
            log.info("holds ended", holds=[hold.id for hold in ended])

    async def _keep_native(self, seen: Overview) -> None:
        """Keep the targets' own databases in step; what a pending hold waits for there is said with the others."""
        missing = await natives.settle(
            self.app.database,
            self.app.natives(),
            lambda name, error: log.error("unexpected", target=name, exc_info=error),
        )
        for name, each in self.app.native.items():
            if each.mended:
                log.warning("native holds mended", target=name, found=each.mended)
                each.mended = ()
        pending = {hold.id for hold in seen.pending}
        apart = {
            f"target {target}: hold {hold_id}: {why}"
            for target, lacking in missing.items()
            for hold_id, why in lacking.items()
            if hold_id not in pending
        }
        if apart:
            raise Blind(
                f"holds in the targets' own databases are not as they should be: {'; '.join(sorted(apart))}",
                remedy="our own sweeps mind the holds all the same; see `retentiond check` for what is missing",
            )
        self._native_epoch = seen.epoch

    async def _look_at_native_expiry(self, seen: Overview) -> None:
        """Whether any store would erase by itself what a hold covers, or the law keeps."""
        async with self.app.database.transaction(read_only=True) as tx:
            known = (await holds.current(tx)).holds
        found = await native_expiry.look(self.app.spec.targets, self.app.engine.stores, known, self.app.spec.rules)
        self._expiry_epoch = seen.epoch
        for each in found:
            self.watch.metrics.observe_native_expiry(each.target, None if each.error else len(each.conflicts))
        against = [f"target {each.target}: {one.rule.name}: {one.why}" for each in found for one in each.conflicts]
        if against:
            raise Blind(
                f"stores would erase by themselves what must stay: {'; '.join(dict.fromkeys(against))}",
                remedy="switch these rules off, or narrow them to what no hold covers; our sweeps keep the promise "
                "without them",
            )

    async def _follow(self) -> None:
        """Ask about what stores carry out by themselves, and tell how long the oldest of it has been waiting."""
        engine, spec = self.app.engine, self.app.spec
        async with self.app.database.transaction(read_only=True) as tx:
            waiting = await requests.ages(tx)
        # In every mode: nothing is erased by asking, and what was taken on before goes on in any.
        for name in self.app.asked.keys() & waiting.keys():
            target, store = spec.target(name), engine.stores[name]
            if store.fence == "request":
                await follow(engine.tools, store, target, patience=self._patience, wake=spec.enforce)
        async with self.app.database.transaction(read_only=True) as tx:
            waiting = await requests.ages(tx)
        for name in self.app.asked:
            number, seconds = waiting.get(name, (0, 0.0))
            self.watch.metrics.observe_requests(name, number, seconds)

    def _note_waiting(self, hold: Hold, reasons: Sequence[Waiting]) -> None:
        told = {f"target {each.target}: {each.detail}" if each.target else each.detail for each in reasons}
        self._why[hold.id] = "; ".join(sorted(told))

    def _judge_pending(self, seen: Overview) -> None:
        stuck = [hold.id for hold in seen.pending if hold.seconds > STUCK_SECONDS]
        if not stuck:
            self.watch.clear(HOLDS, _STUCK)
            return
        why = "; ".join(sorted({self._why[hold] for hold in stuck if hold in self._why})) or "not known yet"
        error = StillPending(
            f"not active more than {STUCK_SECONDS:.0f} s after they were placed: holds {', '.join(stuck)} ({why})",
            remedy="let the named targets be reached; new batches respect the holds already, but one from before them "
            "may still take effect there",
        )
        self.watch.fault(HOLDS, error, part=_STUCK)

    async def _beat(self, *, entered: bool) -> None:
        async with self.app.database.transaction() as tx:
            # Under the lock of the ledger's head, in a later statement: another replica's beat is seen, and the mode is
            # that of this moment. A look from before the mode was entered would tell of a plan and of no policy.
            await entries.lock_head(tx)
            seen = await overview.read(tx)
            if _is_due(seen, entered=entered):
                await self.app.journal.append(tx, _heartbeat(seen))

    async def _sign(self) -> None:
        journal = self.app.journal
        async with self.app.database.transaction() as tx:
            note = await journal.checkpoint(tx)
        size = parse_and_verify(note, journal.verifier).size
        if size != self._signed:
            self._signed = size
            log.info("checkpoint", entries=size, note=note)

    async def _verify(self) -> None:
        # What was appended since the last checkpoint is signed first: entries that none vouches for count as a break.
        await self._sign()
        report = await verify_database(self.app.database, self.app.journal.verifier, _rest)
        if report.first_break is not None:
            raise LedgerError(
                f"the ledger does not hold together: {report.first_break}",
                remedy="run `retentiond ledger verify`, keep the control database and its backups as they are, and "
                "compare with the checkpoints in the logs",
            )
        self.watch.metrics.observe_verified()
        log.info("ledger verified", entries=report.size, root=report.root)

    async def _prune(self) -> None:
        async with self.app.database.transaction() as tx:
            await permits.prune(tx)
            await idempotency.prune(tx)
            await requests.prune(tx)
        await Bell(self.app.database).prune()


async def _rest(_: Sequence[bytes]) -> None:
    await asyncio.sleep(_PAGE_REST_SECONDS)


def _is_due(seen: Overview, *, entered: bool) -> bool:
    """Whether the ledger lacks this day's heartbeat; before the mode is in force the first one has nothing to tell."""
    return entered if seen.heartbeat_at is None else seen.heartbeat_at + HEARTBEAT_EVERY <= seen.now


def _heartbeat(seen: Overview) -> kinds.Entry:
    return kinds.heartbeat(
        mode=seen.mode,
        policy_digest=seen.digest,
        targets={
            name: {
                "last_success": rfc3339(unit.last_success_at) if unit.last_success_at else None,
                "next_due": rfc3339(unit.next_due_at) if unit.next_due_at else None,
            }
            for name, unit in sorted(seen.units.items())
        },
    )
