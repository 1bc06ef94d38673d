"""The API in this process, as the daemon serves it, with a daemon that looks when it is told to and not by itself."""

import asyncio
import logging
from contextlib import asynccontextmanager

import aiohttp
import pytest
import structlog

from retentiond import logs
from retentiond.daemon import open_app
from retentiond.daemon_http import serving
from retentiond.daemon_loop import Daemon
from retentiond.daemon_signals import Signals
from retentiond.daemon_watch import Watch
from retentiond.metrics import Metrics
from retentiond.settings import load
from tests.acceptance.test_core import company, env  # noqa: F401 - fixtures
from tests.services.api import Api, tokens


@asynccontextmanager
async def served(env, *, with_daemon=False, **client):
    """The API of these settings; with a daemon, each nudge lets it look once."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    logs.configure("json", "info")
    settings = load({"RETENTIOND_HTTP__PORT": "0", **env})
    watch = Watch(Metrics((), (), version="1", mode=settings.mode))
    ticks = set()
    async with open_app(settings, create=True, observer=watch) as app:
        watch.metrics = Metrics(app.spec.targets, app.spec.policy.tiers, version="1", mode=settings.mode)
        daemon = Daemon(app, watch) if with_daemon else None

        def nudge():
            if daemon is not None:
                task = asyncio.create_task(daemon.tick())
                ticks.add(task)
                task.add_done_callback(ticks.discard)

        async with serving(app, watch, nudge) as address:
            if daemon is not None:
                await daemon.start()
            async with aiohttp.ClientSession(address, **client) as http:
                yield Api(http, app=app)
        await asyncio.gather(*ticks)
        if daemon is not None:
            await daemon.drain(Signals())
    root.handlers[:], root.level = before
    structlog.reset_defaults()


@pytest.fixture
async def api(env):
    async with served(tokens() | env) as made:
        yield made


@pytest.fixture
async def lively(env):
    """With a daemon."""
    async with served(tokens() | env, with_daemon=True) as made:
        yield made
