"""The App for commands that only look: on the state that there is, else in plan mode on one that goes away with them.

They must make no state: a hold placed afterwards would be active in a database that no daemon knows.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from retentiond.cli.output import note
from retentiond.control.installation import can_enter, current_account
from retentiond.daemon import App, open_app
from retentiond.errors import NoState
from retentiond.settings import Settings


@asynccontextmanager
async def open_view(settings: Settings) -> AsyncIterator[App]:
    """The App to look with; raises NoState in enforce mode, where what is due can't be told without the holds."""
    async with _opened(settings, anyway=settings.mode == "plan") as (app, _):
        yield app


@asynccontextmanager
async def open_check(settings: Settings) -> AsyncIterator[tuple[App, bool]]:
    """The App to look with in any mode, and whether there is a control state: else it has none of what one knows."""
    async with _opened(settings, anyway=True) as found:
        yield found


@asynccontextmanager
async def _opened(settings: Settings, *, anyway: bool) -> AsyncIterator[tuple[App, bool]]:
    async with AsyncExitStack() as stack:
        try:
            found = await stack.enter_async_context(open_app(settings, create=False, reading=True)), True
        except NoState:
            if not anyway:
                raise
            found = await stack.enter_async_context(_temporary(settings)), False
        yield found


@asynccontextmanager
async def _temporary(settings: Settings) -> AsyncIterator[App]:
    note("there is no control state yet: holds and remembered accounts are not known")
    control = type(settings.control)()
    with _terminated_as_interrupted(), _folder() as folder:
        elsewhere = settings.model_copy(update={"control": control, "state_dir": folder})
        async with open_app(elsewhere, create=True) as app:
            yield app


@contextmanager
def _folder() -> Iterator[Path]:
    account = current_account(None)
    place = Path(tempfile.gettempdir())
    if account.switch and not can_enter(account, place):
        place = Path("/tmp")  # noqa: S108 - made by mkdtemp, and all that is in it is private
    folder = Path(tempfile.mkdtemp(prefix="retentiond-look-", dir=place))
    try:
        # Where root can't be followed, Postgres would be given a folder below /var/lib that stays.
        folder.chmod(0o711 if account.switch else 0o700)
        yield folder
    finally:
        shutil.rmtree(folder)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends us as Ctrl-C does: else the server would stay, in a folder that nobody comes back to."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, signal.raise_signal, signal.SIGINT)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
