"""Which files count as being written, by what can be seen of processes and names."""

import pytest

from retentiond.stores.files import live
from retentiond.stores.files.folder import Folder
from retentiond.stores.files.live import writers

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
