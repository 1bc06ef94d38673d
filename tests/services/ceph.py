"""A real S3 server that is no imitation: Ceph's radosgw with one monitor and one OSD in memory, up in about two seconds.

Debian's packages radosgw, ceph-mon and ceph-osd. A second radosgw on the same cluster, whose clock is days behind, gives
objects a date that is really old (`Ceph.past`). What the settings are for was found by trying: without crc as the mode of
the monitor's clients radosgw hangs; with the usual interval of proposals the start takes eleven seconds; without
tcp_nodelay most answers take 44 ms. radosgw may hang on SIGTERM, so everything is killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.postgres import free_port, roomy
from services.s3 import S3Server

_KEY, _SECRET = "testkey", "testsecret"
_NEEDED = ("radosgw", "radosgw-admin", "ceph-mon", "ceph-osd", "ceph", "monmaptool")
_CONFIGURATION = """
[global]
fsid = {fsid}
mon_host = [v2:127.0.0.1:{monitor}]
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
auth_cluster_required = none
auth_service_required = none
auth_client_required = none
run_dir = {home}/run
admin_socket = {home}/run/$name.$pid.asok
log_file = {home}/log/$name.log
crash_dir = {home}/log
ms_bind_msgr1 = false
ms_mon_client_mode = crc
paxos_propose_interval = 0.02
paxos_min_wait = 0.01
mon_tick_interval = 1
mon_data_avail_warn = 1
mon_data_avail_crit = 1
mon_cluster_log_file = {home}/log/cluster.log
mon_max_pg_per_osd = 1000
mon_allow_pool_size_one = true
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 4
osd_pool_default_pgp_num = 4
osd_pool_default_pg_autoscale_mode = off
osd_crush_chooseleaf_type = 0
osd_heartbeat_grace = 3600
debug_ms = 0/0
debug_rgw = 0/0
debug_osd = 0/0
debug_mon = 0/0
[mon.a]
mon_data = {home}/mon
[osd.0]
osd_data = {home}/osd
osd_objectstore = memstore
memstore_device_bytes = 4294967296
memstore_page_set = false
osd_journal = {home}/osd/journal
osd_journal_size = 100
[client.rgw]
rgw_data = {home}/rgw
rgw_dns_name = localhost
rgw_enable_apis = s3,admin
rgw_thread_pool_size = 32
rgw_override_bucket_index_max_shards = 1
rgw_dynamic_resharding = false
rgw_enable_usage_log = false
rgw_crypt_require_ssl = false
"""


@dataclass(frozen=True, slots=True)
class Ceph(S3Server):
    """A running cluster; `home` has its files."""

    home: Path = Path()

    @contextmanager
    def past(self, days: int) -> Iterator[S3Server]:
        """The same data by a server whose clock is so many days behind: what is put there was written then.

        Requests to it must be signed by that clock, as our own client does, which learns it.
        """
        library = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None)
        if library is None:
            pytest.fail("a server with an old clock needs faketime; install the package of that name")
        faked = {"LD_PRELOAD": str(library), "FAKETIME": f"-{days}d", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
        port = free_port()
        process = _radosgw(
            self.home, port, "old", faked, "--rgw_enable_lc_threads=false", "--rgw_enable_gc_threads=false"
        )
        try:
            _wait_for(port, process, self.home)
            yield S3Server("ceph", f"http://127.0.0.1:{port}", _KEY, _SECRET)
        finally:
            _kill(process)


@contextmanager
def cluster() -> Iterator[Ceph]:
    """A fresh cluster; it and all in it are gone afterwards."""
    if missing := [each for each in _NEEDED if shutil.which(each) is None]:
        pytest.fail(f"{', '.join(missing)} missing; install the packages radosgw, ceph-mon, ceph-osd and ceph-common")
    home = Path(tempfile.mkdtemp(prefix="rt-ceph-", dir=roomy()))
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for folder in ("mon", "osd", "run", "log", "rgw"):
            (home / folder).mkdir()
        port, monitor = free_port(), free_port()
        fsid = str(uuid.uuid4())
        (home / "ceph.conf").write_text(_CONFIGURATION.format(fsid=fsid, monitor=monitor, home=home))
        address = f"[v2:127.0.0.1:{monitor}]"
        _run(
            home,
            "monmaptool",
            "--create",
            "--fsid",
            fsid,
            "--addv",
            "a",
            address,
            "--enable-all-features",
            f"{home}/map",
        )
        _run(home, "ceph-mon", "-i", "a", "--mkfs", "--monmap", f"{home}/map")
        processes.append(_start(home, "ceph-mon", "-f", "-i", "a"))
        osd = str(uuid.uuid4())
        _run(home, "ceph", "--connect-timeout", "30", "osd", "new", osd)
        _run(home, "ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        processes.append(_start(home, "ceph-osd", "-f", "-i", "0"))
        processes.append(_radosgw(home, port, "now", {}))
        _wait_for(port, processes[-1], home)
        names = ("--uid=test", "--display-name=test", f"--access-key={_KEY}", f"--secret-key={_SECRET}")
        _run(home, "radosgw-admin", "-n", "client.rgw", "user", "create", *names)
        yield Ceph("ceph", f"http://127.0.0.1:{port}", _KEY, _SECRET, home=home)
    finally:
        for process in reversed(processes):
            _kill(process)
        shutil.rmtree(home, ignore_errors=True)


@pytest.fixture(scope="session")
def ceph_server() -> Iterator[Ceph]:
    """One cluster for each process of the test run."""
    with cluster() as server:
        yield server


@pytest.fixture(scope="session")
def ceph_past(ceph_server: Ceph) -> Iterator[Callable[[int], S3Server]]:
    """The same cluster as it is so many days ago; a server for each number of days, started when first asked for."""
    with ExitStack() as running:
        started: dict[int, S3Server] = {}

        def of(days: int) -> S3Server:
            if days not in started:
                started[days] = running.enter_context(ceph_server.past(days))
            return started[days]

        yield of


def _radosgw(home: Path, port: int, name: str, environment: dict[str, str], *more: str) -> subprocess.Popen[bytes]:
    listening = f"--rgw_frontends=beast endpoint=127.0.0.1:{port} tcp_nodelay=1"
    log = f"--log-file={home}/log/{name}.log"
    return _start(home, "radosgw", "-f", "-n", "client.rgw", listening, log, *more, environment=environment)


def _start(home: Path, program: str, *args: str, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    with (home / "log" / "output").open("ab") as output:
        return subprocess.Popen(
            [program, "-c", str(home / "ceph.conf"), *args],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={"PATH": os.environ["PATH"], **(environment or {})},
        )


def _run(home: Path, program: str, *args: str) -> None:
    command = [program, *args] if program == "monmaptool" else [program, "-c", str(home / "ceph.conf"), *args]
    done = subprocess.run(command, check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    if done.returncode != 0:
        raise RuntimeError(f"{program} ended with {done.returncode}: {done.stderr}\n{_output(home)}")


def _wait_for(port: int, process: subprocess.Popen[bytes], home: Path) -> None:
    import socket

    for _ in range(1200):
        if process.poll() is not None:
            raise RuntimeError(f"radosgw ended with {process.returncode}: {_output(home)}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise RuntimeError(f"radosgw does not listen: {_output(home)}")


def _output(home: Path) -> str:
    with suppress(OSError):
        return (home / "log" / "output").read_text(errors="replace")[-4000:]
    return ""


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
