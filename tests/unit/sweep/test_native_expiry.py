"""What is made of the rules by which stores erase by themselves."""

import asyncio
from datetime import UTC, datetime
from types import SimpleNamespace

from retentiond.domain.accounts import TierRules
from retentiond.domain.holds import Hold, HoldState, Scope
from retentiond.domain.native_expiry import NativeRule
from retentiond.domain.policy import parse_policy
from retentiond.errors import Blind
from retentiond.sweep.native_expiry import look

POLICY, _ = parse_policy({"tiers": ["free"], "classes": {"logs": {"ttl": "P90D"}}}, used_classes=frozenset(["logs"]))
HOLD = Hold("h1", "2026-17", "r", Scope(targets=("held",)), HoldState.ACTIVE, "x", datetime(2026, 1, 1, tzinfo=UTC))


class Store:
    def __init__(self, answer):
        self.answer = answer

    async def native_rules(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def seen(**stores):
    targets = [SimpleNamespace(name=name, data_class=POLICY.classes["logs"]) for name in stores]
    found = asyncio.run(look(targets, {name: Store(answer) for name, answer in stores.items()}, [HOLD], TierRules({})))
    return {each.target: each for each in found}


def test_a_rule_against_a_hold_is_an_error_and_others_are_to_be_known():
    found = seen(
        held=[NativeRule("r", "", 90)], sooner=[NativeRule("r", "", 30)], later=[NativeRule("r", "", 100)], none=()
    )
    assert {name: [finding.severity for finding in each.findings()] for name, each in found.items()} == {
        "held": ["error"], "sooner": ["info"], "later": ["info"], "none": [],
    }  # fmt: skip
    assert {name: len(each.conflicts) for name, each in found.items()} == {
        "held": 1,
        "sooner": 0,
        "later": 0,
        "none": 0,
    }


def test_a_store_that_can_not_be_asked_is_a_warning_and_hides_no_other():
    found = seen(blind=Blind("no", remedy="grant it"), defect=RuntimeError("a key"), held=[NativeRule("r", "", 90)])
    [warning] = found["blind"].findings()
    assert (warning.severity, warning.remedy) == ("warning", "grant it")
    assert "a key" not in found["defect"].findings()[0].message
    assert len(found["held"].conflicts) == 1
