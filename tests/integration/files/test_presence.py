"""What the lock file shows of a worker, and what it does not."""

import os
import signal
import subprocess
import sys

import pytest

from retentiond.errors import Blind, Unreachable
from retentiond.stores.base import Window
from retentiond.stores.files import presence
from retentiond.stores.files.folder import Folder, Mark
from retentiond.stores.files.intent import Item, document, fate
from retentiond.stores.files.presence import Presence, lock_name
from tests.services.lines import OLD, YOUNG, opened, ours, permit, plan, swept, written


@pytest.fixture
def folder(tmp_path):
    found = Folder(str(tmp_path), "app*")
    yield found
    found.close()


def looked(path, *items, attended=None, name="app*"):
    """What became of a batch that was to take these, by the folder as it is now."""
    found = Folder(str(path), name)
    if attended is None:
        there = Presence(found, "logs")
        attended = there.take()
        there.leave()
    told = fate(found, "logs", {"intended": document(items, attended), "salt": "s"})
    found.close()
    return told


HOLDING = """
import json, sys
from retentiond.stores.files.folder import Folder
from retentiond.stores.files.presence import Presence
there = Presence(Folder(sys.argv[1], "app*"), "logs")
print(json.dumps(dict(there.take())), flush=True)
sys.stdin.read()
"""


def test_a_worker_is_there_while_it_lives_stopped_or_not_and_gone_when_it_is_killed(tmp_path, folder):
    import json

    with subprocess.Popen(
        [sys.executable, "-c", HOLDING, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        attended = json.loads(process.stdout.readline())
        assert not Presence(folder, "logs").gone(attended)
        process.send_signal(signal.SIGSTOP)
        assert not Presence(folder, "logs").gone(attended)
        with pytest.raises(Unreachable, match="another worker has"):
            Presence(folder, "logs").take()
        process.kill()
        process.wait()
    assert Presence(folder, "logs").gone(attended)


def test_the_lock_of_another_folder_or_a_file_that_was_replaced_shows_nothing(tmp_path, folder):
    there = Presence(folder, "logs")
    attended = there.take()
    lock = tmp_path / lock_name("logs")
    copy = lock.read_bytes()
    lock.unlink()
    with pytest.raises(Unreachable, match="can't be opened"):
        Presence(folder, "logs").gone(attended)
    lock.write_bytes(copy)
    with pytest.raises(Unreachable, match="is not the one that the worker has locked"):
        Presence(folder, "logs").gone(attended)
    there.leave()
    again = Presence(folder, "logs")
    assert again.take()["lock"] == [lock.stat().st_dev, lock.stat().st_ino]
    again.leave()


def test_a_later_batch_leaves_those_before_it_to_be_told(tmp_path, folder):
    """A worker that was fenced off takes the lock too, before it hears so."""
    there = Presence(folder, "logs")
    first = there.take()
    there.leave()
    assert Presence(folder, "logs").gone(first)
    second = there.take()
    assert second["token"] != first["token"]
    assert not Presence(folder, "logs").gone(first), "somebody is there"
    there.leave()
    assert Presence(folder, "logs").gone(first)
    for _ in range(presence._KEPT):
        there.take()
        there.leave()
    assert (tmp_path / lock_name("logs")).stat().st_size < presence._LENGTH
    with pytest.raises(Unreachable):
        Presence(folder, "logs").gone(first)


def test_a_copy_of_the_disk_from_before_the_batch_tells_nothing_of_it(tmp_path, folder):
    there = Presence(folder, "logs")
    there.take()
    there.leave()
    lock = tmp_path / lock_name("logs")
    copy = lock.read_bytes()
    attended = there.take()
    there.leave()
    lock.write_bytes(copy)
    with pytest.raises(Unreachable):
        Presence(folder, "logs").gone(attended)


def test_a_link_in_the_place_of_the_lock_file_is_not_followed(tmp_path, folder):
    (tmp_path / "elsewhere").touch()
    (tmp_path / lock_name("logs")).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic"):
        Presence(folder, "logs").take()
    assert (tmp_path / "elsewhere").read_bytes() == b""


@pytest.mark.parametrize(
    "kind", ["nfs4", "cifs", "9p", "virtiofs", "vboxsf", "vmhgfs", "fuse.sshfs", "ceph", "orangefs", "newfs", None]
)
def test_on_all_but_local_file_systems_a_free_lock_is_no_proof(folder, monkeypatch, kind):
    there = Presence(folder, "logs")
    attended = there.take()
    there.leave()
    monkeypatch.setattr(presence, "_kind_of", lambda folder: kind)
    with pytest.raises(Unreachable, match="does not show that its worker is gone"):
        Presence(folder, "logs").gone(attended)


@pytest.mark.parametrize("kind", ["ext4", "xfs", "btrfs", "zfs", "tmpfs", "overlay"])
def test_on_local_ones_it_is(folder, monkeypatch, kind):
    there = Presence(folder, "logs")
    attended = there.take()
    there.leave()
    monkeypatch.setattr(presence, "_kind_of", lambda folder: kind)
    assert Presence(folder, "logs").gone(attended)


def test_the_kind_of_a_file_system_is_that_of_the_deepest_mount(folder):
    assert (
        presence._by_path(folder, ["1 1 0:1 / / rw - ext4 /dev/x rw", f"2 1 0:2 / {folder.path} rw - nfs4 a:/b rw"])
        == "nfs4"
    )


def test_a_permit_that_does_not_say_what_its_worker_can_be_told_by_is_not_judged(folder):
    with pytest.raises(Blind):
        Presence(folder, "logs").gone(None)


async def test_what_a_worker_that_died_had_made_ready_is_thrown_away_and_what_a_living_one_has_is_not(tmp_path):
    written(tmp_path / "app.log", OLD + YOUNG)
    dead = tmp_path / f"{presence.part_prefix('logs')}dead"
    dead.write_bytes(YOUNG)
    living = tmp_path / f"{presence.part_prefix('logs')}living"
    living.write_bytes(YOUNG)
    import fcntl

    with living.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert (await swept(await opened(tmp_path))).changed == 1
        assert ours(tmp_path) == [living.name]


async def test_an_innocent_file_under_a_name_of_ours_gets_its_own_back(tmp_path):
    """A worker died right after a rotation had put another file in the way."""
    path = written(tmp_path / "app.log", YOUNG)
    mark = Mark.of(written(tmp_path / "other", OLD).stat())
    (tmp_path / "other").unlink()
    item = Item("app.log", ".retentiond-logs.going-x", mark, None, {"free": 1}, 5, None, None, "f")
    path.rename(tmp_path / item.private)
    told = looked(tmp_path, item)
    assert told.kind == "looked"
    assert path.read_bytes() == YOUNG
    assert ours(tmp_path) == []


async def test_a_file_that_was_packed_since_leaves_it_in_doubt(tmp_path):
    mark = Mark.of(written(tmp_path / "app.log.1", OLD).stat())
    item = Item("app.log.1", ".retentiond-logs.going-x", mark, None, {"free": 1}, 5, None, None, "f")
    packed = tmp_path / "app.log.2.gz"
    packed.write_bytes(b"x")
    os.utime(packed, ns=(mark.mtime, mark.mtime))
    (tmp_path / "app.log.1").unlink()
    assert looked(tmp_path, item).kind == "unknown"
    packed.unlink()
    assert looked(tmp_path, item).found.changed == 1


class Killed(BaseException):
    """The process is gone here."""


@pytest.mark.parametrize("rotated", [False, True], ids=["stayed", "rotated since"])
@pytest.mark.parametrize("at", ["before the unlink", "before the look"])
@pytest.mark.parametrize("content", [OLD, OLD + YOUNG], ids=["goes whole", "is rewritten"])
async def test_a_destruction_that_a_worker_had_begun_is_undone_by_who_finds_it(
    tmp_path, monkeypatch, content, at, rotated
):
    """A hold may have become active since the lock was free."""
    from retentiond.stores.files import batch, intent, swap

    path = written(tmp_path / "app.log", content)
    store, items = await opened(tmp_path), []
    real, rename = os.unlink, swap._rename2

    def kill(*_, **__):
        raise Killed

    def moved(*args, **named):
        rename(*args, **named)
        if at == "before the look":
            raise Killed

    class Kept(intent.Item):
        @classmethod
        def of(cls, made, target):
            items.append(intent.Item.of(made, target))
            return items[-1]

    with monkeypatch.context() as patch:
        patch.setattr(batch, "Item", Kept)
        patch.setattr(swap, "_rename2", moved)
        patch.setattr(swap.os, "unlink", kill)
        # In a thread, which an exception that is no Exception gets through just so.
        with pytest.raises(Killed):
            await swept(store)
    assert os.unlink is real
    assert (tmp_path / items[0].private).read_bytes() == content
    if rotated and path.exists():
        path.rename(path.with_name("app.log.1"))
    told = looked(tmp_path, *items)
    assert (told.kind, told.found.changed) == ("looked", 0)
    assert [each.read_bytes() for each in tmp_path.glob("app*")] == [content]
    assert ours(tmp_path) == []


async def test_a_file_whose_name_another_has_by_now_is_not_told_gone(tmp_path):
    path = written(tmp_path / "app.log", OLD)
    item = Item("app.log", ".retentiond-logs.going-x", Mark.of(path.stat()), None, {"free": 1}, 5, None, None, "f")
    path.rename(tmp_path / item.private)
    written(path, YOUNG)
    told = looked(tmp_path, item)
    assert (told.kind, told.found.changed) == ("looked", 0)
    assert ((tmp_path / item.private).read_bytes(), path.read_bytes()) == (OLD, YOUNG)


def appended(path):
    with path.open("ab") as file:
        file.write(YOUNG)


def truncated(path):
    os.truncate(path, 0)


def moved(path):
    appended(path)
    path.rename(path.with_name("else"))


@pytest.mark.parametrize("change", [appended, truncated, os.utime, moved])
async def test_a_file_that_is_there_and_was_written_to_is_not_told_gone(tmp_path, change):
    path = written(tmp_path / "app.log", OLD)
    item = Item("app.log", ".retentiond-logs.going-x", Mark.of(path.stat()), None, {"free": 1}, 5, None, None, "f")
    assert looked(tmp_path, item).found.changed == 0
    change(path)
    assert looked(tmp_path, item).kind == "unknown"


async def test_another_folder_in_the_place_of_the_workers_says_nothing_of_its_files(tmp_path):
    """Another disk was mounted there, and somebody has declared the worker gone."""
    mine, other = tmp_path / "mine", tmp_path / "other"
    mine.mkdir()
    other.mkdir()
    path = written(mine / "app.log", OLD)
    item = Item("app.log", ".retentiond-logs.going-x", Mark.of(path.stat()), None, {"free": 1}, 5, None, None, "f")
    folder = Folder(str(mine), "app*")
    there = Presence(folder, "logs")
    attended = there.take()
    there.leave()
    folder.close()
    assert looked(mine, item, attended=attended).kind == "looked"
    assert looked(other, item, attended=attended).kind == "unknown"
    (other / lock_name("logs")).write_bytes((mine / lock_name("logs")).read_bytes())
    assert looked(other, item, attended=attended).kind == "unknown"
    bare = {"intended": {"files": [item.document()]}, "salt": "s"}
    assert fate(Folder(str(mine), "app*"), "logs", bare).kind == "unknown"


async def test_what_is_written_down_of_a_batch_has_what_its_folder_is_told_by(tmp_path):
    written(tmp_path / "app.log", OLD)
    of, store = plan(), await opened(tmp_path)
    async with store.batch(of) as batch:
        await batch.looked(Window("files", None, 100))
        attended = await batch.attend()
        intended = await batch.intended(permit(of), Window("files", None, 100))
    assert intended.document["presence"] == attended


async def test_an_innocent_file_that_was_exchanged_gets_its_name_back_and_what_was_made_goes(tmp_path):
    """A worker died right after it had exchanged what a rotation had just put there."""
    path = written(tmp_path / "app.log", YOUNG * 2)
    before = Mark.of(written(tmp_path / "other", OLD + YOUNG).stat())
    (tmp_path / "other").rename(tmp_path / "app.log.1")
    made = written(tmp_path / "made", YOUNG)
    after = Mark.of(made.stat())
    item = Item("app.log", ".retentiond-logs.going-x", before, after, {"free": 1}, 5, None, None, "f")
    path.rename(tmp_path / item.private)
    made.rename(path)
    told = looked(tmp_path, item)
    assert (told.kind, told.found.changed) == ("looked", 0)
    assert (path.read_bytes(), (tmp_path / "app.log.1").read_bytes()) == (YOUNG * 2, OLD + YOUNG)
    assert ours(tmp_path) == []


async def test_what_was_written_to_the_new_file_since_is_not_lost_when_the_exchange_is_undone(tmp_path):
    path = written(tmp_path / "app.log", OLD + YOUNG)
    before = Mark.of(path.stat())
    made = written(tmp_path / "made", YOUNG)
    after = Mark.of(made.stat())
    item = Item("app.log", ".retentiond-logs.going-x", before, after, {"free": 1}, 5, None, None, "f")
    path.rename(tmp_path / item.private)
    made.rename(path)
    appended(path)
    told = looked(tmp_path, item)
    assert (told.kind, told.found.changed) == ("looked", 0)
    assert path.read_bytes() == YOUNG * 2
    assert (tmp_path / item.private).read_bytes() == OLD + YOUNG
