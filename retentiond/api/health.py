"""`/healthz` and `/readyz`: does the event loop turn, and can everything that is needed be reached?"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from retentiond.api.pulse import Pulse
from retentiond.errors import RetentiondError, quoted

Check = Callable[[], Awaitable[None]]
_SECONDS = 5.0
_KEPT_SECONDS = 1.0
_KNOWN_SECONDS = 1.0
# A thousand checks that begin at once would be late for want of each other.
_AT_ONCE = 32


@dataclass(frozen=True, slots=True)
class State:
    """How one check came out."""

    ok: bool
    message: str = ""
    remedy: str = ""

    def document(self) -> dict[str, object]:
        """The check as `/readyz` shows it."""
        return {"ok": self.ok} if self.ok else {"ok": False, "message": self.message, "remedy": self.remedy}


@dataclass(slots=True)
class Health:
    """Named checks, each a coroutine that raises what is wrong; asked at most once a second, each within 5 s."""

    checks: Mapping[str, Check]
    _asked_at: float = float("-inf")
    _found: dict[str, State] = field(default_factory=dict)
    _asking: asyncio.Task[Mapping[str, State]] | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(_AT_ONCE))

    async def states(self) -> Mapping[str, State]:
        """Each check's state."""
        async with self._lock:
            if time.monotonic() - self._asked_at > _KEPT_SECONDS:
                names = list(self.checks)
                found = await asyncio.gather(*(self._ask(self.checks[name]) for name in names))
                self._found = dict(zip(names, found, strict=True))
                self._asked_at = time.monotonic()
            return self._found

    async def known(self) -> Mapping[str, State]:
        """Each check's state as it was last found, empty before it was; asked anew, and waited for a second at most."""
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self.states())
        await asyncio.wait({self._asking}, timeout=_KNOWN_SECONDS)
        return self._found

    async def close(self) -> None:
        """End what is being asked."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self, check: Check) -> State:
        try:
            async with self._room, asyncio.timeout(_SECONDS):
                await check()
        except RetentiondError as error:
            return State(ok=False, message=error.message, remedy=error.remedy or "")
        except TimeoutError:
            return State(
                ok=False,
                message=f"no answer within {_SECONDS:.0f} s",
                remedy="see whether what it asks is overloaded, or the network on the way to it",
            )
        except Exception as error:
            return State(ok=False, message=f"unexpected: {quoted(error)}", remedy="report it with the daemon's log")
        return State(ok=True)


def routes(health: Health, pulse: Pulse) -> web.RouteTableDef:
    """The two resources."""
    table = web.RouteTableDef()

    @table.get("/healthz")
    async def healthz(_: web.Request) -> web.Response:
        if pulse.well:
            return web.json_response({"ok": True})
        return web.json_response({"ok": False, "late_seconds": round(pulse.late, 3)}, status=503)

    @table.get("/readyz")
    async def readyz(_: web.Request) -> web.Response:
        states = await health.states()
        ready = all(state.ok for state in states.values())
        document = {"ready": ready, "checks": {name: state.document() for name, state in states.items()}}
        return web.json_response(document, status=200 if ready else 503)

    return table
