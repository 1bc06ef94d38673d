"""The composition root: from settings to a running daemon, and to what each command needs of one.

`open_state` gives the control database (embedded or by `control.dsn`), `open_app` all that stands on it. Only `run`,
`sweep` and `demo` create state; every other command says that there is none, so that a hold is never placed in an
empty database beside the real one (3-interface); what only looks has `cli.looking`.
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import stamina

from retentiond import __version__
from retentiond.control import approvals, flags, meta, policies, requests, units
from retentiond.control.database import Database, Tx
from retentiond.control.legal_holds import LegalHolds
from retentiond.control.log_retention import LogRetention
from retentiond.control.workers import Role, Worker
from retentiond.daemon_spec import Shared, make_spec, make_stores
from retentiond.desk.base import AnyNative, Desk, Rules
from retentiond.desk.policy import EVADED_REMEDY, evaded_holds
from retentiond.domain.change import newly_erases
from retentiond.domain.permit import Unit
from retentiond.errors import Guarded, NoState, Unreachable
from retentiond.ledger import kinds
from retentiond.ledger.journal import Journal
from retentiond.ledger.keys import KEY_FILE, SigningKey, origin_of
from retentiond.settings import Settings
from retentiond.stores.base import AnyStore
from retentiond.stores.cloudwatch.native import LogRetentionHolds
from retentiond.stores.cloudwatch.store import CloudwatchStore
from retentiond.stores.deferred.holds import RequestHolds
from retentiond.stores.deferred.store import DeferredStore
from retentiond.stores.postgres.directory import Directory
from retentiond.stores.postgres.native import NativeHolds
from retentiond.stores.postgres.pools import Pools
from retentiond.stores.postgres.store import PostgresStore
from retentiond.stores.s3.native import S3NativeHolds, place_of
from retentiond.stores.s3.store import S3Store
from retentiond.sweep.engine import Announce, Engine
from retentiond.sweep.events import Observer, ignore
from retentiond.sweep.plans import Tools

Patience = Callable[[], bool]
"""Whether to go on waiting for what can't be reached yet."""

_CONTROL_START_SECONDS = 60.0


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class App(Desk):
    """Everything that a command or the daemon works with."""

    settings: Settings

    def presence(self, role: Role) -> Worker:
        """This process as it presents itself to the others."""
        worker = self.engine.tools.worker
        return Worker(worker, socket.gethostname(), os.getpid(), __version__, role, self.settings.mode)


@asynccontextmanager
async def open_state(settings: Settings, *, create: bool, patient: Patience = _never) -> AsyncIterator[Database]:
    """The control database, migrated where `create` says so; raises StateMissing, Unreachable.

    While `patient` says so, one that can't be reached is tried again for a minute: it may come up beside us.
    """
    async with control_dsn(settings, create=create) as dsn:
        database = await _connect(dsn, patient)
        try:
            if create:
                from retentiond.control import queue

                await database.migrate()
                await queue.install(database)
            else:
                await database.require_schema()
            yield database
        finally:
            await database.close()


async def _connect(dsn: str, patient: Patience) -> Database:
    def again(error: Exception) -> bool:
        return isinstance(error, Unreachable) and patient()

    async for attempt in stamina.retry_context(on=again, attempts=None, timeout=_CONTROL_START_SECONDS):
        with attempt:
            return await Database.connect(dsn)
    raise AssertionError("unreachable: the last attempt returns or raises")


@asynccontextmanager
async def control_dsn(settings: Settings, *, create: bool) -> AsyncIterator[str]:
    """The address of the control database: the configured one, or an embedded server that runs meanwhile."""
    if settings.control.dsn is not None:
        yield settings.control.dsn.get_secret_value()
        return
    from retentiond.control.embedded import EmbeddedPostgres

    folder = settings.state_folder()
    if create:
        folder.mkdir(parents=True, exist_ok=True)
    elif not folder.is_dir():
        raise NoState(
            f"there is no control state in {folder}",
            remedy="run `retentiond run` first, or set control.dsn or state_dir to the daemon's",
        )
    server = await EmbeddedPostgres.start(folder, create=create)
    try:
        yield server.dsn
    finally:
        await server.stop()


@asynccontextmanager
async def open_app(
    settings: Settings,
    *,
    create: bool,
    reading: bool = False,
    observer: Observer = ignore,
    patient: Patience = _never,
    shards_at_once: int = 1,
) -> AsyncIterator[App]:
    """All that stands on the control database; see `open_state`. `reading`: nothing will be written or signed."""
    async with open_state(settings, create=create, patient=patient) as database:
        async with database.transaction() as tx:
            await meta.require_control_id(tx, settings.control.id)
            control_id = await meta.control_id(tx)
            keys = {name: await meta.secret(tx, name) for name in ("accounts", "evidence", "texts")}
        text = settings.ledger.key.get_secret_value() if settings.ledger.key else None
        folder = settings.state_folder()
        if text is None and create:
            folder.mkdir(parents=True, exist_ok=True)
        if reading and text is None and not (folder / KEY_FILE).exists():
            key = SigningKey.passing()
        else:
            key = SigningKey.load(text, folder if text is None else None, make=create)
        journal = Journal(key, origin_of(control_id), __version__, _kept_folder(settings))
        if create:
            async with database.transaction() as tx:
                await journal.begin(tx)
        document = settings.digest_document()
        spec = make_spec(settings, document)
        tools = Tools(database, journal, spec, keys["evidence"], worker_name(), observer)
        shared = Shared(control_id, keys["accounts"], Pools(settings.workers.connections), _kept_folder(settings))
        stores = make_stores(spec.targets, settings.targets, shared)
        directory = Directory(settings.accounts) if settings.accounts else None
        made = {each.name: _native(stores[each.name], each.data_class.name, tools, directory) for each in spec.targets}
        native = {name: each for name, each in made.items() if each is not None}
        asked = {}
        for each in spec.targets:
            store = stores[each.name]
            if isinstance(store, DeferredStore):
                store.remember(requests.Memory(database, each.name))
                asked[each.name] = RequestHolds(store, each.data_class.name, directory)
        try:
            engine = Engine(
                tools,
                stores,
                directory,
                keys["accounts"],
                shards_at_once=shards_at_once,
                announce=_announcer(database),
            )
            rules = Rules(settings.mode, settings.policy_approved, settings.holds.two_person)
            yield App(rules, database, journal, engine, keys["texts"], document, native, asked, settings)
        finally:
            for keeper in native.values():
                await keeper.leave()
            for store in stores.values():
                await store.close()
            if directory is not None:
                await directory.close()


def _native(store: AnyStore, class_name: str, tools: Tools, directory: Directory | None) -> AnyNative | None:
    """What keeps holds in a target's store itself; None where the store can't."""
    if isinstance(store, CloudwatchStore):
        grace = tools.spec.late_effect_grace.total_seconds()
        retention = LogRetention(tools.database, store.name, store.records, grace=grace)
        store.remember_by(retention)
        return LogRetentionHolds(store, class_name, retention, directory)
    if isinstance(store, S3Store):
        memory = LegalHolds(tools.database, tools.worker, *place_of(store))
        return S3NativeHolds(store, class_name, memory, directory)
    return NativeHolds(store, class_name) if isinstance(store, PostgresStore) else None


def _announcer(database: Database) -> Announce:
    """Rings the queue's bell. The queue is imported with the first call: what only looks does without it."""

    async def announce(due: Iterable[Unit]) -> set[Unit]:
        from retentiond.control import queue

        return await queue.Bell(database).announce(due)

    return announce


def _kept_folder(settings: Settings) -> Path | None:
    """The folder that outlives this process: one that is configured, or that the embedded Postgres lies in."""
    return settings.state_folder() if settings.state_dir is not None or settings.control.dsn is None else None


def worker_name() -> str:
    """A name for this process that no other has."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"


async def enter_pass(app: App, by: str) -> None:
    """What comes before a single pass: in enforce mode as `enter_mode`; in plan mode the installation stays as it is.

    One pass that only counts asks for no permit, and must not stop the daemon that erases beside it.
    """
    if app.spec.enforce:
        await enter_mode(app, by)
        return
    async with app.database.transaction() as tx:
        await app.journal.require_continued(tx)
        await units.ensure(tx, [Unit(target.name) for target in app.spec.targets])


async def enter_mode(app: App, by: str) -> None:
    """Record the mode, and put the configuration in force.

    Raises Guarded where that needs an approval first or would get records from under a hold, and when the control
    database is not the one last used here.
    """
    async with app.database.transaction() as tx:
        await app.journal.require_continued(tx)
        if await flags.set_mode(tx, "enforce" if app.spec.enforce else "plan", by):
            await app.journal.append(tx, kinds.mode("mode", mode=app.settings.mode, by=by, key=app.texts_key))
        await units.ensure(tx, [Unit(target.name) for target in app.spec.targets])
        if not app.spec.enforce:
            return
        lost = await evaded_holds(app, tx)
        if not lost and await _adopted(app, tx, by):
            await app.journal.append(
                tx,
                kinds.startup(
                    worker=app.engine.tools.worker,
                    mode=app.settings.mode,
                    policy_digest=app.spec.digest,
                    key=str(app.journal.verifier),
                ),
            )
            return
    if lost:
        raise Guarded(
            "holds",
            f"the configuration {app.spec.digest[:12]} would get records from under holds, and is not put in force: "
            + ", and ".join(map(str, lost)),
            remedy=EVADED_REMEDY,
        )
    raise Guarded(
        "policy",
        f"the configuration {app.spec.digest[:12]} would newly erase, compared with the one in force",
        remedy="look at `retentiond policy diff`, then run `retentiond policy approve`, "
        "or set RETENTIOND_POLICY_APPROVED to its digest",
    )


async def _adopted(app: App, tx: Tx, by: str) -> bool:
    digest = app.spec.digest
    active = await policies.active(tx)
    if active is not None and active.digest == digest:
        await approvals.withdraw(tx, "policy", "")
        return True
    approved_by = by
    if active is not None and newly_erases(active.document, app.document):
        approval = await approvals.find(tx, "policy", "", digest)
        if approval is not None:
            await approvals.use(tx, approval.id)
            approved_by = approval.granted_by
        elif app.settings.policy_approved == digest:
            approved_by = "RETENTIOND_POLICY_APPROVED"
        else:
            if await approvals.request(tx, "policy", "", digest, None, {}):
                refused = kinds.policy("refused", digest=digest, previous=active.digest, by=by)
                await app.journal.append(tx, refused)
            return False
    await policies.adopt(tx, digest, app.document, approved_by)
    await approvals.withdraw(tx, "policy", "")
    await app.journal.append(
        tx,
        kinds.policy("enforced", digest=digest, previous=active.digest if active else None, by=approved_by),
    )
    return True
