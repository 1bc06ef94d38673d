"""`retentiond demo`, whole: the real command, its daemon, its Postgres and its bucket, and what it leaves: nothing."""

import asyncio
import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
from contextlib import suppress
from pathlib import Path

import aiohttp
import psutil
import pytest

from tests.services.daemon import until
from tests.services.postgres import as_account
from tests.services.process import run_retentiond, start_retentiond

DEADLINE = 300.0
_CLASSES = (
    "operational_logs",
    "build_logs",
    "audit_log",
    "invoices",
    "prompts",
    "usage_metrics",
    "generated_artifacts",
)
ROOT = Path(__file__).parents[2]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="becomes another account, which only root can")


@pytest.fixture
def place():
    """A place for temporary folders that every account can pass and write to."""
    folder = Path(tempfile.mkdtemp(prefix="rt-demo-", dir="/tmp"))
    folder.chmod(0o777)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def env(place):
    return {"TMPDIR": str(place)}


def processes(place):
    """Everything that runs on behalf of a demo in that place: by its arguments or by its environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            said = [*process.cmdline(), *process.environ().values()]
            if process.pid != os.getpid() and any(str(place) in word for word in said):
                found.append(process)
    return found


def socket_folders(place):
    """The folders of the sockets of the servers that run there."""
    return [Path(words[words.index("-k") + 1]) for each in processes(place) if "-k" in (words := each.cmdline())]


def assert_nothing_is_left(place, sockets=()):
    assert [process.cmdline() for process in processes(place)] == []
    assert [path for path in place.iterdir() if path.name.startswith("retentiond")] == []
    assert [folder for folder in sockets if folder.exists()] == []


def own_state():
    """What root would leave for good: copies of binaries and data folders."""
    return set(Path("/var/lib/retentiond-embedded").glob("*"))


async def test_it_ends_when_every_promise_is_kept_and_its_evidence_verifies_offline(env, place, tmp_path):
    before = own_state()
    evidence = tmp_path / "evidence"
    result = await run_retentiond("demo", "--once", "--evidence", str(evidence), "--json", env=env, deadline=DEADLINE)
    assert result.code == 0, result.stderr
    assert result.json["kept"]
    promises = result.json["promises"]
    assert {(each["class"], each["tier"]) for each in promises} >= {
        (name, tier) for name in _CLASSES for tier in ("free", "pro", "enterprise")
    }
    assert all(each["kept"] and each["overdue"] == 0 for each in promises)
    assert all(each["overdue_before"] > 0 or each["term"] == "forever" for each in promises)
    assert sum(each["held"] for each in promises) > 1000
    # A hold on one account's artifacts.
    (artifacts,) = [each for each in promises if (each["class"], each["tier"]) == ("generated_artifacts", "free")]
    assert artifacts["held"] > 30
    verified = await run_retentiond("ledger", "verify", str(evidence))
    assert verified.code == 0, verified.stdout
    leaves = (evidence / "leaves.jsonl").read_text()
    assert re.search(r'"by":"demo"[^}]*"event":"granted"', leaves)
    erased = sum(each["overdue_before"] for each in promises if each["class"] == "generated_artifacts")
    outcomes = [json.loads(line) for line in leaves.splitlines() if '"target":"artifacts"' in line]
    assert sum(each["counts"]["erased"] for each in outcomes if each["kind"] == "outcome") == erased
    lines = [json.loads(line) for line in leaves.splitlines() if '"target":"edge_logs"' in line]
    assert sum(each["counts"]["erased"] for each in lines if each["kind"] == "outcome") > 5000
    assert_nothing_is_left(place)
    assert own_state() == before


@as_root
async def test_it_works_for_an_account_without_rights(place):
    import pwd

    nobody = pwd.getpwnam("nobody")
    packages = [
        within_reach(Path(sysconfig.get_path("purelib")), place),
        within_reach(ROOT / "retentiond", place).parent,
    ]
    process = await asyncio.create_subprocess_exec(
        public_python(),
        "-m",
        "retentiond",
        "demo",
        "--once",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd="/",
        env={
            "PATH": os.defpath,
            "HOME": "/nonexistent",
            "TMPDIR": str(place),
            "PYTHONPATH": os.pathsep.join(map(str, packages)),
        },
        **as_account((nobody.pw_uid, nobody.pw_gid)),
    )
    output, _ = await asyncio.wait_for(process.communicate(), DEADLINE)
    assert process.returncode == 0, output.decode()
    assert "all promises are kept" in output.decode()
    assert_nothing_is_left(place)


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [
        ("making a company", signal.SIGINT, 130),
        ("the demo approves it", signal.SIGINT, 130),
        ("the daemon serves", signal.SIGHUP, 129),
    ],
)
async def test_a_signal_in_the_middle_ends_it_and_leaves_nothing(env, place, moment, number, code):
    async with start_retentiond("demo", "--once", env=env) as demo:
        await demo.wait_for(moment)
        sockets = socket_folders(place)
        assert sockets
        demo.send_signal(number)
        assert await demo.wait() == code, demo.output
        assert "all promises are kept" not in demo.output
        assert "Traceback" not in demo.output
    assert_nothing_is_left(place, sockets)


async def test_a_demo_that_is_killed_takes_its_bucket_along(env, place):
    async with start_retentiond("demo", "--once", env=env) as demo:
        await demo.wait_for("making a company")
        (bucket,) = [each for each in psutil.Process(demo.pid).children() if "storage_server" in each.cmdline()[-1]]
        demo.send_signal(signal.SIGKILL)
        await until(lambda: gone(bucket), lambda: "the S3 server outlives the demo")
    stop_what_is_left(place)


async def gone(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def stop_what_is_left(place):
    """A demo that was killed leaves its Postgres and its folder, as any killed program leaves its servers."""
    sockets = socket_folders(place)
    for process in processes(place):
        process.kill()
    for folder in sockets:
        shutil.rmtree(folder, ignore_errors=True)


async def test_settings_of_the_aws_libraries_and_a_proxy_dont_reach_the_demo(env, place):
    elsewhere = {"AWS_PROFILE": "nowhere", "AWS_ENDPOINT_URL": "http://127.0.0.1:1", "http_proxy": "http://127.0.0.1:1"}
    result = await run_retentiond("demo", "--once", "--json", env=env | elsewhere, deadline=DEADLINE)
    assert result.code == 0, result.stderr
    assert_nothing_is_left(place)


async def test_it_goes_on_serving_and_what_it_says_to_try_works_also_beside_another_daemon(env, place):
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        await until(lambda: taken(other, 8087), lambda: "somebody else keeps the port")  # a demo of another test
        async with start_retentiond("demo", env=env) as demo:
            await demo.wait_for(r"port 8087 is taken", DEADLINE)
            await demo.wait_for(r"tail .*\n", DEADLINE)
            source, *commands = [line.strip() for line in re.findall(r"^  (\S.*)$", demo.output, re.MULTILINE)]
            said = {}
            for command in commands:
                said[command] = await try_out(source, command, place)
            await check_what_was_said(said)
            sockets = socket_folders(place)
            demo.send_signal(signal.SIGINT)
            assert await demo.wait() == 0, demo.output
    assert_nothing_is_left(place, sockets)


async def taken(listener, port):
    try:
        listener.bind(("127.0.0.1", port))
    except OSError:
        return False
    listener.listen()
    return True


async def test_a_daemon_that_ends_by_itself_ends_the_demo_and_is_said(env, place):
    async with start_retentiond("demo", env=env) as demo:
        await demo.wait_for(r"tail .*\n", DEADLINE)
        (daemon,) = [each for each in psutil.Process(demo.pid).children() if each.cmdline()[-1] == "run"]
        daemon.kill()
        assert await demo.wait() == 4
        assert "daemon ended by itself with exit code -9; the end of its log:" in demo.output
    assert_nothing_is_left(place)


async def try_out(source, command, place):
    if command.startswith("curl "):
        async with aiohttp.ClientSession() as session, session.get(shlex.split(command)[1]) as answer:
            assert answer.status == 200, command
            return await answer.text()
    done = await asyncio.to_thread(
        subprocess.run,
        ["bash", "-c", f"{source} && {command}"],
        # As in a terminal where another daemon was configured.
        env={"PATH": os.environ["PATH"], "HOME": str(place), "RETENTIOND_TARGETS__OTHER__STORE": "postgres"},
        cwd="/",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)
    return done.stdout


async def check_what_was_said(said):
    def of(words):
        return next(text for command, text in said.items() if words in command)

    assert re.search(r"state\s+active", of("hold place"))
    assert re.search(r"verdict\s+held", of("explain request_logs"))
    assert re.search(r"verdict\s+held", of("explain artifacts"))
    assert "<ListVersionsResult" in of("?versions")
    assert "operational_logs" in of("promises")
    assert of("ledger verify").startswith("verified:")
    assert "entries written" in of("ledger export")
    assert "retentiond_records_erased_total" in of("/metrics")
    assert '"ready": true' in of("/readyz")


async def test_what_is_not_kept_in_time_ends_it_with_1_and_is_said_on_a_terminal_too(place):
    leader, follower = pty.openpty()
    measured = {name: value for name, value in os.environ.items() if name.startswith("COVERAGE_")}
    with tempfile.TemporaryDirectory(dir="/tmp") as home:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "retentiond", "demo", "--once", "--time-limit", "0"),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=follower,
            stderr=follower,
            env={"PATH": os.environ["PATH"], "HOME": home, "TMPDIR": str(place), "TERM": "xterm", "NO_COLOR": "1"}
            | measured,
            start_new_session=True,
        )
        os.close(follower)
        output = await asyncio.wait_for(asyncio.to_thread(read_all, leader), DEADLINE)
        assert await process.wait() == 1, output
    assert "not kept within 0 s: audit_log free" in output
    assert re.search(r"free +P90D +[\d,]+ +[\d,]+ +overdue", output)
    assert not re.search(r"\x1b\[[\d;]*3[12]m", output)
    assert_nothing_is_left(place)


def read_all(descriptor):
    """All that is written to a terminal until nobody has it open any more."""
    text = b""
    with suppress(OSError):  # EIO is how its end is told
        while chunk := os.read(descriptor, 65536):
            text += chunk
    os.close(descriptor)
    return text.decode()


async def test_a_folder_that_cant_be_written_is_refused_before_anything_is_made(env, place, tmp_path):
    (tmp_path / "file").touch()
    result = await run_retentiond("demo", "--once", "--evidence", str(tmp_path / "file" / "x"), env=env)
    assert result.code == 2
    assert "remedy" in result.stderr
    assert_nothing_is_left(place)


def public_python():
    """An interpreter of our own version that every account can run."""
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    for path in (Path(sys.executable).resolve(), Path("/usr/bin") / name, Path("/usr/local/bin") / name):
        if path.exists() and reachable(path):
            return str(path)
    if os.environ.get("CI"):
        pytest.fail(f"no {name} that every account can run")
    pytest.skip(f"no {name} that every account can run")


def within_reach(package, place):
    """The folder itself where every account can read it, else a copy."""
    if reachable(package):
        return package
    copy = place / "packages" / package.name
    shutil.copytree(package, copy, symlinks=True)
    for path in (copy.parent, copy, *copy.rglob("*")):
        path.chmod(path.stat().st_mode | (0o555 if path.is_dir() else 0o444))
    return copy


def reachable(path):
    return all(each.stat().st_mode & 0o005 == 0o005 for each in (path, *path.resolve().parents))
