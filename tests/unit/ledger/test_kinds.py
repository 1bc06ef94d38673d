"""What each kind of entry says, and what none of them may say."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from retentiond.domain.evidence import canonical, keyed_digest
from retentiond.domain.holds import Hold, HoldState, Scope
from retentiond.domain.plan import TargetPlan
from retentiond.domain.policy import parse_policy
from retentiond.errors import LedgerError
from retentiond.ledger import kinds
from retentiond.ledger.kinds import Counts, Entry, Kind, Result, Work

WHEN = datetime(2026, 5, 17, 12, 0, 0, 5, tzinfo=UTC)
KEY = b"k" * 32
WORK = Work(
    sweep="s1",
    batch="b1",
    permit=7,
    target="request_logs",
    store="postgres",
    class_name="operational_logs",
    action="delete",
    policy_digest="d1",
    rule="operational_logs/free",
    cutoff=WHEN,
    hold_epoch=3,
)
POLICY, _ = parse_policy(
    {
        "tiers": ["free", "pro"],
        "no_account": "free",
        "classes": {"logs": {"ttl": {"free": "P90D", "pro": "forever"}, "override": {"pro": {"max": "P7Y"}}}},
    },
    used_classes=frozenset(["logs"]),
)
assert POLICY is not None
PLAN = TargetPlan("request_logs", POLICY.classes["logs"], POLICY, WHEN, digest="d1", epoch=3)


def test_an_intent_says_under_which_rules_a_sweep_is_about_to_erase() -> None:
    body = kinds.intent(PLAN, sweep="s1", store="postgres", shard="", mode="enforce", due=9, by="w").body
    assert body["cutoffs"] == {
        "free": "2026-02-16T12:00:00.000005Z",
        "pro": None,
        "none": "2026-02-16T12:00:00.000005Z",
        "unknown": None,
    }
    assert body["account_erasure_cutoff"] == "2026-04-17T12:00:00.000005Z"
    assert (body["policy"], body["hold_epoch"], body["mode"], body["due"]) == ("d1", 3, "enforce", 9)


def test_an_accepted_control_database_is_said_with_what_it_gave_up_and_a_digest_of_the_reason() -> None:
    body = kinds.accepted("note", by="o", reason="the disk of Ada died", key=KEY).body
    assert body["guard"] == "control_state"
    assert body["detail"] == {
        "event": "accepted",
        "by": "o",
        "reason": keyed_digest(KEY, "the disk of Ada died"),
        "given_up": "note",
    }


def test_an_outcome_has_every_field_that_the_design_lists() -> None:
    counts = Counts(selected=5, erased=3, already_gone=1, held=1)
    result = Result(
        counts, "returning", 12, {"free": Counts(erased=3)}, bytes=900, oldest=WHEN, newest=WHEN, ids_digest="aa"
    )
    body = kinds.outcome(WORK, result).body
    assert set(body) == {
        *("sweep", "batch", "permit", "target", "shard", "store", "class", "tiers", "action", "policy", "rule"),
        *("cutoff", "hold_epoch", "counts", "bytes", "oldest", "newest", "ids_digest", "verified", "milliseconds"),
    }
    assert body["cutoff"] == "2026-05-17T12:00:00.000005Z"
    assert body["tiers"] == {"free": {"erased": 3}}
    counted = "selected=5 erased=3 anonymised=0 archived=0 already_gone=1 held=1 minimum=0 failed=0 in_doubt=0"
    assert body["counts"] == {name: int(n) for name, n in (pair.split("=") for pair in counted.split())}


def test_a_hold_enters_with_digests_of_its_texts_and_never_with_the_texts() -> None:
    secrets = {"case 7 v. Ada", "Ada complained", "ada@example.com", "do not tell Ada", "settled with Ada"}
    matter, reason, account, notice, release = sorted(secrets)
    subject = Hold(
        id="h1",
        matter=matter,
        reason=reason,
        scope=Scope(accounts=(account,)),
        state=HoldState.RELEASING,
        placed_by="counsel",
        placed_at=WHEN,
        notice=notice,
        release_reason=release,
        erasable_at=WHEN,
    )
    entry = kinds.hold("released", subject, by="counsel", epoch=4, key=KEY)
    text = canonical(entry.body).decode()
    assert not [secret for secret in secrets if secret in text]
    assert entry.body["reason"] == keyed_digest(KEY, reason)
    assert entry.body["scope"] == keyed_digest(KEY, json.dumps({"accounts": [account]}, separators=(",", ":")))
    assert (entry.body["hold"], entry.body["state"], entry.body["epoch"]) == ("h1", "releasing", 4)


def test_there_is_a_constructor_for_every_kind_and_each_makes_canonical_json() -> None:
    made = [
        kinds.policy("enforced", digest="d", previous=None, by="operator"),
        kinds.mode("pause", mode="enforce", by="operator", key=KEY, reason="maintenance"),
        kinds.intent(PLAN, sweep="s1", store="postgres", shard="", mode="enforce", due=None, by="w"),
        kinds.outcome(WORK, Result(Counts(), "returning", 1)),
        kinds.in_doubt(permit=7, target="t", shard="", batch="b", found="nothing", by="w"),
        kinds.request(
            "verified",
            request="n:1",
            target="t",
            store="opensearch",
            permit=1,
            batch="b",
            digest="d",
            selected=2,
            by="w",
        ),
        kinds.hold(
            "placed",
            Hold("h", "m", "r", Scope(everything=True), HoldState.PENDING, "c", WHEN),
            by="c",
            epoch=1,
            key=KEY,
        ),
        kinds.erasure("completed", request="r", account="hmac", by="privacy", detail={"t": {"erased": 1}}),
        kinds.export(request="r", account="hmac", by="privacy", records={"t": 1}, manifest="aa"),
        kinds.approval("granted", subject="sweep", target="t", digest="d", bound=10, by="operator"),
        kinds.guard("max_fraction", tripped=True, target="t", detail={"due": 9}),
        kinds.heartbeat(mode="enforce", policy_digest="d", targets={"t": {"overdue": 0}}),
        kinds.startup(worker="w", mode="plan", policy_digest=None, key="k"),
    ]
    assert [entry.kind for entry in made] == list(Kind)
    assert all(canonical(entry.body) for entry in made)


def test_a_reason_is_digested_and_a_missing_one_stays_missing() -> None:
    assert kinds.mode("pause", mode="plan", by="o", key=KEY, reason="why").body["reason"] == keyed_digest(KEY, "why")
    assert kinds.mode("mode", mode="plan", by="o", key=KEY).body["reason"] is None


def test_no_entry_can_set_what_the_journal_sets() -> None:
    with pytest.raises(LedgerError, match="prev, seq"):
        Entry(Kind.GUARD, {"seq": 1, "prev": "", "guard": "g"})
