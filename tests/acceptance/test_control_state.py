"""A control database that is not the one last used here stops erasing; one that comes up late is waited for."""

import asyncio
import signal
from contextlib import suppress
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.acceptance.test_core import DUE, company, env, sweep  # noqa: F401 - fixtures
from tests.services.daemon import until
from tests.services.postgres import free_port
from tests.services.process import run_retentiond, start_retentiond


@pytest.fixture
async def forgotten(env, company):
    """The daemon's state made anew under a state folder that has been used, with something due."""
    result, _ = await sweep(env)
    assert result.code == 0, result.stderr
    await company.execute("DROP SCHEMA retentiond CASCADE")
    await company.execute("INSERT INTO request_logs (account_id, created_at) SELECT 1, now() - interval '2 years'")
    return company


async def test_a_fresh_control_database_erases_nothing_until_it_is_accepted(env, forgotten):
    result, _ = await sweep(env)
    assert result.code == 3
    assert "holds may be missing" in result.stderr
    assert "ledger accept" in result.stderr
    assert await forgotten.fetchval(DUE) == 1
    placed = await run_retentiond("hold", "place", "--matter", "m", "--reason", "r", "--account", "8", env=env)
    assert placed.code == 0, placed.stderr
    assert (await run_retentiond("ledger", "export", "--out", "evidence", env=env)).code == 3
    assert (await run_retentiond("ledger", "accept", env=env)).code == 2
    accepted = await run_retentiond("ledger", "accept", "--reason", "a new database is meant", "--json", env=env)
    assert accepted.code == 0, accepted.stderr
    assert (await sweep(env))[0].code == 0
    assert await forgotten.fetchval(DUE) == 0
    entries = (await run_retentiond("ledger", "show", "--kind", "guard", "--json", env=env)).json["entries"]
    assert [entry["detail"]["event"] for entry in entries] == ["accepted"]
    assert (await run_retentiond("ledger", "verify", env=env)).code == 0


async def test_a_daemon_on_a_fresh_control_database_says_so_and_goes_on_once_it_is_accepted(
    env,
    forgotten,
):
    async with start_retentiond("run", env=env | {"RETENTIOND_HTTP__PORT": "0"}) as daemon:
        address = (await daemon.wait_for(r"http://127\.0\.0\.1:\d+")).group()
        await daemon.wait_for("holds may be missing")
        async with aiohttp.ClientSession(address) as session:
            answer = await session.get("/readyz")
            assert answer.status == 503
            check = (await answer.json())["checks"]["control_state"]
            assert "holds may be missing" in check["message"]
            assert "ledger accept" in check["remedy"]
            assert await forgotten.fetchval(DUE) == 1
            assert (await run_retentiond("ledger", "accept", "--reason", "meant", env=env)).code == 0

            async def nothing_due():
                return await forgotten.fetchval(DUE) == 0

            await until(nothing_due, lambda: daemon.output)
        daemon.send_signal(signal.SIGTERM)
        assert await daemon.wait() == 0


async def test_a_lost_state_folder_beside_a_used_control_database_stops_erasing(env, company, tmp_path):
    assert (await sweep(env))[0].code == 0
    other = tmp_path / "other"
    other.mkdir()
    result, _ = await sweep(env | {"RETENTIOND_STATE_DIR": str(other)})
    assert result.code == 3
    assert "knows of none" in result.stderr
    assert (await sweep(env))[0].code == 0


async def test_the_daemon_waits_for_a_control_database_that_comes_up_later(env, company):
    dsn = env["RETENTIOND_CONTROL__DSN"]
    here, port = urlsplit(dsn), free_port()
    late = dsn.replace(f":{here.port}/", f":{port}/")
    async with start_retentiond(
        "run", env=env | {"RETENTIOND_CONTROL__DSN": late, "RETENTIOND_HTTP__PORT": "0"}
    ) as daemon:
        await daemon.wait_for("retry_scheduled")
        forwarding = set()

        async def forward(reader, writer):
            forwarding.add(asyncio.current_task())
            await _forward(reader, writer, here.hostname, here.port)

        async with await asyncio.start_server(forward, "127.0.0.1", port):
            await daemon.wait_for(r"http://127\.0\.0\.1:\d+")
            daemon.send_signal(signal.SIGTERM)
            assert await daemon.wait() == 0
        await asyncio.gather(*forwarding)


async def test_a_command_does_not_wait_for_a_control_database_that_is_down(env, company):
    gone = env["RETENTIOND_CONTROL__DSN"].replace(
        f":{urlsplit(env['RETENTIOND_CONTROL__DSN']).port}/", f":{free_port()}/"
    )
    result = await run_retentiond("hold", "list", env=env | {"RETENTIOND_CONTROL__DSN": gone})
    assert result.code == 4
    assert "retry" not in result.stderr


async def _forward(reader, writer, host, port):
    upstream, downstream = await asyncio.open_connection(host, port)
    with suppress(OSError):
        await asyncio.gather(_copy(reader, downstream), _copy(upstream, writer))
    for each in (downstream, writer):
        each.close()
        with suppress(OSError):
            await each.wait_closed()


async def _copy(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
