"""The walk along the entries: what it takes, and which entry it names."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retentiond.domain.evidence import canonical, leaf_hash, root_of
from retentiond.errors import LedgerError
from retentiond.ledger.chain import Break, Chain, parse_leaf

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def entries(count: int) -> list[bytes]:
    leaves: list[bytes] = []
    prev = b""
    for seq in range(1, count + 1):
        leaves.append(canonical({"seq": seq, "prev": prev.hex(), "note": f"n{seq}"}))
        prev = leaf_hash(leaves[-1])
    return leaves


def first_break(leaves: list[bytes]) -> Break | None:
    chain = Chain()
    for leaf in leaves:
        if found := chain.feed(leaf):
            return found
    return chain.doubt()


def test_a_whole_chain_has_no_break_and_gives_the_root_of_its_tree() -> None:
    leaves = entries(10)
    chain = Chain()
    assert [chain.feed(leaf) for leaf in leaves] == [None] * 10
    assert (chain.doubt(), chain.size, chain.last) == (None, 10, leaf_hash(leaves[-1]))
    assert chain.tree.root() == root_of(map(leaf_hash, leaves))


@given(st.integers(1, 9))
def test_an_altered_entry_is_named_when_the_next_one_speaks_for_it(seq: int) -> None:
    leaves = entries(10)
    leaves[seq - 1] = leaves[seq - 1].replace(b'"n', b'"m')
    found = first_break(leaves)
    assert found is not None
    assert (found.seq, "altered" in found.what) == (seq, True)


@given(st.integers(2, 9))
def test_an_entry_whose_own_link_was_altered_is_named_and_not_its_neighbour(seq: int) -> None:
    leaves = entries(10)
    entry = orjson.loads(leaves[seq - 1])
    leaves[seq - 1] = canonical({**entry, "prev": "00" * 32})
    found = first_break(leaves)
    assert found is not None
    assert found.seq == seq


@given(st.integers(1, 7), st.integers(3, 10))
def test_of_several_altered_entries_in_a_row_the_first_is_named(seq: int, count: int) -> None:
    leaves = entries(10)
    for at in range(seq - 1, min(seq - 1 + count, 10)):
        leaves[at] = leaves[at].replace(b'"n', b'"m')
    found = first_break(leaves)
    assert found is not None
    assert found.seq == seq


def test_what_nothing_decides_is_not_said_as_if_it_were_certain() -> None:
    leaves = entries(3)
    leaves[2] = canonical({**orjson.loads(leaves[2]), "prev": "00" * 32})
    assert first_break(leaves) == Break(
        2, None, "it was altered, or else the entry after it was, which names another hash for it"
    )


def test_a_first_entry_that_names_one_before_it_is_named() -> None:
    assert first_break([canonical({"seq": 1, "prev": "00" * 32})]) == Break(
        1, None, "the first entry names one before it"
    )


@pytest.mark.parametrize("at", [0, 4, 8])
def test_a_missing_entry_is_named_by_its_number(at: int) -> None:
    leaves = entries(10)
    del leaves[at]
    assert first_break(leaves) == Break(at + 1, None, f"missing: in its place is one with the number {at + 2}")


def test_swapped_entries_are_named_at_the_first_of_them() -> None:
    leaves = entries(10)
    leaves[3], leaves[4] = leaves[4], leaves[3]
    found = first_break(leaves)
    assert found is not None
    assert found.seq == 4


def test_a_doubt_about_the_last_two_entries_is_not_lost_at_the_end() -> None:
    leaves = entries(3)
    leaves[1] = leaves[1].replace(b'"n', b'"m')
    found = first_break(leaves)
    assert found is not None
    assert found.seq == 2


@pytest.mark.parametrize("other", [b"{}", b"not JSON"])
def test_a_doubt_comes_before_what_is_wrong_after_it(other: bytes) -> None:
    leaves = entries(4)
    leaves[1] = leaves[1].replace(b'"n', b'"m')
    leaves[3] = other
    found = first_break(leaves)
    assert found is not None
    assert found.seq == 2


@given(JSON)
def test_what_the_canonical_serializer_writes_is_taken(value: object) -> None:
    try:
        leaf = canonical({"value": value})
    except LedgerError:
        return
    assert parse_leaf(leaf) is not None


@given(JSON)
def test_nothing_is_taken_that_the_canonical_serializer_writes_otherwise(value: object) -> None:
    try:
        expected = canonical({"value": value})
    except LedgerError:
        expected = b""
    try:
        leaf = orjson.dumps({"value": value}, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:
        return
    assert (parse_leaf(leaf) is not None) == (leaf == expected)


@pytest.mark.parametrize("number", ["9007199254740992", "10000000000000000", "1e+21", "0.5", "-9007199254740992"])
def test_a_number_in_the_form_of_its_double_is_taken(number: str) -> None:
    assert parse_leaf(b'{"a":%s}' % number.encode()) is not None


@pytest.mark.parametrize(
    "leaf",
    [b"", b"[]", b"1", b'{"a": 1}', b'{"b":1,"a":1}', b'{"a":1,"a":1}', b'{"a":1.0}', b'{"a":1e2}', b'{"a":9007199254740993}',
     b'{"a":"\\u0041"}', b'{"a":"\\ud800"}', b"\xff", b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", b'{"a":' + b"[" * 1010 + b"]" * 1010 + b"}"],
)  # fmt: skip
def test_a_leaf_in_any_other_form_is_refused(leaf: bytes) -> None:
    assert parse_leaf(leaf) is None


def test_a_break_says_itself_as_text_and_as_json() -> None:
    assert str(Break(3, 3, "it was altered")) == "entry 3: it was altered"
    assert str(Break(None, None, "no key")) == "no key"
    assert Break(3, 3, "w").document() == {"seq": 3, "line": 3, "what": "w"}
