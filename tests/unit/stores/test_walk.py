"""Walks over listings: windows, positions that can be kept, and what is known of all records afterwards."""

from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retentiond.stores.base import Tally, TierTally, Window
from retentiond.stores.judging import Page
from retentiond.stores.s3 import walk
from retentiond.stores.s3.census import Census
from retentiond.stores.s3.intent import Items
from retentiond.stores.s3.items import Doomed
from retentiond.stores.s3.reading import Found
from retentiond.stores.s3.rows import Chunk, Rows, read, until, written
from retentiond.stores.s3.walk import KEYS, Pages, Taken, Walks

THEN = datetime(2020, 1, 1, tzinfo=UTC)
NOTHING = frozenset()


def rows(*keys):
    """Versions, `key` or `key@id`."""
    pairs = [(*each.split("@"), "v")[:2] for each in keys]
    names, ids = [key for key, _ in pairs], [version for _, version in pairs]
    count = len(keys)
    return Rows(names, [THEN] * count, [1] * count, ["e"] * count, ids, [False] * count)


class Bucket:
    """What is listed, `page` rows at a time; `asked` counts the requests."""

    def __init__(self, *keys, page=3):
        self.rows, self.page, self.asked = rows(*keys), page, 0

    async def fetch(self, bucket, what, head, after):
        self.asked += 1
        pairs = list(zip(self.rows.keys, self.rows.ids, strict=True))
        start = 0 if after is None else next(i for i, pair in enumerate(pairs) if pair > after)
        stop = min(start + self.page, len(pairs))
        return Chunk(self.rows.part(start, stop), pairs[stop - 1] if stop < len(pairs) else None)


@pytest.fixture
def listed(monkeypatch):
    def of(*keys, **named):
        bucket = Bucket(*keys, **named)
        monkeypatch.setattr(walk, "fetch", bucket.fetch)
        return bucket

    return of


async def windows(pages, size):
    found, after = [], None
    while True:
        taken = await pages.take(after, size)
        found.append((taken.rows.keys, taken.torn))
        after = taken.after
        if after is None:
            return found


async def test_a_window_ends_where_a_key_ends(listed):
    pages = Pages(listed("a@1", "a@2", "b@1", "b@2", "b@3", "c@1"), "versions", "", None)
    assert await windows(pages, 3) == [(["a", "a"], NOTHING), (["b", "b", "b"], NOTHING), (["c"], NOTHING)]


async def test_a_key_with_more_versions_than_a_window_is_torn_in_each_of_its_windows(listed):
    pages = Pages(listed(*(f"a@{i}" for i in range(5)), "b@0"), "versions", "", None)
    assert await windows(pages, 2) == [
        (["a", "a"], {"a"}),
        (["a", "a"], {"a"}),
        (["a", "b"], {"a"}),
    ]  # fmt: skip


async def test_a_window_is_looked_at_again_without_listing_and_gone_on_from(listed):
    bucket = listed(*(f"{i:02}" for i in range(20)), page=5)
    walks = Walks("")
    async with walks.at(bucket, "versions", None, None) as pages:
        first = await pages.take(None, 4)
    async with walks.at(bucket, "versions", None, None) as pages:
        assert (await pages.take(None, 4)).rows.keys == first.rows.keys
    asked = bucket.asked
    async with walks.at(bucket, "versions", first.after, None) as pages:
        assert (await pages.take(first.after, 4)).rows.keys == ["04", "05", "06", "07"]
    assert bucket.asked <= asked + 1, "it went on with what it had"
    await walks.close()


async def test_what_was_listed_long_ago_is_listed_anew(listed, monkeypatch):
    bucket = listed(*(f"{i:02}" for i in range(20)), page=20)
    pages = Pages(bucket, "versions", "", None)
    first = await pages.take(None, 4)
    monkeypatch.setattr(walk, "_FRESH_SECONDS", -1.0)
    bucket.rows = bucket.rows.part(0, 6)
    assert (await pages.take(first.after, 4)).rows.keys == ["04", "05"]
    await pages.close()


@pytest.mark.parametrize(
    ("end", "left", "ends"),
    [(("b",), ["a", "b", "b"], True), (("b", "1"), ["a", "b"], True), (("aa",), ["a"], True), (("d",), 4, False)],
)
def test_a_stretch_ends_at_its_position(end, left, ends):
    chunk = until(Chunk(rows("a@1", "b@1", "b@2", "c@1"), ("c", "1")), end)
    assert chunk.rows.keys == (left if isinstance(left, list) else ["a", "b", "b", "c"])
    assert (chunk.after is None) == ends


@given(st.text(st.characters(codec=None, exclude_categories=[])))
def test_any_key_can_be_kept_as_a_position(key):
    raw = key.encode("utf-8", "surrogatepass").decode("utf-8", "surrogateescape")
    kept = written(raw)
    assert "\0" not in kept
    assert orjson.loads(orjson.dumps(kept)) == kept
    assert read((kept,)) == (raw,)


def judged(keys, *, oldest=THEN, first="2020-01-01T00:00:00Z"):
    page = Page(keys, [THEN] * len(keys), [1] * len(keys), [None] * len(keys))
    tally = Tally(scanned=len(keys), tiers={"free": TierTally(first=first)})
    return Found(page, (), (), (), (), tally, None, oldest)


def see(census, after, keys, then, end=None):
    found = rows(*keys)
    census.seen((KEYS,), Window(KEYS, after, 0, end), Taken(found, then, NOTHING, 1), judged(keys))


def test_the_total_is_known_when_the_walk_has_come_to_its_end():
    census = Census()
    see(census, None, ["a", "b"], ("b",))
    see(census, None, ["a", "b"], ("b",))  # once more
    assert census.total is None
    see(census, ("b",), ["c"], None)
    assert (census.total, census.oldest, census.firsts) == (3, THEN, {"free": "2020-01-01T00:00:00Z"})


def test_stretches_are_put_together_and_a_gap_between_them_is_none():
    census = Census()
    see(census, ("m",), ["n", "o"], None)
    assert census.total is None
    see(census, None, ["a"], None, end=("g",))
    assert census.total is None
    see(census, ("g",), ["h"], None, end=("m",))
    assert census.total == 4


def test_cuts_have_about_as_many_records_each():
    census = Census()
    see(census, None, [f"{i:05}" for i in range(10_000)], None)
    cuts = [int(place[0]) for place in census.cuts(KEYS, 4)]
    assert [abs(cut - 2500 * (i + 1)) < 250 for i, cut in enumerate(cuts)] == [True] * 3


def test_what_is_intended_can_be_read_again_and_counted():
    doomed = [Doomed("a%\x00", "v1", "e", 3, THEN), Doomed("b", "null", "", 0, THEN)]
    items = Items("versions", doomed, ["free", "pro"], [THEN, None], 1)
    again = Items.of(orjson.loads(orjson.dumps(items.document())))
    assert (list(again.doomed), list(again.anchors), again.markers) == (doomed, [THEN, None], 1)
    went = again.went([0, 1], "salt")
    assert (went.changed, went.bytes, went.by_tier, went.newest) == (
        2,
        3,
        {"free": 1, "pro": 1},
        "2020-01-01T00:00:00.000000Z",
    )
    assert went.ids_digest == items.went([1, 0], "salt").ids_digest
