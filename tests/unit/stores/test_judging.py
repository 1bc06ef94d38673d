"""One definition of the rules: pages judged in Python and `judge` of the same plan agree on every record."""

import asyncio
import json
import random
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from retentiond.domain.accounts import AccountFacts, Surveyed, TierRules, account_hash
from retentiond.domain.duration import rfc3339
from retentiond.domain.holds import Hold, HoldState, Scope, TargetHold, covers_target
from retentiond.domain.plan import Group, TargetPlan
from retentiond.domain.policy import parse_policy
from retentiond.domain.verdict import Kind, RecordFacts, judge
from retentiond.stores.base import Known
from retentiond.stores.holding import target_hold
from retentiond.stores.judging import Page, judge_page, later, tally_of
from retentiond.stores.rulings import Rulings, Untold
from services.rules import NOW, RAW_TIERS, SCOPES, accounts_of, anchors, policies

KEY = b"k" * 32
SOURCES = ["directory", "directory", "record", "constant", "none"]


def canonical(text):
    """As the text of an integer; None where it is none."""
    return str(int(text)) if text.strip().isdigit() else None


class Directory:
    """An account directory in memory whose ids are integers."""

    def __init__(self, accounts, *, dated):
        self.accounts = {
            str(n): (tier, deleted, retention, changed) for n, tier, deleted, retention, changed in accounts
        }
        self.dated, self.asked = dated, []

    async def known(self, class_name, ids):
        self.asked += sorted(ids)
        found = {each: self.of(class_name, canonical(each)) for each in ids if canonical(each) in self.accounts}
        assert len(self.asked) == len(set(self.asked)), "asked twice"
        return found

    async def canonical(self, ids):
        return {each: text for each in ids if (text := canonical(each)) is not None}

    async def groups(self, class_name):
        return tuple({Group(k.facts.tier, k.facts.override) for k in (self.of(class_name, a) for a in self.accounts)})

    def of(self, class_name, account):
        tier, deleted, retention, changed = self.accounts[account]
        document = json.loads(retention) if retention else None
        override = document.get(class_name) if isinstance(document, dict) else document and "(no JSON object)"
        facts = AccountFacts(True, tier, None if override is None else str(override), deleted)
        return Known(account, facts, changed_at=changed if self.dated else None)


def remembered(chance, directory):
    tiers = {account: found[0] for account, found in directory.accounts.items()}
    days = [1, 29, 30, 31, 400, 3000]
    seen = {each: chance.choice([tier, tier, *RAW_TIERS]) for each, tier in tiers.items() if chance.random() < 0.9}
    return Surveyed(
        recent=frozenset([] if directory.dated else [each for each in tiers if chance.random() < 0.2]),
        tiers=None if directory.dated else seen,
        missing={
            account_hash(KEY, str(n)): NOW - timedelta(days=chance.choice(days))
            for n in (*range(16, 19), 99)
            if chance.random() < 0.8
        },
        key=KEY,
    )


def planned(chance, document, scopes, directory, source, *, has_directory=True):
    policy, faults = parse_policy(document, used_classes=frozenset(["logs"]))
    assert policy is not None, faults
    plan = TargetPlan(
        "logs",
        policy.classes["logs"],
        policy,
        NOW,
        rules=TierRules({"hobby": "free"}),
        tier_source=source,
        tier="pro" if source == "constant" else None,
        knows_account=source != "none",
        has_directory=has_directory,
        groups=asyncio.run(directory.groups("logs")),
        surveyed=remembered(chance, directory) if has_directory else Surveyed(),
    )
    asked = directory if has_directory else None
    holds = [
        asyncio.run(
            target_hold(
                Hold(str(n), "m", "r", scope, HoldState.ACTIVE, "x", NOW),
                target="logs",
                knows_account=plan.knows_account,
                directory=asked,
            )
        )
        for n, scope in enumerate(map(Scope.from_document, scopes))
        if covers_target(scope, target="logs", class_name="logs")
    ]
    return replace(plan, holds=tuple(holds))


def instant_of(text):
    """An anchor as a store has it: what is infinite can't be told."""
    return None if text is None or "infinity" in text else NOW.fromisoformat(text)


def page_of(chance, document, count=120):
    names = [None, *map(str, range(1, 20)), "007", " 3", "x-1", "00", Untold.KEY, Untold.TAG]
    return Page(
        keys=[str(n) for n in range(count)],
        anchors=[instant_of(anchors(chance, document)) for _ in range(count)],
        sizes=[chance.randrange(1000) for _ in range(count)],
        accounts=[chance.choice(names) for _ in range(count)],
        tiers=[chance.choice(RAW_TIERS) for _ in range(count)],
    )


def verdicts(plan, page, directory):
    """Each record's verdict by `judge`, with facts got another way than rulings get them; and the facts."""
    for index, account in enumerate(page.accounts):
        fault, text, facts = None, None, AccountFacts()
        if isinstance(account, Untold):
            fault = account.value
        elif account is not None:
            text = canonical(account) or account
            if plan.has_directory and plan.knows_account:
                facts = facts_of(plan, directory, text)
        tier = page.tiers[index] if page.tiers is not None and fault is None else None
        record = RecordFacts(page.keys[index], page.anchors[index], text, tier, fault=fault)
        if plan.has_directory is False and account is not None and fault is None:
            record = replace(record, account=account)
        yield judge(plan, record, facts), facts


def facts_of(plan, directory, text):
    facts = AccountFacts()
    if text in directory.accounts:
        known = directory.of("logs", text)
        grace = plan.grace_cutoff is not None and known.changed_at is not None and known.changed_at > plan.grace_cutoff
        facts = replace(known.facts, in_grace=grace)
    return plan.surveyed.applied(text, facts, has_grace=plan.grace_cutoff is not None)


def judged(plan, page, directory):
    rulings = Rulings(plan)
    asyncio.run(rulings.ask(page.accounts, directory if plan.has_directory else None))
    return judge_page(rulings, page)


def state(plan, page, index, verdict, facts):
    """How a store counts a record (the state of the Postgres store's relation), holds aside."""
    anchor, minimum = page.anchors[index], plan.data_class.minimum
    erasing = facts.deleted_at is not None and facts.deleted_at < plan.deletion_cutoff
    if verdict.due:
        return "due"
    if minimum and erasing and not isinstance(page.accounts[index], Untold):
        return "minimum"
    fault = any(line.startswith("fault:") for line in verdict.considered)
    if plan.counts_from_deletion:
        return "unresolved" if fault else "keep"
    horizon = plan.horizon()
    if anchor is None or (fault and horizon is not None and anchor < horizon):
        return "unresolved"
    return "keep"


PROFILE = settings(
    phases=(Phase.explicit, Phase.reuse, Phase.generate),  # a seed does not shrink
    max_examples=80,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
RULES = {
    "document": policies(),
    "scopes": st.lists(SCOPES, max_size=3),
    "seed": st.integers(0, 2**32),
    "source": st.sampled_from(SOURCES),
    "dated": st.booleans(),
    "has_directory": st.sampled_from([True, True, True, False]),
}


def made(document, scopes, seed, source, dated, has_directory):
    chance = random.Random(seed)
    directory = Directory(accounts_of(chance), dated=dated)
    plan = planned(chance, document, scopes, directory, source, has_directory=has_directory)
    page = page_of(chance, document)
    if source != "record":
        page = replace(page, tiers=None)
    return plan, page, directory


@PROFILE
@given(**RULES)
def test_a_page_is_judged_as_each_of_its_records(**rules):
    plan, page, directory = made(**rules)
    found = judged(plan, page, directory)
    expected = list(verdicts(plan, page, directory))
    wanted = [n for n, (verdict, _) in enumerate(expected) if verdict.kind is Kind.ERASE]
    assert list(found.due) == wanted
    assert found.tally.selected == len(wanted) == sum(found.tally.by_tier.values())
    assert found.tally.bytes == sum(page.sizes[n] for n in wanted)
    dated = [page.anchors[n] for n in wanted if page.anchors[n] is not None]
    assert found.tally.oldest == (rfc3339(min(dated)) if dated else None)
    assert found.tally.newest == (rfc3339(max(dated)) if dated else None)


@PROFILE
@given(**RULES)
def test_what_is_kept_is_counted_by_why_it_is(**rules):
    plan, page, directory = made(**rules)
    found = judged(plan, page, directory).tally
    counts = {"held": 0, "minimum": 0, "unresolved": 0}
    held = [verdict.holds for verdict, _ in verdicts(plan, page, directory)]
    for n, (verdict, facts) in enumerate(verdicts(replace(plan, holds=()), page, directory)):
        kind = state(plan, page, n, verdict, facts)
        if kind == "keep":
            continue
        if held[n]:
            counts["held"] += 1
        elif kind != "due":
            counts[kind] += 1
    assert {name: getattr(found, name) for name in counts} == counts
    assert found.scanned == len(page.keys)
    first = min((each.first for each in found.tiers.values() if each.first), default=None)
    assert first == min((rfc3339(each) for each in page.anchors if each is not None), default=None)


@PROFILE
@given(**RULES, days=st.integers(0, 5000))
def test_nothing_becomes_due_before_it_is_said_to(days, **rules):
    """With neither holds nor accounts changed; a downgrade grace may end at any moment."""
    plan, page, directory = made(**rules)
    found = judged(plan, page, directory)
    last = NOW + timedelta(days=days)
    if found.next_due is not None:
        assert found.next_due >= NOW
        last = min(last, found.next_due - timedelta(microseconds=1))
    for surveyed in (plan.surveyed, replace(plan.surveyed, recent=frozenset(), tiers=None)):
        later_plan = replace(plan, now=max(last, NOW), surveyed=surveyed)
        due = {n for n, (verdict, _) in enumerate(verdicts(later_plan, page, directory)) if verdict.kind is Kind.ERASE}
        # What a grace has just ended for is due at once, as is said: then `next_due` is now.
        if found.next_due is None or found.next_due > NOW:
            assert due <= set(found.due)


@PROFILE
@given(**RULES)
def test_the_overdue_are_as_late_as_the_most_overdue_of_them(**rules):
    plan, page, directory = made(**rules)
    found = judged(plan, page, directory)
    lateness = [0.0]
    for n, (verdict, facts) in enumerate(verdicts(plan, page, directory)):
        if verdict.kind is not Kind.ERASE:
            continue
        base = facts.deleted_at if plan.counts_from_deletion else page.anchors[n]
        resolution = plan.resolution(
            account=page.accounts[n] if isinstance(page.accounts[n], str) else None,
            raw_tier=page.tiers[n] if page.tiers else None,
            facts=facts,
        )
        if base is not None and resolution.fault is None and resolution.cutoff is not None:
            lateness.append((resolution.cutoff - base).total_seconds())
        if facts.deleted_at is not None and not plan.data_class.minimum:
            lateness.append((plan.deletion_cutoff - facts.deleted_at).total_seconds())
    assert found.tally.overdue_seconds == max(lateness)


# --- What the property can't reach ---

FREE = {"tiers": ["free"], "classes": {"logs": {"ttl": "P30D"}}}
OLD = NOW - timedelta(days=400)


def simple(**more):
    policy, _ = parse_policy(FREE, used_classes=frozenset(["logs"]))
    return TargetPlan("logs", policy.classes["logs"], policy, NOW, groups=(Group("free"),), **more)


def one(account):
    return Page([f"{account}/x"], [OLD], [1], [account])


def test_a_record_of_an_account_that_was_not_asked_about_is_kept():
    found = judge_page(Rulings(simple()), one("1"))
    assert (found.due, found.tally.unresolved) == ((), 1)


def test_an_unreadable_record_is_held_by_a_hold_on_any_account():
    hold = TargetHold("h", accounts=frozenset(["1"]))
    found = judge_page(Rulings(simple(holds=(hold,))), one(Untold.KEY))
    assert (found.due, found.tally.held, found.tally.unresolved) == ((), 1, 0)
    assert judge(simple(holds=(hold,)), RecordFacts("k", OLD, fault="unreadable"), AccountFacts()).kind is Kind.HELD


def test_an_account_is_asked_about_once_and_rulings_made_again_ask_again():
    directory = Directory([(1, "free", None, None, None)], dated=True)
    rulings = Rulings(simple())
    for _ in range(3):
        asyncio.run(rulings.ask(["1", "2", None, Untold.KEY], directory))
    assert directory.asked == ["1", "2"]
    directory.asked = []
    asyncio.run(Rulings(simple()).ask(["1"], directory))
    assert directory.asked == ["1"]


def test_a_hold_is_in_the_directory_s_text_where_it_can_be_and_to_the_letter_where_not():
    scope = Scope(accounts=("007", "x-1"), records={"logs": ("a/b",)}, prefixes={"logs": ("c/",), "other": ("d",)})
    hold = Hold("h", "m", "r", scope, HoldState.ACTIVE, "x", NOW)
    directory = Directory([], dated=True)

    def of(**given):
        return asyncio.run(target_hold(hold, target="logs", **given))

    assert of(knows_account=True, directory=directory).accounts == {"7", "x-1"}
    assert of(knows_account=True, directory=None).accounts == {"007", "x-1"}
    assert of(knows_account=False, directory=directory).accounts is None
    assert of(knows_account=True, directory=None).records == {"a/b"}
    assert of(knows_account=True, directory=None).prefixes == ("c/",)


def test_an_id_is_compared_with_a_hold_in_the_directory_s_own_text():
    directory = Directory([(7, "free", None, None, None)], dated=True)
    for account, known in (("007", True), ("0099", False)):
        hold = TargetHold("h", accounts=frozenset(["7" if known else "99"]))
        rulings = Rulings(simple(holds=(hold,)))
        asyncio.run(rulings.ask([account], directory))
        assert judge_page(rulings, one(account)).due == ()


@pytest.mark.parametrize("held", [str(n) for n in range(1, 20)])
def test_a_hold_on_one_account_is_not_lost_where_others_are_like_it(held):
    directory = Directory([(n, "free", None, None, None) for n in range(1, 20)], dated=True)
    rulings = Rulings(simple(holds=(TargetHold("h", accounts=frozenset([held])),)))
    page = Page([f"{n}/x" for n in range(1, 20)], [OLD] * 19, [1] * 19, [str(n) for n in range(1, 20)])
    asyncio.run(rulings.ask(page.accounts, directory))
    found = judge_page(rulings, page)
    assert [page.accounts[n] for n in range(19) if n not in found.due] == [held]


def test_a_tier_is_remembered_by_the_id_as_the_directory_writes_it():
    known = Known("bob", AccountFacts(True, "free"), written="Bob")
    policy, _ = parse_policy(
        {"tiers": ["free", "pro"], "classes": {"logs": {"ttl": {"free": "P30D", "pro": "P9Y"}}}},
        used_classes=frozenset(["logs"]),
    )
    for tiers, due in (({"Bob": "free"}, 1), ({"Bob": "pro"}, 0), ({"bob": "free"}, 0)):
        plan = TargetPlan("logs", policy.classes["logs"], policy, NOW, surveyed=Surveyed(tiers=tiers))
        rulings = Rulings(plan)
        rulings.learn(["BOB"], {"BOB": known}, {})
        assert len(judge_page(rulings, one("BOB")).due) == due


def test_the_anchor_is_the_later_of_last_modified_and_the_date_in_the_key():
    a, b = NOW, NOW + timedelta(days=1)
    assert later([a, a, b, None], [b, None, a, b]) == [b, a, b, None]
    assert later([a], None) == [a]


def test_columns_of_different_lengths_are_refused():
    page = Page(["k"], [OLD, OLD], [1], [None])
    with pytest.raises(ValueError, match="zip"):
        judge_page(Rulings(simple()), page)


def test_what_went_is_counted_from_its_columns():
    found = tally_of([OLD, None, NOW], [1, 2, 3], ["free", "pro", "free"])
    assert (found.changed, found.bytes, found.by_tier) == (3, 6, {"free": 2, "pro": 1})
    assert (found.oldest, found.newest) == (rfc3339(OLD), rfc3339(NOW))
    assert tally_of([], [], []).oldest is None
