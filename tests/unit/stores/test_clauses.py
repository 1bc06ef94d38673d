"""One definition of the rules: what clauses say of a record, and `judge` of the same plan, agree on every record."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from hypothesis import given

from retentiond.domain.accounts import Surveyed
from retentiond.domain.verdict import Kind
from retentiond.stores.deferred.clauses import Clause, Range, clauses_of
from retentiond.stores.rulings import Rulings, Untold
from services.rules import NOW
from tests.unit.stores.test_judging import PROFILE, RULES, made, state, verdicts


def is_of(clause, account, tier, anchor):
    if account not in clause.accounts or (clause.by_tier and tier != clause.tier):
        return False
    if anchor is None:
        return clause.range.undated
    since, until = clause.range.since, clause.range.until
    return (since is None or anchor >= since) and (until is None or anchor < until)


def kinds_of(clauses, page, index):
    tier = page.tiers[index] if page.tiers is not None else None
    return [each.kind for each in clauses if is_of(each, page.accounts[index], tier, page.anchors[index])]


def without_untold(page):
    keep = [n for n, account in enumerate(page.accounts) if not isinstance(account, Untold)]

    def of(column):
        return None if column is None else [column[n] for n in keep]

    return replace(
        page,
        keys=of(page.keys),
        anchors=of(page.anchors),
        sizes=of(page.sizes),
        accounts=of(page.accounts),
        tiers=of(page.tiers),
    )


def prepared(rules):
    plan, page, directory = made(**rules)
    plan = replace(plan, holds=tuple(replace(hold, records=None, prefixes=()) for hold in plan.holds))
    page = without_untold(page)
    rulings = Rulings(plan)
    asyncio.run(rulings.ask(page.accounts, directory if plan.has_directory else None))
    subjects = page.accounts if page.tiers is None else list(zip(page.accounts, page.tiers, strict=True))
    return plan, page, directory, rulings, list(dict.fromkeys(subjects))


@PROFILE
@given(**RULES)
def test_what_clauses_say_of_a_record_is_its_verdict(**rules):
    plan, page, directory, rulings, subjects = prepared(rules)
    clauses = clauses_of(rulings, subjects, by_tier=page.tiers is not None)
    for index, (verdict, facts) in enumerate(verdicts(plan, page, directory)):
        anchor = page.anchors[index]
        if anchor is not None and anchor >= plan.now:
            continue  # whose account is erased: taken when its instant has come
        kept = state(plan, page, index, verdict, facts)
        expected = [] if kept == "keep" else ["held"] if verdict.kind is Kind.HELD else [kept]
        assert kinds_of(clauses, page, index) == expected, (verdict, page.accounts[index], anchor)


@PROFILE
@given(**RULES)
def test_what_was_asked_for_before_is_asked_for_no_more_and_nothing_else_is_left_out(**rules):
    _, page, _, rulings, subjects = prepared(rules)
    by_tier = page.tiers is not None
    before = clauses_of(rulings, subjects, by_tier=by_tier)
    middle = NOW - timedelta(days=400)
    asked = [
        replace(each, range=Range(each.range.since, min(each.range.until, middle), each.range.undated))
        for each in before
        if each.kind == "due" and (each.range.since is None or each.range.since < middle)
    ]
    kept = [Clause.of(each.document(1)) for each in asked]
    after = clauses_of(rulings, subjects, by_tier=by_tier, requested=kept)
    for index in range(len(page.keys)):
        was, now = kinds_of(before, page, index), kinds_of(after, page, index)
        covered = bool(kinds_of(asked, page, index))
        assert now == (["requested"] if was == ["due"] and covered else was)


def test_an_account_that_no_directory_was_asked_about_is_kept():
    document = {"tiers": ["free", "pro"], "classes": {"logs": {"ttl": {"free": "P1D", "pro": "P1D"}}}}
    rules = {"scopes": [], "seed": 1, "source": "directory", "dated": True, "has_directory": True}
    plan, _, _, _, subjects = prepared({"document": document, **rules})
    silent = Rulings(replace(plan, surveyed=Surveyed()))
    found = clauses_of(silent, [each for each in subjects if each is not None], by_tier=False)
    assert {each.kind for each in found} <= {"unresolved"}
