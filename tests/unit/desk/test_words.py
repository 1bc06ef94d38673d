"""Scopes and entries of the ledger, in words."""

import pytest

from retentiond.desk.words import entry_in_words, scope_in_words
from retentiond.domain.evidence import keyed_digest
from retentiond.domain.holds import Scope
from retentiond.ledger import kinds


@pytest.mark.parametrize(
    ("scope", "words"),
    [
        ({"everything": True}, "everything"),
        ({"accounts": ["4711"]}, "account 4711"),
        ({"accounts": ["1", "2"], "classes": ["invoices", "prompts"]}, "accounts 1, 2; classes invoices, prompts"),
        ({"targets": ["a"], "since": "2024-01-01"}, "target a; since 2024-01-01T00:00:00Z"),
        ({"until": "2024-01-01", "prefixes": {"a": ["x"]}}, "prefix x of a; until before 2024-01-01T00:00:00Z"),
        ({"prefixes": {"a": ["x", "y"]}, "records": {"a": ["1"]}}, "prefixes x, y of a; record 1 of a"),
    ],
)
def test_a_scope_is_told_in_words(scope, words):
    assert scope_in_words(Scope.from_document(scope), brief=False) == words


def test_of_many_values_the_brief_form_names_some_and_counts_the_rest():
    scope = Scope(accounts=tuple(str(n) for n in range(100)))
    assert scope_in_words(scope, brief=True) == "accounts 0, 1, 2 and 97 more"
    assert scope_in_words(scope, brief=False).endswith("98, 99")
    assert scope_in_words(Scope(accounts=("1", "2", "3", "4")), brief=True) == "accounts 1, 2, 3, 4"


def told(entry):
    return entry_in_words({"seq": 1, "at": "t", "kind": str(entry.kind), "prev": "p", "version": "v", **entry.body})


def test_an_entry_of_each_kind_that_people_ask_for_is_told_in_a_line():
    digest = keyed_digest(b"k", "x")
    assert told(kinds.policy("enforced", digest="a" * 64, previous=None, by="ann")) == f"enforced {'a' * 12} by ann"
    bound = kinds.approval("granted", subject="sweep", target="logs", digest=digest, bound=5, by="ann")
    assert told(bound) == f"granted: sweep logs, at most 5 records, digest {digest[:12]} by ann"
    assert told(kinds.guard("fraction", tripped=True, target="logs")) == "fraction stopped logs"
    assert told(kinds.mode("pause", mode="enforce", by="ann", key=b"k", reason="r")) == "pause: enforce by ann"


def test_a_kind_without_words_of_its_own_is_told_by_its_fields():
    entry = kinds.erasure("requested", request="r1", account="hmac", by="ann")
    assert told(entry) == "account hmac, by ann, event requested, request r1"
