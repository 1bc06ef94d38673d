"""What is there now of the keys that an inventory says something due of: all of it, for as few lists as can be."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retentiond.stores.s3.inventory import recheck
from retentiond.stores.s3.inventory.recheck import rechecked
from retentiond.stores.s3.rows import Chunk, Rows
from retentiond.stores.s3.walk import Taken

THEN = datetime(2020, 1, 1, tzinfo=UTC)
LATER = THEN + timedelta(days=900)


def rows(pairs, *, versions=True, modified=THEN):
    """Rows of (key, id), in their order."""
    count = len(pairs)
    ids = [id_ for _, id_ in pairs] if versions else None
    markers = [id_.startswith("m") for _, id_ in pairs] if versions else None
    return Rows([key for key, _ in pairs], [modified] * count, [1] * count, ["e"] * count, ids, markers)


class Live:
    """What a bucket lists, `page` rows at a time; `asked` has what was asked for."""

    def __init__(self, of, page=3):
        self.of, self.page, self.asked = of, page, []

    async def fetch(self, bucket, what, prefix, after, size=1000):
        self.asked.append((prefix, after))
        keys, ids = self.of.keys, self.of.ids or [""] * len(self.of)
        places = [i for i, key in enumerate(keys) if key.startswith(prefix) and self._is_after(key, ids[i], after)]
        shown = places[: self.page]
        part = Rows(*([getattr(self.of, name)[i] for i in shown] for name in ("keys", "modified", "sizes", "etags")))
        if self.of.ids is not None:
            part.ids, part.markers = [ids[i] for i in shown], [self.of.markers[i] for i in shown]
        more = len(places) > len(shown)
        last = (part.keys[-1],) if self.of.ids is None else (part.keys[-1], part.ids[-1]) if shown else None
        return Chunk(part, last if more else None)

    def _is_after(self, key, id_, after):
        if after is None:
            return True
        if len(after) == 1 or key != after[0]:
            return key > after[0]
        mine = [i for k, i in zip(self.of.keys, self.of.ids, strict=True) if k == key]
        return mine.index(id_) > mine.index(after[1])


class Picture:
    """Remembers what was marked."""

    def __init__(self):
        self.gone = []

    async def mark_gone(self, pairs):
        self.gone += pairs


@pytest.fixture
def looked(monkeypatch):
    async def look(known, live, due, *, torn=(), page=3, versions=True):
        there = Live(live, page)
        monkeypatch.setattr(recheck, "fetch", there.fetch)
        picture = Picture()
        taken = Taken(known, None, frozenset(torn), 0, picture)
        found = await rechecked(None, "versions" if versions else "objects", "", taken, due)
        assert found.taken.requests == len(there.asked)
        return found, picture, there

    return look


def pairs(of):
    return list(zip(of.keys, of.ids or [""] * len(of), strict=True))


async def test_of_a_key_that_is_due_all_versions_that_there_are_now_are_taken(looked):
    known = rows([("a", "1"), ("b", "2"), ("b", "1"), ("c", "1")])
    live = rows([("a", "1"), ("b", "9"), ("b", "3"), ("b", "2"), ("b", "0"), ("c", "1")])
    found, picture, _ = await looked(known, live, [2])
    assert pairs(found.taken.rows) == [("a", "1"), ("b", "9"), ("b", "3"), ("b", "2"), ("b", "0"), ("c", "1")]
    assert (found.gone, picture.gone) == (1, [("b", "1")])


async def test_what_is_not_due_is_not_looked_at(looked):
    known = rows([("a", "1"), ("b", "1"), ("c", "1")])
    found, picture, there = await looked(known, rows([]), [1])
    assert pairs(found.taken.rows) == [("a", "1"), ("c", "1")]
    assert (found.gone, picture.gone, len(there.asked)) == (1, [("b", "1")], 1)


async def test_an_object_that_is_another_now_is_gone_and_the_other_is_judged(looked):
    known = rows([("a", ""), ("b", "")], versions=False)
    live = rows([("a", ""), ("b", "")], versions=False, modified=LATER)
    found, picture, _ = await looked(known, live, [0, 1], versions=False)
    assert found.taken.rows.modified == [LATER, LATER]
    assert (found.gone, picture.gone) == (2, [("a", None), ("b", None)])


async def test_a_null_version_that_was_overwritten_is_gone(looked):
    found, picture, _ = await looked(rows([("a", "null")]), rows([("a", "null")], modified=LATER), [0])
    assert (found.gone, found.taken.rows.modified) == (1, [LATER])
    assert picture.gone == [("a", "null")]


async def test_of_a_key_that_is_not_all_in_the_window_nothing_from_elsewhere_is_taken(looked):
    known = rows([("a", "3"), ("a", "2")])
    live = rows([("a", "4"), ("a", "3"), ("a", "1")])
    found, _, _ = await looked(known, live, [0, 1], torn=["a"])
    assert pairs(found.taken.rows) == [("a", "3")]
    assert found.gone == 1


async def test_keys_that_lie_together_are_listed_together(looked):
    known = rows([(f"k{i:04}", "1") for i in range(2000)])
    _, _, there = await looked(known, known, range(2000), page=1000)
    assert len(there.asked) <= 2 + 4 + 1


async def test_keys_that_lie_far_apart_cost_a_list_each_and_no_list_of_what_is_between(looked):
    known = rows([(f"k{i:06}", "1") for i in range(12_000)])
    _, _, there = await looked(known, known, [5, 3000, 6000, 11_000], page=100)
    assert len(there.asked) == 4


async def test_where_much_is_new_between_two_keys_it_is_listed_and_passed_over(looked):
    known = rows([("a", "1"), ("z", "1")])
    live = rows([("a", "1"), *((f"m{i:03}", "1") for i in range(50)), ("z", "1")])
    found, _, there = await looked(known, live, [1], page=10)
    assert pairs(found.taken.rows) == [("a", "1"), ("z", "1")]
    assert len(there.asked) == 6


async def test_a_key_that_others_begin_with_is_not_taken_for_them(looked):
    found, picture, _ = await looked(rows([("a", "1")]), rows([("aa", "1"), ("ab", "1")]), [0])
    assert (len(found.taken.rows), found.gone, picture.gone) == (0, 1, [("a", "1")])


ROWS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("123m")), unique=True).map(sorted)


@settings(max_examples=200, deadline=None)
@given(ROWS, ROWS, st.data(), st.integers(1, 4))
def test_whatever_there_was_and_is_keys_that_are_due_are_as_they_are_now(known, live, data, page):
    import asyncio

    due = data.draw(st.sets(st.integers(0, len(known) - 1))) if known else set()
    with pytest.MonkeyPatch.context() as patch:
        there = Live(rows(live), page)
        patch.setattr(recheck, "fetch", there.fetch)
        picture = Picture()
        taken = Taken(rows(known), None, frozenset(), 0, picture)
        found = asyncio.run(rechecked(None, "versions", "", taken, sorted(due)))
    keys = {known[i][0] for i in due}
    assert pairs(found.taken.rows) == sorted(
        {*(p for p in known if p[0] not in keys), *(p for p in live if p[0] in keys)}
    )
    assert found.gone == len([i for i in due if known[i] not in live])
    assert sorted(picture.gone) == [pair for pair in known if pair[0] in keys and pair not in live]
