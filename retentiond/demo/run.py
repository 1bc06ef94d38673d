"""The demo's course: make the company, place a hold, start the daemon, approve the first backlog, watch, go on serving.

All it makes lies in one temporary folder. Whatever ends it, the daemon drains, the server stops and the folder goes:
that runs outside of the task which a signal cancels.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from rich.console import Console

from retentiond.control import approvals, due
from retentiond.control.embedded import EmbeddedPostgres
from retentiond.control.installation import can_enter, current_account
from retentiond.daemon import App, open_app
from retentiond.demo import hints
from retentiond.demo.artifacts import HELD_KEY
from retentiond.demo.child import PORT, Child, Reading, running
from retentiond.demo.company import BY, bucket_address, configuration, held_record, make_company, place_holds
from retentiond.demo.interrupts import Interrupts, interrupts
from retentiond.demo.standing import Promise, Standing
from retentiond.demo.storage import forget_aws, require_storage, storage
from retentiond.demo.view import View, make_view
from retentiond.domain.holds import Hold
from retentiond.errors import UsageError
from retentiond.ledger import kinds
from retentiond.ledger.export import export
from retentiond.settings import load

_REFRESH_SECONDS = 1.0
_HTTP_SECONDS = 10.0
_UNFENCED = (
    "the bucket's server is moto's, which carries out requests that have expired: its target is `unfenced` here, "
    "and should be nowhere else"
)


@dataclass(frozen=True, slots=True)
class Options:
    """`once`: end when all promises are kept. `evidence`: a folder for the ledger's export, made then.

    `time_limit`: seconds that the daemon gets to keep them.
    """

    once: bool
    time_limit: float
    evidence: Path | None = None


@dataclass(slots=True)
class Demo:
    """How far it came; `promises` are as last shown."""

    options: Options
    console: Console
    promises: Sequence[Promise] = ()
    before: Sequence[Promise] = ()
    kept: bool = False

    def document(self) -> dict[str, object]:
        """What `demo --json` prints."""
        before = {(each.class_name, each.tier): each.overdue for each in self.before}
        rows = [
            {**each.document(), "overdue_before": before.get((each.class_name, each.tier), 0)} for each in self.promises
        ]
        return {"kept": self.kept, "promises": rows}


async def run_demo(demo: Demo) -> int:
    """The demo to its end; the exit code: 0 once all promises are kept, 1 when they are not within the time limit.

    A signal ends it in order: with 0 once they are kept, before with 128 + its number.
    """
    with interrupts(demo.console) as signals:
        async with AsyncExitStack() as stack:
            work: asyncio.Task[object] = asyncio.create_task(_course(demo, stack, signals))
            signals.end(work)
            try:
                await work
            except asyncio.CancelledError:
                if signals.number is None:
                    raise
                demo.console.print("\nstopping, and removing all that was made")
        if demo.kept or signals.number is None:
            return 0 if demo.kept else 1
        return 128 + signals.number


async def _course(demo: Demo, stack: AsyncExitStack, signals: Interrupts) -> None:
    _require_writable(demo.options.evidence)
    require_storage()
    forget_aws()
    say = demo.console.print
    folder = await stack.enter_async_context(_folder())
    # It comes up while the company is made.
    bucket = await stack.enter_async_context(storage(folder))
    server = await stack.enter_async_context(_server(folder))
    say("making a company: 20,000 accounts, 620,000 records of eight years, a bucket of 900 artifacts", soft_wrap=True)
    await make_company(server.dsn)
    variables = configuration(server.dsn, folder, await bucket.address())
    app = await stack.enter_async_context(open_app(load(variables), create=True))
    for hold in await place_holds(app):
        say(f"a legal hold on {_scope(hold)} is active: {hold.id}", soft_wrap=True)
    say(_UNFENCED, soft_wrap=True)
    standing = Standing(app)
    await standing.count_all()
    demo.promises = demo.before = standing.promises(Reading({}, {}))
    child = await stack.enter_async_context(running(variables, folder, signals.hurry))
    say(f"the daemon serves {child.address}{'' if child.address.endswith(f':{PORT}') else f' (port {PORT} is taken)'}")
    await _watch(demo, standing, child)
    if not demo.kept:
        late = ", ".join(f"{each.class_name} {each.tier}" for each in demo.promises if not each.kept)
        say(f"not kept within {demo.options.time_limit:g} s: {late}", soft_wrap=True)
        return
    if demo.options.evidence is not None:
        signed = await export(
            app.database, demo.options.evidence, app.journal.key, app.journal.origin, app.journal.high_water
        )
        say(f"{signed.size} entries of the ledger written to {demo.options.evidence}", soft_wrap=True)
    say("\nall promises are kept")
    if not demo.options.once:
        await _go_on(demo, app, child, folder, variables)


def _scope(hold: Hold) -> str:
    count = len(hold.scope.accounts)
    whose = f"{count} accounts" if count > 1 else f"account {hold.scope.accounts[0]}"
    return f"{whose} in {', '.join(hold.scope.targets)}" if hold.scope.targets else whose


async def _watch(demo: Demo, standing: Standing, child: Child) -> None:
    deadline = time.monotonic() + demo.options.time_limit
    approved: set[str] = set()
    timeout = aiohttp.ClientTimeout(total=_HTTP_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        with make_view(demo.console) as view:
            view.show(demo.promises)
            while not demo.kept and time.monotonic() < deadline:
                began = time.monotonic()
                await _approve_first(standing.app, view, approved)
                reading = await child.read(session)
                await standing.count_drained(reading)
                demo.promises, demo.kept = standing.promises(reading), standing.kept
                view.show(demo.promises)
                if not demo.kept:
                    await asyncio.sleep(max(0.0, began + _REFRESH_SECONDS - time.monotonic()))


async def _approve_first(app: App, view: View, approved: set[str]) -> None:
    """Approve what the guard stopped, once for each target: the first backlog. Later ones wait for an operator."""
    async with app.database.transaction(read_only=True) as tx:
        awaited = await approvals.waiting(tx)
    for each in awaited:
        if each.kind != "sweep" or each.target in approved:
            continue
        # One at a time, and the ledger's head locked last: whoever ends a sweep locks its unit first.
        async with app.database.transaction() as tx:
            granted = await approvals.grant(tx, each.kind, each.target, each.digest, each.count, BY)
            await due.make_due(tx, [each.target])
            entry = kinds.approval(
                "granted", subject=each.kind, target=each.target, digest=each.digest, bound=granted.bound, by=BY
            )
            await app.journal.append(tx, entry)
        approved.add(each.target)
        view.say(f"{each.target}: a guard stopped a first sweep of {each.count} records; the demo approves it")


async def _go_on(demo: Demo, app: App, child: Child, folder: Path, variables: dict[str, str]) -> None:
    """Say what to try, and serve until a signal comes; raises what the daemon ended with."""
    environment = folder / "env"
    hints.write_environment(environment, variables)
    for line in hints.hints(
        environment,
        child.address,
        folder / "evidence",
        child.log,
        record=await held_record(app),
        artifact=HELD_KEY,
        bucket=bucket_address(variables),
    ):
        demo.console.print(line, markup=False, soft_wrap=True)
    raise await child.ended()


def _require_writable(evidence: Path | None) -> None:
    """Refuse a folder that can't be written to before anything takes long."""
    if evidence is None:
        return
    try:
        evidence.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=evidence).close()
    except OSError as error:
        raise UsageError(
            f"the ledger can't be exported to {evidence}: {error.strerror}", remedy="name a folder that can be written"
        ) from error


@asynccontextmanager
async def _folder() -> AsyncIterator[Path]:
    """A folder for all that the demo makes, removed at the end."""
    account = current_account(None)
    place = Path(tempfile.gettempdir())
    if account.switch and not can_enter(account, place):
        place = Path("/tmp")  # noqa: S108 - made by mkdtemp, 0711, and all that is in it is private or ours
    folder = Path(tempfile.mkdtemp(prefix="retentiond-demo-", dir=place))
    try:
        # The account that runs Postgres for root has to be able to pass it.
        folder.chmod(0o711 if account.switch else 0o700)
        yield folder
    finally:
        await asyncio.to_thread(shutil.rmtree, folder)


@asynccontextmanager
async def _server(folder: Path) -> AsyncIterator[EmbeddedPostgres]:
    """The embedded Postgres in that folder, its binaries too where they have to be copied."""
    server = await EmbeddedPostgres.start(folder, create=True, copies=folder / "binaries")
    try:
        yield server
    finally:
        await server.stop()
