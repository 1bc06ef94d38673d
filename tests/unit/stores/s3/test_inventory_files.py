"""The rows of an inventory's files, and their order: whatever keys there are, in both formats."""

import gzip
import io
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retentiond.errors import Blind
from retentiond.stores.s3.inventory import files
from retentiond.stores.s3.inventory.files import Wanted, require_reader, rows_of
from retentiond.stores.s3.inventory.manifest import Manifest, plain
from retentiond.stores.s3.inventory.picture import Builder
from tests.services.inventories import CSV_SCHEMA, Report, Row
from tests.services.s3_keys import KEYS

THEN = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
FORMATS = pytest.mark.parametrize("format", ["CSV", "Parquet"])


class Bucket:
    name = "b"


def report(rows, format="CSV", files=1):
    return Report(Bucket(), rows, THEN, format=format, files=files)


def manifest(format="CSV", schema=CSV_SCHEMA):
    return Manifest("m", THEN, format, tuple(plain(each.strip()) for each in schema.split(",")), ())


def read(data, *, format="CSV", head="", versions=True, source="b", schema=CSV_SCHEMA):
    wanted = Wanted(source, head.encode(), versions)
    return list(rows_of(io.BytesIO(data), "f", manifest(format, schema), wanted))


@FORMATS
def test_every_key_is_read_as_it_is(format):
    rows = [Row(key, THEN, version=f"v{i}") for i, key in enumerate(KEYS)]
    (data,) = report(rows, format).parts()
    assert {key.decode() for key, *_ in read(data, format=format)} == set(KEYS)


@FORMATS
def test_all_that_is_needed_of_a_row_is_read(format):
    (data,) = report([Row("k", THEN, "e1", 7, "v1"), Row("m", THEN, "", 0, "", marker=True)], format).parts()
    newest = -int(THEN.timestamp() * 1e6)
    assert sorted(read(data, format=format)) == [
        (b"k", newest, "v1", 7, "e1", False),
        (b"m", newest, "null", 0, "", True),
    ]


@FORMATS
def test_of_a_bucket_without_versions_the_current_objects_are_read(format):
    rows = [
        Row("a", THEN, version="1"),
        Row("a", THEN, version="0", latest=False),
        Row("b", THEN, version="2", marker=True),
    ]
    (data,) = report(rows, format).parts()
    assert [row[0] for row in read(data, format=format, versions=False)] == [b"a"]


def test_a_key_that_is_no_utf_8_stays_the_bytes_that_it_is():
    key = b"a\xff+ %".decode(errors="surrogateescape")
    (data,) = report([Row(key, THEN)]).parts()
    ((found, *_),) = read(data)
    assert found == b"a\xff+ %"


@FORMATS
def test_keys_that_are_none_of_the_target_are_passed_over(format):
    (data,) = report([Row("logs/1", THEN), Row("other/1", THEN)], format).parts()
    assert [row[0] for row in read(data, format=format, head="logs/")] == [b"logs/1"]


@FORMATS
@pytest.mark.parametrize("cut", [1, 12, 40])
def test_a_file_that_ends_early_is_said_to(format, cut):
    (data,) = report([Row(f"k{i}", THEN) for i in range(50)], format).parts()
    with pytest.raises(Blind, match="inventory file f can't be read"):
        read(data[:-cut], format=format)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b'"other","k","v","true","false","1","2024-05-06T07:08:09.000Z","e"\n', "another bucket"),
        (b'"b","k","v","true","false","1","yesterday","e"\n', "a date, a size or a flag"),
        (b'"b","k","v","true","perhaps","1","2024-05-06T07:08:09.000Z","e"\n', "a date, a size or a flag"),
        (b'"b","k","v","true","false","many","2024-05-06T07:08:09.000Z","e"\n', "a date, a size or a flag"),
        (b'"b","secret-key"\n', "line 1 has 2 fields"),
        (b'"b","k\xff","v","true","false","1","2024-05-06T07:08:09.000Z","e"\n', "no CSV"),
        (b'"b","k"x,"v"\n', "no CSV"),
    ],
)
def test_a_row_that_can_be_none_is_an_error_that_quotes_nothing_of_it(line, says):
    schema = "Bucket, Key, VersionId, IsLatest, IsDeleteMarker, Size, LastModifiedDate, ETag"
    with pytest.raises(Blind, match=says) as error:
        read(gzip.compress(line), schema=schema)
    assert "secret" not in error.value.message


def test_a_column_that_a_parquet_file_lacks_is_named():
    from arro3.core import Array, DataType, Table
    from arro3.io import write_parquet

    into = io.BytesIO()
    write_parquet(
        Table.from_pydict({"bucket": Array(["b"], DataType.utf8()), "key": Array(["k"], DataType.utf8())}), into
    )
    with pytest.raises(Blind, match="lacks Size, LastModifiedDate, ETag, VersionId, IsDeleteMarker"):
        read(into.getvalue(), format="Parquet")


def test_where_parquet_can_t_be_read_what_to_install_is_said(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "arro3.io", None)
    with pytest.raises(Blind) as error:
        require_reader(manifest("Parquet"))
    assert "retentiond[inventory]" in error.value.remedy
    require_reader(manifest("CSV"))


async def picture(rows, *, versions=True, folder=None):
    builder = Builder(folder, versions=versions)
    builder.add(rows)
    return builder.picture(manifest())


def row(key, seconds=0, id_="v", *, marker=False):
    return key.encode(errors="surrogateescape"), -seconds * 1_000_000, id_, 1, "e", marker


async def walked(of, size):
    found, after = [], None
    while True:
        chunk = await of.fetch(after, size)
        found += zip(chunk.rows.keys, chunk.rows.ids or chunk.rows.keys, strict=True)
        if chunk.after is None:
            return found
        after = chunk.after


async def test_rows_come_by_the_bytes_of_their_keys_and_the_newest_of_a_key_first():
    keys = ["b", "a", "é", "a\x00", "z", "\U0001f600", "\uffff"]
    of = await picture([row(key, at, f"v{at}") for key in keys for at in (1, 3, 2)])
    assert await walked(of, 4) == [(key, f"v{at}") for key in sorted(keys, key=str.encode) for at in (3, 2, 1)]
    await of.retire()


async def test_an_object_that_was_met_twice_counts_once_and_as_the_newest():
    of = await picture([row("a", 1, ""), row("a", 9, ""), row("b", 1, "")], versions=False)
    chunk = await of.fetch(None)
    assert (chunk.rows.keys, chunk.rows.ids, chunk.rows.markers) == (["a", "b"], None, None)
    assert chunk.rows.modified[0] == datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=9)
    await of.retire()


async def test_a_position_in_an_older_report_is_gone_on_from_in_a_newer_one():
    newer = await picture([row("a", 1), row("b", 3, "b3"), row("b", 1, "b1"), row("c", 1)])
    assert (await newer.fetch(("b", "b3"))).rows.ids == ["b1", "v"]
    assert (await newer.fetch(("b", "b2"))).rows.ids == ["b3", "b1", "v"], "the version is gone: all of its key again"
    assert (await newer.fetch(("aa", "x"))).rows.keys == ["b", "b", "c"]
    assert (await newer.fetch(("c", "v"))).rows.keys == []
    await newer.retire()


async def test_what_is_marked_as_gone_is_not_met_again_and_stays_a_position():
    of = await picture([row("a", 2, "a2"), row("a", 1, "a1"), row("b")])
    await of.mark_gone([("a", "a2")])
    assert (await of.fetch(None)).rows.ids == ["a1", "v"]
    assert (await of.fetch(("a", "a2"))).rows.ids == ["a1", "v"]
    await of.retire()


async def test_a_picture_is_closed_by_whoever_leaves_it_last():
    of = await picture([row("a")])
    of.taken()
    await of.retire()
    assert (await of.fetch(None)).rows.keys == ["a"]
    await of.left()
    with pytest.raises(Exception, match="closed"):
        await of.fetch(None)


async def test_sorting_leaves_no_file_behind_at_any_time(tmp_path):
    builder = Builder(tmp_path, versions=True)
    assert list(tmp_path.iterdir()) == []
    builder.add(row(f"k{i}") for i in range(50_000))
    of = builder.picture(manifest())
    assert list(tmp_path.iterdir()) == []
    await of.retire()


def test_a_folder_that_takes_no_files_is_named(tmp_path):
    with pytest.raises(Blind, match=r"no file can be made in .*nowhere"):
        Builder(tmp_path / "nowhere", versions=True)


async def test_a_file_that_breaks_off_leaves_nothing_of_it_in_use():
    builder = Builder(None, versions=True)

    def rows():
        yield row("a")
        raise Blind("it ends early", remedy="")

    with pytest.raises(Blind):
        builder.add(rows())
    builder.close()


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(max_size=3), st.integers(0, 5), st.sampled_from("xyz")), unique_by=lambda r: (r[0], r[2])
    ),
    st.integers(1, 5),
)
def test_a_walk_meets_each_row_once_whatever_its_pages_are(rows, size):
    import asyncio

    async def run():
        of = await picture([row(key.replace("\ud800", ""), at, id_) for key, at, id_ in rows])
        found = await walked(of, size)
        await of.retire()
        return found

    found = asyncio.run(run())
    assert sorted(found) == sorted((key, id_) for key, _, id_ in rows)
    assert [key for key, _ in found] == sorted(
        (key for key, *_ in rows), key=lambda key: key.encode(errors="surrogateescape")
    )


def test_the_reader_is_imported_only_when_something_is_read():
    assert "arro3" not in vars(files)
