from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retentiond.settings.documents import read_document

# What is claimed is no matter of time, and a busy machine is slow.
UNHURRIED = settings(deadline=None)


def read(text):
    return read_document(text, key="DOC", name="doc")


def test_scalars_follow_yaml_1_2():
    layer, problems = read(
        "a: no\nb: off\nc: 22:00\nd: 2026-01-31\ne: true\nf: ~\ng: 012\nh: 1.5\ni: '1'\nj: yes\nk: 1e3\nl: 0x1F\n"
    )
    assert problems == []
    assert layer.values == {
        "a": "no", "b": "off", "c": "22:00", "d": "2026-01-31", "e": True, "f": None, "g": 12, "h": 1.5, "i": "1",
        "j": "yes", "k": 1000.0, "l": "0x1F",
    }  # fmt: skip


def test_each_value_knows_its_line():
    layer, _ = read("a:\n  b: 1\n  c:\n    - x\n    - y\n")
    assert layer.sources[("a", "b")] == "doc line 2"
    assert layer.sources[("a", "c", "1")] == "doc line 5"


def test_an_empty_document_is_no_fault():
    for text in ("", "# nothing\n", "~", "---\n"):
        assert read(text)[0].values == {}
        assert read(text)[1] == []


@pytest.mark.parametrize(
    ("text", "where", "message"),
    [
        ("a: [1, 2\nb: 3\n", "line 2", "malformed YAML"),
        ("a: 1\n  b: 2\n", "line 2 column 4", "malformed YAML"),
        ("a: 'x\n", "line 2", "malformed YAML"),
        ("a:\n\t- b\n", "line 2 column 1", "malformed YAML"),
        ("a: \x00\n", "line 1 column 4", "malformed YAML"),
        ("a: 1\nb: 2\na: 3\n", "line 3 column 1", "the key a stands twice"),
        ("a: {b: 1, b: 2}\n", "line 1 column 11", "the key b stands twice"),
        ("- a\n- b\n", "line 1 column 1", "a mapping was expected at the top"),
        ("just text", "line 1 column 1", "a mapping was expected at the top"),
        ("a: !!python/object/apply:os.system [ls]\n", "line 1 column 4", "tags are refused"),
        ("a: !secret x\n", "line 1 column 4", "tags are refused"),
        ("? [a, b]\n: 1\n", "line 1 column 3", "a key must be plain text"),
        ("a: &x [*x]\n", "line 1 column 4", "an alias refers to itself"),
        ("a: 1\n---\nb: 2\n", "line 2 column 1", "malformed YAML"),
    ],
)
def test_a_malformed_document_is_a_problem_with_line_and_column(text, where, message):
    _, problems = read(text)
    assert len(problems) == 1
    assert message in problems[0].message
    assert where in problems[0].message
    assert problems[0].source.startswith("doc line ")
    assert problems[0].remedy


def test_an_alias_gives_the_value_it_stands_for():
    assert read("a: &x {b: 1}\nc: *x\n")[0].values == {"a": {"b": 1}, "c": {"b": 1}}


def test_a_document_that_grows_without_end_is_refused():
    text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 9)
    )
    assert any("too large" in problem.message for problem in read(text)[1])


def test_an_excerpt_of_the_document_is_never_in_a_message():
    for text in ("dsn: *hunter2hunter2\n", "a: @hunter2hunter2\n", "a: 'hunter2hunter2\n", "a: {hunter2hunter2: [\n"):
        _, problems = read(text)
        assert problems
        assert "hunter2" not in str(problems)


@UNHURRIED
@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8),
        st.recursive(
            st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=20),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=4,
    ),
    st.sampled_from([None, 2, "\t"]),
)
def test_a_json_document_is_read_as_json_would_be(document, indent):
    layer, problems = read(json.dumps(document, indent=indent))
    assert problems == []
    assert layer.values == document
