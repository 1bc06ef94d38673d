"""The control database gone for a whole minute, in the middle of a batch: longer than a lease and a permit live."""

import asyncio
import os
import signal
import time

import psutil
import pytest

from tests.services.daemon import running, until
from tests.services.gates import gate
from tests.services.postgres import cluster, restart, stop

pytestmark = pytest.mark.late

DUE, MINUTE = 120, 60.0
YOUNG = [1001, 1002, 1003]


@pytest.fixture
def control_server():
    with cluster(16, fsync="on", synchronous_commit="on") as server:
        yield server


class Frozen:
    """All processes of a server stopped, as a host is that hangs: connections stay, and nothing answers."""

    def __init__(self, server):
        self._server = server
        self._stopped: list[int] = []

    def away(self):
        postmaster = psutil.Process(int((self._server.data / "postmaster.pid").read_text().splitlines()[0]))
        self._signal(signal.SIGSTOP, [postmaster.pid, *(child.pid for child in postmaster.children(recursive=True))])

    def back(self):
        self._signal(signal.SIGCONT, self._stopped)

    def _signal(self, number, pids):
        self._stopped = list(pids)
        for pid in pids:
            os.kill(pid, number)


class ShutDown:
    """The server shut down and started again."""

    def __init__(self, server):
        self._server = server

    def away(self):
        stop(self._server)

    def back(self):
        restart(self._server)


async def probe(daemon, path):
    """The status and the text of an answer, as whoever watches asks for it."""
    answer = await daemon.http.get(path, timeout=20)
    return answer.status, await answer.text()


@pytest.mark.parametrize("shards", [0, 4], ids=["whole", "in shards"])
@pytest.mark.parametrize("fault", [Frozen, ShutDown])
async def test_a_control_database_that_is_gone_for_a_minute_in_mid_batch(rig, control_server, fault, shards):
    await rig.company(due=DUE)
    await rig.db.execute("ANALYZE logs")
    rig.target("logs", pace={"duty": 1.0, "max_batch": 5, **({"shards": shards} if shards else {})})
    rig.control = control_server.dsn()
    server = fault(control_server)
    async with running(rig.environment()) as daemon:
        async with gate(rig.dsn, "AFTER DELETE ON logs FOR EACH ROW") as stopped:
            await stopped.reached()
            server.away()
            began = time.monotonic()
            await stopped.open()
        try:
            said = await daemon.until_failing("control")
            assert said["remedy"]
            # A batch that had its permit may have ended; without its outcome prepared none does.
            left = await rig.ids()
            assert len(left) >= DUE + 3 - 5 * max(shards, 1)
            while time.monotonic() < began + MINUTE:
                status, _ = await probe(daemon, "/healthz")
                assert status == 200, "the process itself is well"
                status, text = await probe(daemon, "/readyz")
                assert (status, '"control"' in text) == (503, True)
                status, text = await probe(daemon, "/metrics")
                assert (status, "retentiond_errors_total" in text) == (200, True)
                assert await rig.ids() == left, "nothing is erased that can't be told"
                await asyncio.sleep(2)
            assert await daemon.metric("errors_total", kind="unreachable") > 0
            assert await daemon.metric("errors_total", kind="unexpected") == 0
        finally:
            server.back()

        async def drained():
            assert daemon.process.code is None, daemon.process.output
            return await rig.ids() == YOUNG

        await until(drained, lambda: daemon.process.output[-6000:], deadline=150)
        await daemon.until_ready()
        assert await daemon.metric("errors_total", kind="unexpected") == 0
        daemon.process.send_signal(signal.SIGTERM)
        assert await daemon.process.wait() == 0, daemon.process.output[-3000:]
    await rig.require_told(logs=DUE)
    await rig.require_settled()
