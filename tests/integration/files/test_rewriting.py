"""Files rewritten: what stays is as it was, whatever is in a line or happens to the file meanwhile."""

import errno
import gzip
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from retentiond.errors import Blind, Conflict
from retentiond.stores.base import Window
from retentiond.stores.files import packing, work
from retentiond.stores.files.folder import Folder
from tests.services.lines import OLD, YOUNG, line, opened, ours, permit, plan, swept, written
from tests.services.logs import packed, unpacked


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst", ".xz"])
async def test_lines_that_are_due_go_and_the_others_stay_to_the_byte(tmp_path, suffix):
    kept = [line(n, days=1, text="é\\n   " * n) for n in range(50)]
    content = b"".join(part for each in kept for part in (OLD, each, OLD))
    path = written(tmp_path / f"app.log{suffix}", packed(content, suffix))
    path.chmod(0o640)
    before = path.stat()
    found = await swept(await opened(tmp_path))
    assert unpacked(path) == b"".join(kept)
    after = path.stat()
    assert (found.changed, found.bytes, found.by_tier) == (100, 100 * len(OLD), {"free": 100})
    assert found.verified == "exchanged, read back"
    assert (stat.S_IMODE(after.st_mode), after.st_mtime_ns, after.st_uid) == (0o640, before.st_mtime_ns, before.st_uid)
    assert after.st_ino != before.st_ino
    assert ours(tmp_path) == []


async def test_a_file_in_which_every_line_is_due_goes_whole(tmp_path):
    path = written(tmp_path / "app.log", OLD * 10)
    stays = written(tmp_path / "app.log.1", YOUNG)
    assert (await swept(await opened(tmp_path))).changed == 10
    assert (path.exists(), stays.exists(), ours(tmp_path)) == (False, True, [])


async def test_a_last_line_without_an_end_stays_without_one(tmp_path):
    path = written(tmp_path / "app.log", OLD + YOUNG + YOUNG[:-1])
    await swept(await opened(tmp_path))
    assert path.read_bytes() == YOUNG + YOUNG[:-1]
    gone = written(tmp_path / "app.log.1", YOUNG + OLD[:-1])
    await swept(await opened(tmp_path))
    assert gone.read_bytes() == YOUNG


ODD = {
    "no JSON": b"panic: something\n",
    "an array": b"[1, 2]\n",
    "an empty line": b"\n",
    "invalid UTF-8": b'{"ts": "2020-01-01T00:00:00Z\xff", "n": 1}\n',
    "no date": b'{"n": 1}\n',
    "a date that is none": b'{"ts": "yesterday"}\n',
    "an infinite date": b'{"ts": "infinity"}\n',
    "a number without a unit": b'{"ts": 1577836800}\n',
    "nesting without end": b'{"ts": ' + b"[" * 100_000 + b"\n",
    "two objects": b'{"ts": "2020-01-01T00:00:00Z"}{"ts": "2020-01-01T00:00:00Z"}\n',
    "a NUL": b"\0\0\0\n",
}


@pytest.mark.parametrize("odd", ODD)
async def test_a_line_that_can_not_be_read_stays_and_is_counted(tmp_path, odd):
    path = written(tmp_path / "app.log", OLD + ODD[odd] + OLD + YOUNG)
    found = await swept(await opened(tmp_path))
    assert path.read_bytes() == ODD[odd] + YOUNG
    # Without a date, a line is unresolved whatever else is in it.
    assert (found.changed, found.unresolved) == (2, 1)


async def test_a_line_of_100_mb_passes_unread_and_never_is_in_memory_as_a_whole(tmp_path):
    path = tmp_path / "app.log"
    with path.open("wb") as file:
        file.write(OLD + b'{"ts": "2020-01-01T00:00:00Z", "x": "')
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n' + OLD + YOUNG)
    os.utime(path, (1e9, 1e9))
    size = path.stat().st_size
    found = await swept(await opened(tmp_path))
    assert (found.changed, found.unresolved, path.stat().st_size) == (2, 1, size - 2 * len(OLD))
    with path.open("rb") as file:
        assert file.read(30).startswith(b'{"ts": "2020-01-01T00:00:00Z"')
        file.seek(-len(YOUNG) - 3, 2)
        assert file.read() == b'"}\n' + YOUNG


@pytest.mark.parametrize("suffix", [".gz", ".zst", ".xz"])
@pytest.mark.parametrize("damage", ["cut off", "cut at its end", "garbage after it", "not packed"])
async def test_a_damaged_file_stays_as_it_is(tmp_path, suffix, damage):
    whole = packed(b"".join(line(n) for n in range(5000)), suffix)
    content = {
        "cut off": whole[: len(whole) // 2],
        "cut at its end": whole[:-3],
        "garbage after it": whole + b"garbage that is no frame",
        "not packed": OLD * 10,
    }[damage]
    path = written(tmp_path / f"app.log{suffix}", content)
    written(tmp_path / "app.log.1", OLD)
    store = await opened(tmp_path)
    found = await swept(store)
    assert path.read_bytes() == content
    assert (found.changed, found.unresolved) == (1, 1)
    assert any("damaged" in each.message for each in await store.check())


async def test_packed_files_of_several_members_are_read_to_their_end(tmp_path):
    for suffix in (".gz", ".zst", ".xz"):
        written(tmp_path / f"app.log{suffix}", packed(OLD, suffix) + packed(YOUNG, suffix) + packed(OLD, suffix))
    assert (await swept(await opened(tmp_path))).changed == 6
    assert {unpacked(each) for each in tmp_path.glob("app*")} == {YOUNG}


# --- What happens to a file meanwhile ---


def grown(path):
    with path.open("ab") as file:
        file.write(YOUNG)
    os.utime(path, (1e9, 1e9))


def replaced(path):
    other = written(path.with_name("other"), YOUNG * 3)
    other.rename(path)


def rotated(path):
    path.rename(path.with_name("app.log.2"))


@pytest.mark.parametrize("whole", [True, False], ids=["goes whole", "is rewritten"])
@pytest.mark.parametrize("change", [grown, replaced, rotated])
async def test_a_file_that_changes_before_its_turn_is_left_as_it_is(tmp_path, change, whole):
    path = written(tmp_path / "app.log", OLD * 3 + (b"" if whole else YOUNG))
    found = await swept(await opened(tmp_path), before=lambda: change(path))
    there = {each.name: each.read_bytes() for each in tmp_path.glob("app*")}
    assert (found.changed, found.locked) == (0, 3)
    wanted = {
        grown: {"app.log": OLD * 3 + (b"" if whole else YOUNG) + YOUNG},
        replaced: {"app.log": YOUNG * 3},
        rotated: {"app.log.2": OLD * 3 + (b"" if whole else YOUNG)},
    }
    assert there == wanted[change]
    assert ours(tmp_path) == []


@pytest.mark.parametrize("whole", [True, False], ids=["goes whole", "is rewritten"])
async def test_a_file_that_a_rotation_puts_there_in_the_very_last_moment_gets_its_name_back(
    tmp_path, whole, monkeypatch
):
    from retentiond.stores.files import swap

    path = written(tmp_path / "app.log", OLD * 3 + (b"" if whole else YOUNG))
    rename, done = swap._rename2, []

    def late(*args, **named):
        if not done:
            done.append(written(path, YOUNG * 7))
            replaced(path)
        rename(*args, **named)

    monkeypatch.setattr(swap, "_rename2", late)
    found = await swept(await opened(tmp_path))
    assert done
    assert (found.changed, found.locked) == (0, 3)
    assert path.read_bytes() == YOUNG * 3
    assert ours(tmp_path) == []


async def test_a_file_that_a_rotation_puts_there_while_the_exchange_is_undone_does_not_go_with_what_was_made(
    tmp_path, monkeypatch
):
    from retentiond.stores.files import swap

    path = written(tmp_path / "app.log", OLD * 3 + YOUNG)
    rename, calls = swap._rename2, []

    def late(*args, **named):
        calls.append(args)
        path.rename(tmp_path / f"app.log.{len(calls)}")
        written(path, YOUNG * (6 + len(calls)))
        rename(*args, **named)

    monkeypatch.setattr(swap, "_rename2", late)
    found = await swept(await opened(tmp_path))
    assert (found.changed, found.locked, len(calls)) == (0, 3, 2)
    assert path.read_bytes() == YOUNG * 7
    (left,) = ours(tmp_path)
    assert (tmp_path / left).read_bytes() == YOUNG * 8


async def test_a_file_that_grows_while_it_is_read_is_left(tmp_path, monkeypatch):
    path = written(tmp_path / "app.log", OLD * 3 + YOUNG)
    whole, done = work.Work._judge, []

    def judged(self, *args):
        if not done:
            done.append(grown(path))
        whole(self, *args)

    monkeypatch.setattr(work.Work, "_judge", judged)
    found = await swept(await opened(tmp_path))
    assert done
    assert found.changed == 0
    assert path.read_bytes() == OLD * 3 + YOUNG * 2
    assert ours(tmp_path) == []


async def test_where_files_can_not_be_exchanged_a_look_right_before_does_and_it_is_said(tmp_path, monkeypatch):
    from retentiond.stores.files import swap

    def unable(*_, **__):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(swap, "_rename2", unable)
    written(tmp_path / "app.log", OLD * 3 + YOUNG)
    written(tmp_path / "app.log.1", OLD)
    found = await swept(await opened(tmp_path))
    assert (found.changed, found.verified) == (4, "replaced, read back")
    assert [each.read_bytes() for each in tmp_path.glob("app*")] == [YOUNG]
    assert ours(tmp_path) == []


# --- What is left alone ---


async def test_a_link_is_never_followed_and_what_has_other_names_is_left(tmp_path):
    folder, elsewhere = tmp_path / "logs", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    secret = written(elsewhere / "secret", OLD)
    linked = written(elsewhere / "linked", OLD)
    (folder / "app.symlink").symlink_to(secret)
    (folder / "app.hard").hardlink_to(linked)
    (folder / "app.folder").mkdir()
    os.mkfifo(folder / "app.fifo")
    store = await opened(folder)
    found = await swept(store)
    assert (found.changed, found.blocked) == (0, 1)
    assert secret.read_bytes() == linked.read_bytes() == OLD
    told = " ".join(each.message for each in await store.check())
    assert "app.hard" in told
    assert "app.symlink" in told


async def test_a_folder_that_is_replaced_by_a_link_meanwhile_is_still_the_one_that_was_opened(tmp_path):
    folder, other = tmp_path / "logs", tmp_path / "other"
    folder.mkdir()
    other.mkdir()
    written(folder / "app.log", OLD)
    innocent = written(other / "app.log", OLD)
    store = await opened(folder)

    def replace():
        folder.rename(tmp_path / "moved")
        folder.symlink_to(other)

    await swept(store, before=replace)
    assert innocent.read_bytes() == OLD


async def test_a_link_to_the_folder_that_is_set_to_another_is_noticed(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        written(tmp_path / name / "app.log", OLD)
    link = tmp_path / "logs"
    link.symlink_to("one")
    store = await opened(link)

    def set_anew():
        link.unlink()
        link.symlink_to("other")

    of, window = plan(), Window("files", None, 100)
    async with store.batch(of) as batch:
        assert (await batch.looked(window)).selected == 1
        set_anew()
        with pytest.raises(Blind, match="another one by now"):
            await batch.attend()
    assert (tmp_path / "one" / "app.log").exists()
    await store.open(None)
    assert (await swept(store)).changed == 1
    assert (tmp_path / "one" / "app.log").exists()
    assert not (tmp_path / "other" / "app.log").exists()


async def test_names_of_any_kind_are_names(tmp_path):
    names = [b"app\n.log", b"app\xff\xfe.log", b"app%2F.log", b"app .log", "app-ü.log".encode()]
    for name in names:
        written(tmp_path / os.fsdecode(name), OLD + YOUNG)
    store = await opened(tmp_path)
    of, found, after = plan(), 0, None

    for _ in names:
        tally = await store.count(of, Window("files", after, 1))
        found, after = found + tally.selected, tally.after
    assert (found, after) == (5, None)
    assert (await swept(store)).changed == 5
    assert {Path(each).read_bytes() for each in tmp_path.glob("app*")} == {YOUNG}
    assert (await store.record(of, "app\n.log:1"))[0].key == "app\n.log:1"


async def test_a_file_that_was_changed_a_moment_ago_is_left_and_what_is_due_in_it_is_blocked(tmp_path):
    path = written(tmp_path / "app.log", OLD + YOUNG, age=60)
    found = await swept(await opened(tmp_path))
    assert (found.selected, found.blocked, path.read_bytes()) == (0, 1, OLD + YOUNG)
    assert found.overdue_seconds > 300 * 86400
    assert (await swept(await opened(tmp_path, settle=0))).changed == 1


async def test_a_file_that_somebody_writes_is_left(tmp_path):
    path = written(tmp_path / "app.log", OLD + YOUNG)
    written(tmp_path / "app.log.1", OLD)
    held = "import sys,time; f = open(sys.argv[1], 'ab'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", held, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"open\n"
        found = await swept(await opened(tmp_path))
        assert (found.changed, found.blocked) == (1, 1)
        process.stdin.close()
        process.wait()
    assert (await swept(await opened(tmp_path, live=[]))).changed in (0, 1)


async def test_one_that_is_opened_for_writing_between_the_look_and_its_turn_is_looked_at_again(tmp_path, monkeypatch):
    written(tmp_path / "app.log", OLD + YOUNG)
    written(tmp_path / "app.log.1", YOUNG)
    store = await opened(tmp_path)
    asked, whole = [], store._ground.written.__func__

    async def seen(ground, entries, among, *, anew=False):
        asked.append(among)
        return (
            {each.name: "opened" for each in among}
            if len(asked) == 2
            else await whole(ground, entries, among, anew=anew)
        )

    monkeypatch.setattr("retentiond.stores.files.ground.Ground.written", seen)
    with pytest.raises(Conflict):
        await swept(store)
    assert ours(tmp_path) == []
    assert (tmp_path / "app.log").read_bytes() == OLD + YOUNG


async def test_a_configured_name_is_left_whatever_else_says(tmp_path):
    written(tmp_path / "app.log", OLD)
    assert (await swept(await opened(tmp_path, live=["app.l*"]))).blocked == 1


# --- Rights and room ---


async def test_a_full_disk_costs_that_file_alone_and_leaves_nothing_behind(tmp_path, monkeypatch):
    path = written(tmp_path / "app.log", (OLD + YOUNG) * 50_000)
    gone = written(tmp_path / "app.log.1", OLD)
    whole, calls = packing.Packed.write, []

    def full(self, content):
        calls.append(content)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(self, content)

    monkeypatch.setattr(packing.Packed, "write", full)
    found = await swept(await opened(tmp_path))
    assert (found.changed, found.failed) == (1, 1)
    assert "No space left" in found.refusal.message
    assert (path.stat().st_size, gone.exists(), ours(tmp_path)) == (len(OLD + YOUNG) * 50_000, False, [])


async def test_where_there_is_too_little_room_nothing_is_begun(tmp_path, monkeypatch):
    path = written(tmp_path / "app.log", OLD + YOUNG)
    monkeypatch.setattr(Folder, "free", lambda self: 100)
    found = await swept(await opened(tmp_path))
    assert (found.changed, found.failed) == (0, 1)
    assert "no room" in found.refusal.message
    assert path.read_bytes() == OLD + YOUNG
    gone = written(tmp_path / "app.log", OLD)
    assert (await swept(await opened(tmp_path))).changed == 1
    assert not gone.exists()


async def test_a_file_whose_owner_can_not_be_kept_is_left(tmp_path, monkeypatch):
    path = written(tmp_path / "app.log", OLD + YOUNG)

    def denied(*_):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(work, "_as_like", denied)
    found = await swept(await opened(tmp_path))
    assert (found.failed, path.read_bytes(), ours(tmp_path)) == (1, OLD + YOUNG, [])


async def test_what_is_written_is_read_back_before_anything_goes(tmp_path, monkeypatch):
    path = written(tmp_path / "app.log.gz", gzip.compress(OLD + YOUNG))
    monkeypatch.setattr(work, "is_as_written", lambda fd, packed: False)
    found = await swept(await opened(tmp_path))
    assert (found.changed, found.failed, unpacked(path)) == (0, 1, OLD + YOUNG)
    assert ours(tmp_path) == []


async def test_a_worker_that_stood_still_for_longer_than_a_permit_lives_changes_nothing_more(tmp_path, monkeypatch):
    """What the directory had said of the accounts is of then."""
    from retentiond.stores.files import batch

    uptime = batch._uptime
    path = written(tmp_path / "app.log", OLD + YOUNG)
    gone = written(tmp_path / "app.log.1", OLD)

    def a_day_later():
        monkeypatch.setattr(batch, "_uptime", lambda: uptime() + 86_400)

    found = await swept(await opened(tmp_path), before=a_day_later)
    assert (found.changed, found.locked) == (0, 2)
    assert (path.read_bytes(), gone.read_bytes(), ours(tmp_path)) == (OLD + YOUNG, OLD, [])


async def test_a_store_that_is_opened_anew_leaves_a_batch_its_folder(tmp_path):
    folder, other = tmp_path / "logs", tmp_path / "other"
    for each in (folder, other):
        each.mkdir()
        written(each / "app.log", OLD + YOUNG)
    store = await opened(folder)
    window, of = Window("files", None, 10), plan()
    async with store.batch(of) as batch:
        await batch.looked(window)
        await batch.attend()
        await batch.intended(permit(of), window)
        folder.rename(tmp_path / "moved")
        other.rename(folder)
        await store.open(None)
        await batch.erase(permit(of), window, salt="s")
    assert (tmp_path / "moved" / "app.log").read_bytes() == YOUNG
    assert (folder / "app.log").read_bytes() == OLD + YOUNG


async def test_a_file_that_is_being_written_is_counted_while_it_grows(tmp_path):
    path = written(tmp_path / "app.log", OLD + YOUNG)
    store = await opened(tmp_path)
    assert await store.counted(10) == 2
    with path.open("ab") as file:
        file.write(OLD)
    found = await store.count(plan(), Window("files", None, 10))
    assert (found.scanned, found.blocked) == (3, 2)


@pytest.mark.parametrize(
    ("more", "left"), [({}, 1), ({"action": "anonymise", "anonymise": {"fields": {"ip": None}}}, 3)]
)
async def test_what_is_remembered_of_a_rewritten_file_is_of_the_lines_that_it_has(tmp_path, more, left):
    path = written(tmp_path / "app.log", line(1, ip="192.0.2.1") * 2 + line(2, days=1, ip="192.0.2.2"))
    store = await opened(tmp_path, **more)
    assert (await swept(store)).changed == 2
    assert await store.total() == len(path.read_bytes().splitlines()) == left
    async with store.batch(plan(action=store.action)) as batch:
        seen = await batch.looked(Window("files", None, 100))
    assert (seen.scanned, seen.selected, seen.bytes, seen.oldest, seen.newest) == (left, 0, 0, None, None)
