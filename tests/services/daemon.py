"""A real daemon under test: its process and what it says of itself by HTTP."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from prometheus_client.parser import text_string_to_metric_families

from tests.services.process import DEADLINE, Running, start_retentiond


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running daemon."""

    process: Running
    http: aiohttp.ClientSession

    async def checks(self) -> dict[str, Any]:
        """The failing checks of `/readyz`, by name."""
        answer = await self.http.get("/readyz")
        document = await answer.json()
        assert (answer.status == 200) == document["ready"]
        return {name: check for name, check in document["checks"].items() if not check["ok"]}

    async def text(self, accept: str = "") -> str:
        """The exposition."""
        return await (await self.http.get("/metrics", headers={"Accept": accept})).text()

    async def metric(self, name: str, **labels: str) -> float | None:
        """One sample's value; None where there is no such series."""
        for family in text_string_to_metric_families(await self.text()):
            for sample in family.samples:
                if sample.name == f"retentiond_{name}" and labels.items() <= sample.labels.items():
                    return sample.value
        return None

    async def until_ready(self) -> None:
        """Wait until every check is well."""
        await until(self._ready, lambda: f"not ready:\n{self.process.output}")

    async def until_failing(self, name: str) -> dict[str, Any]:
        """Wait until that check fails; what it says."""
        found: dict[str, Any] = {}

        async def failing() -> bool:
            found.update(await self.checks())
            return name in found

        await until(failing, lambda: f"{name} does not fail:\n{self.process.output}")
        assert found[name]["remedy"]
        return found[name]

    async def _ready(self) -> bool:
        return not await self.checks()


async def until(condition, told=lambda: "it did not come about", deadline: float = DEADLINE) -> None:
    """Wait until the coroutine function returns something true."""
    try:
        async with asyncio.timeout(deadline):
            while not await condition():
                await asyncio.sleep(0.1)
    except TimeoutError:
        raise AssertionError(told()) from None


@asynccontextmanager
async def running(env: Mapping[str, str], trust: ssl.SSLContext | None = None) -> AsyncIterator[Daemon]:
    """`retentiond run` on a free port, until left; killed then if it still runs. `trust` is of its certificate."""
    async with start_retentiond("run", env={"RETENTIOND_HTTP__PORT": "0", **env}) as process:
        address = (await process.wait_for(r"https?://127\.0\.0\.1:\d+")).group()
        connector = aiohttp.TCPConnector(ssl=trust) if trust is not None else None
        async with aiohttp.ClientSession(address, connector=connector) as session:
            yield Daemon(process, session)
