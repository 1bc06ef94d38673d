"""The processes of a campaign: `retentiond run` on its hosts, and commands beside them."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.campaign.hosts import Host
from tests.campaign.proxy import Proxy
from tests.campaign.world import World
from tests.services.process import Result

PRODUCT = ("-m", "retentiond")
_COMMAND_SECONDS = 150.0


@dataclass(slots=True)
class Worker:
    """A place for one worker: its host and the network between that and the servers, and the process, if one runs.

    `expected`: it is meant to end, or has been ended; else an end is a fault of the product. `log` has all that
    it ever wrote, of which `written` bytes are of processes before.
    """

    name: str
    world: World
    host: Host
    program: tuple[str, ...] = PRODUCT
    proxies: dict[str, Proxy] = field(default_factory=dict)
    process: asyncio.subprocess.Process | None = None
    args: tuple[str, ...] = ()
    clock: str = ""
    expected: bool = True
    written: int = 0
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def log(self) -> Path:
        return self.world.folder / f"{self.name}.log"

    @property
    def ready(self) -> bool:
        """Whether the process has said that it is up: only then it must outlive everything."""
        return b'"event":"ready"' in self.log.read_bytes()[self.written :]

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.returncode is None

    async def connect(self) -> None:
        """Lay the network."""
        for database in ("app", "control"):
            proxy = Proxy(self.world.address(database), self.host.address)
            await proxy.start()
            self.proxies[database] = proxy

    async def start(self, args: tuple[str, ...] = (), clock: str = "") -> None:
        """Start `retentiond run` with these arguments, its clock so far off."""
        state = self.world.folder / f"{self.name}-state"
        if not state.exists():
            # A host joins with the last checkpoint that is known elsewhere; without one it would have to ask.
            shutil.copytree(self.world.folder / "operator-state", state)
        self.args, self.clock = args, clock if shutil.which("faketime") else ""
        prefix = ("faketime", "-f", clock) if self.clock else ()
        app, control = ((self.host.address, self.proxies[name].port) for name in ("app", "control"))
        environment = self.world.environment(state, app, control)
        self.written = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.host.prefix,
                *prefix,
                sys.executable,
                *self.program,
                "run",
                *args,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ["PATH"], "HOME": str(state), **environment, **path(self.program)},
                start_new_session=True,
            )
        self.expected = False

    def signal(self, number: signal.Signals) -> None:
        """To the process and all that came of it (faketime starts it as a child)."""
        if self.process is not None and self.runs:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    async def end(self, number: signal.Signals, seconds: float = 60.0) -> int | None:
        """End it; its exit code, None where it runs on after all."""
        self.expected = True
        if self.process is None:
            return None
        self.signal(number)
        try:
            return await asyncio.wait_for(self.process.wait(), seconds)
        except TimeoutError:
            return None

    def died(self) -> str | None:
        """What to say of a process that has ended by itself; one may give up on servers that it has never reached."""
        if self.process is None or self.runs or self.expected:
            return None
        self.expected = True
        if not self.ready and self.process.returncode == 4:
            return None
        tail = self.log.read_text(errors="replace")[-1500:]
        return f"worker {self.name} {self.args} {self.clock} ended by itself with {self.process.returncode}:\n{tail}"

    def struck(self) -> Counter[str]:
        """How often the network did something to a COMMIT."""
        return sum(
            (Counter({f"COMMIT {k}": n for k, n in each.done.items()}) for each in self.proxies.values()), Counter()
        )

    async def close(self) -> None:
        """Nothing of it is left."""
        await self.end(signal.SIGKILL)
        for proxy in self.proxies.values():
            await proxy.close()


def path(program: tuple[str, ...]) -> dict[str, str]:
    """What lets a program of the campaign's own be found."""
    return {} if program == PRODUCT else {"PYTHONPATH": str(Path(__file__).parents[2])}


async def command(world: World, *args: str, program: tuple[str, ...] = PRODUCT) -> Result:
    """A command, by an undisturbed network, with a state folder of its own."""
    state = world.folder / "operator-state"
    state.mkdir(exist_ok=True)
    environment = world.environment(state, world.address("app"), world.address("control"))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *program,
        *args,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "HOME": str(state), **environment, **path(program)},
        start_new_session=True,
    )
    try:
        out, err = await asyncio.wait_for(process.communicate(), _COMMAND_SECONDS)
    except (TimeoutError, asyncio.CancelledError):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        raise
    return Result(process.returncode or 0, out.decode(), err.decode())
