"""Which files count as being written, by what can be seen of processes and names."""

import pytest

from retentiond.stores.files import live
from retentiond.stores.files.folder import Entry, Folder, Mark
from retentiond.stores.files.live import Writers, named_before, unclosed, writers

MOUNT = "22 27 0:21 / {0} rw,relatime - proc proc rw{1}\n"


@pytest.fixture
def folder(tmp_path):
    found = Folder(str(tmp_path), "app*")
    yield found
    found.close()


@pytest.fixture
def proc(tmp_path, monkeypatch):
    """A /proc that shows all: that of the first namespace, with its first process."""
    made = tmp_path / "proc"
    (made / "self" / "ns").mkdir(parents=True)
    (made / "self" / "ns" / "pid").symlink_to(live._ALL_PROCESSES)
    (made / "self" / "mountinfo").write_text(MOUNT.format(made, ""))
    (made / "1" / "fd").mkdir(parents=True)
    monkeypatch.setattr(live, "_PROC", made)
    return made


def test_all_processes_are_seen_where_nothing_hides_them(proc, folder):
    assert writers(folder, ()).complete
    (proc / "self" / "mountinfo").write_text(MOUNT.format(proc, ",hidepid=0,gid=4"))
    assert writers(folder, ()).complete


def test_without_the_first_process_others_are_hidden_too(proc, folder):
    (proc / "1" / "fd").rmdir()
    (proc / "1").rmdir()
    assert not writers(folder, ()).complete


@pytest.mark.parametrize("how", ["1", "2", "4", "noaccess", "invisible", "ptraceable"])
def test_where_proc_hides_the_processes_of_others_not_all_are_seen(proc, folder, how):
    """As systemd's ProtectProc does; there is no error then, they are just not listed."""
    (proc / "self" / "mountinfo").write_text(MOUNT.format(proc, "") + MOUNT.format(proc, f",hidepid={how}"))
    assert not writers(folder, ()).complete


def test_what_does_not_tell_how_proc_is_mounted_hides(proc, folder):
    (proc / "self" / "mountinfo").write_text(MOUNT.format("/elsewhere", ""))
    assert not writers(folder, ()).complete


def entries(**mtimes):
    return [Entry(name, Mark(1, at, 1, mtime), 1) for at, (name, mtime) in enumerate(mtimes.items())]


@pytest.mark.parametrize(
    "name",
    [
        "app.log.1",
        "app.log.12",
        "app.log-20250101",
        "app.log-20250101.1",
        "app.log-2025-01-01",
        "app.log.2025-01-01_13-00-00",
        "app.log-20250101-1735689600",
        "app-20250101.log",
        "app-2025-01-01T13-00-00.000.log",
        "app.2025-01-01.0.log",
        "app-2025-01.log",
    ],
)
def test_the_name_before_a_rotation(name):
    assert named_before(name) == "app.log"


@pytest.mark.parametrize(
    "name", ["worker-1.log", "worker-2.log", "worker.1.log", "app8080.log", "app-8080.log", "app.log", "app-2025.log"]
)
def test_a_number_that_may_be_a_workers_is_of_the_name(name):
    assert named_before(name) == name


def test_only_what_is_packed_or_has_a_newer_file_in_its_place_is_closed():
    given = entries(
        **{
            "worker-1.log": 1,
            "worker-2.log": 9,
            "a.log": 5,
            "a.log.1": 4,
            "a.log.2": 6,
            "a.log.3.gz": 7,
            "b.log.1": 1,
            "b.log.2": 1,
            "worker-1.log.1": 1,
            "worker-2.log.1": 1,
        }
    )
    # A process that has not heard of the rotation writes on in a.log.2; worker-1.log is as old as what was rotated.
    assert unclosed(given) == {
        "worker-1.log",
        "worker-2.log",
        "a.log",
        "a.log.2",
        "b.log.1",
        "b.log.2",
        "worker-1.log.1",
    }


def test_where_not_all_processes_are_seen_each_workers_log_is_left_alone():
    given = entries(**{"worker-1.log": 1, "worker-2.log": 2, "worker-2.log.1": 1})
    told = live.live(given, Writers(frozenset(), complete=False), among=given, named=[], settle=0)
    assert set(told) == {"worker-1.log", "worker-2.log"}
    assert live.live(given, Writers(frozenset(), complete=True), among=given, named=[], settle=0) == {}
