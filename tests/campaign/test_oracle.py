"""The oracle is shown a small history in which all is well, and then each thing that may be wrong in it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.campaign.history import Answer, History, Pause, Permit
from tests.campaign.oracle import judge
from tests.campaign.rules import TARGETS, Hold, Record, is_due
from tests.campaign.stream import Change, Transaction

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
PLAIN, MASKED = TARGETS["plain"], TARGETS["masked"]


def at(seconds):
    return NOW + timedelta(seconds=seconds)


def row(id_, days, account="7", **more):
    return {"id": str(id_), "account_id": account, "created_at": (NOW - timedelta(days=days)).isoformat(), **more}


def account_version(version, tier, seconds, deleted_at=None, account="7"):
    new = {"id": account, "tier": tier, "deleted_at": deleted_at, "version": str(version)}
    return Transaction("app", 100 + version, 10 + version, at(seconds), "account", [Change("accounts", None, new)])


def inserted(*rows, table="plain", database="app"):
    return Transaction(database, 200, 50, at(-50), "insert", [Change(table, None, each) for each in rows])


def taken(xid, seconds, *rows, table="plain", database="app"):
    return Transaction(database, xid, 1000 + xid, at(seconds), None, [Change(table, each, None) for each in rows])


def outcome(permit, erased, **more):
    return {"kind": "outcome", "permit": permit, "counts": {"erased": erased, "anonymised": 0}} | more


def doubt(permit, found):
    return {"kind": "in_doubt", "permit": permit, "found": found}


@pytest.fixture
def history():
    """A free account; record 1 of 40 days went under permit 5, record 2 of 10 days is there."""
    old, young = row(1, 40), row(2, 10)
    return History(
        transactions=[account_version(1, "free", -100), inserted(old, young), taken(900, 10, old)],
        permits=[Permit(5, "plain", at(9), 900, "committed")],
        ledger=[outcome(5, 1)],
        confirmed={("7", 1): at(-99)},
        judged_at=at(60),
        left={"plain": [PLAIN.record(young)]},
    )


def kinds(history):
    return {violation.kind for violation in judge(history)}


def hold(effective, erasable=None, state="active", **scope):
    return Hold("h", scope or {"accounts": ["7"]}, state, at(effective), None if erasable is None else at(erasable))


def test_a_history_in_which_all_is_well_is_called_so(history):
    assert judge(history) == []


# --- Holds ---


def test_a_record_that_went_after_a_hold_on_it_took_effect(history):
    history.holds = [hold(5)]
    assert kinds(history) == {"held"}


def test_a_record_that_went_before_the_hold_took_effect_or_after_its_release_is_no_violation(history):
    history.holds = [hold(11), hold(-90, 9, state="released")]
    assert judge(history) == []


def test_a_record_that_went_in_the_grace_of_a_release(history):
    history.holds = [hold(-90, 11, state="released")]
    assert kinds(history) == {"held"}


@pytest.mark.parametrize(
    "scope",
    [
        {"accounts": ["8"]},
        {"accounts": ["7"], "targets": ["watched"]},
        {"classes": ["mail"]},
        {"records": {"plain": ["2"], "watched": ["1"]}},
        {"since": (NOW - timedelta(days=39)).isoformat()},
        {"until": (NOW - timedelta(days=40)).isoformat()},
    ],
)
def test_a_hold_on_something_else_is_no_violation(history, scope):
    history.holds = [hold(5, **scope)]
    assert judge(history) == []


@pytest.mark.parametrize(
    "scope",
    [
        {"accounts": ["7"], "targets": ["plain"], "classes": ["logs"]},
        {"records": {"plain": ["1"]}},
        {"since": (NOW - timedelta(days=40)).isoformat(), "until": (NOW - timedelta(days=39)).isoformat()},
    ],
)
def test_each_dimension_of_a_scope_holds(history, scope):
    history.holds = [hold(5, **scope)]
    assert kinds(history) == {"held"}


def test_a_record_without_an_anchor_is_in_every_stretch_of_time():
    record = Record(PLAIN, "1", "7", None)
    assert hold(0, since=NOW.isoformat(), until=NOW.isoformat()).covers(record)


def test_a_hold_that_was_answered_for_and_is_not_there(history):
    history.answers = [Answer("h", at(20))]
    assert kinds(history) == {"hold lost"}
    history.holds = [hold(21)]
    assert kinds(history) == {"hold lost"}, "and with another instant"
    history.holds = [hold(20)]
    assert judge(history) == []


def test_a_hold_that_stays_pending(history):
    history.holds = [Hold("h", {"accounts": ["8"]}, "pending", None)]
    assert kinds(history) == {"hold pending"}


# --- Terms ---


def test_a_record_that_went_before_its_time():
    young = row(1, 29)
    history = History(
        transactions=[account_version(1, "free", -100), inserted(young), taken(900, 10, young)],
        permits=[Permit(5, "plain", at(9), 900, "committed")],
        ledger=[outcome(5, 1)],
        confirmed={("7", 1): at(-99)},
    )
    assert kinds(history) == {"not due"}


def test_a_record_whose_account_was_surely_upgraded_before_the_permit(history):
    history.transactions.insert(2, account_version(2, "pro", 5))
    history.confirmed["7", 2] = at(8)
    assert kinds(history) == {"not due"}


def test_an_upgrade_that_was_not_certain_before_the_permit_is_no_violation(history):
    history.transactions.insert(2, account_version(2, "pro", 8))
    history.confirmed["7", 2] = at(9.5)
    assert judge(history) == []
    del history.confirmed["7", 2]
    assert judge(history) == []


def test_an_upgrade_that_was_taken_back_before_the_batch_is_no_violation(history):
    history.transactions[2:2] = [account_version(2, "pro", 5), account_version(3, "free", 9.5)]
    history.confirmed["7", 2] = at(6)
    assert judge(history) == []


def test_a_downgrade_has_a_grace_where_there_is_one(history):
    history.transactions = [account_version(1, "pro", -100), account_version(2, "free", -80), *history.transactions[1:]]
    history.confirmed["7", 2] = at(-79)
    assert judge(history) == []
    history.grace, history.known = True, {"7"}
    assert kinds(history) == {"not due"}


def test_an_account_that_was_deleted_a_grace_ago_takes_all_of_its_records_with_it():
    record = Record(PLAIN, "1", "7", NOW)
    from tests.campaign.rules import Account

    assert is_due(record, Account("enterprise", NOW - timedelta(days=30, seconds=1)), NOW)
    assert not is_due(record, Account("enterprise", NOW - timedelta(days=30)), NOW)
    assert not is_due(record, Account("enterprise"), NOW)


def test_nobodys_records_are_of_the_free_tier_and_unknown_accounts_have_the_longest_term():
    nobody, unknown = (Record(PLAIN, "1", account, NOW - timedelta(days=364)) for account in (None, "99"))
    assert is_due(nobody, None, NOW)
    assert not is_due(unknown, None, NOW)
    assert is_due(replace(unknown, anchor=NOW - timedelta(days=366)), None, NOW)
    assert not is_due(Record(TARGETS["pairs"], "1", "99", NOW - timedelta(days=3660)), None, NOW)
    assert not is_due(replace(nobody, anchor=None), None, NOW)


def test_a_record_that_is_due_at_the_end_and_still_there(history):
    history.transactions.insert(2, Transaction("app", 300, 60, at(-40), "insert", [Change("plain", None, row(3, 31))]))
    history.left["plain"] = [*history.left["plain"], PLAIN.record(row(3, 31))]
    assert kinds(history) == {"left"}
    history.holds = [hold(5, records={"plain": ["3"]})]
    assert judge(history) == []


# --- What was done, and under what ---


def test_records_that_went_without_a_permit_or_under_that_of_another_target(history):
    history.permits = [Permit(5, "watched", at(9), 900, "committed")]
    assert kinds(history) == {"no permit"}
    history.permits = []
    assert "no permit" in kinds(history)


def test_what_the_application_deletes_is_its_own_affair(history):
    young = row(4, 1)
    history.transactions += [inserted(young), replace(taken(901, 20, young), own="delete")]
    assert judge(history) == []


def test_a_permit_issued_in_a_pause(history):
    history.pauses = [Pause(at(8), at(10))]
    assert kinds(history) == {"paused"}


def masked(old, new):
    return History(
        transactions=[
            account_version(1, "free", -100),
            inserted(old, table="masked"),
            Transaction("app", 900, 1900, at(10), None, [Change("masked", old, new)]),
        ],
        permits=[Permit(5, "masked", at(9), 900, "committed")],
        ledger=[outcome(5, 0, counts={"erased": 0, "anonymised": 1})],
        confirmed={("7", 1): at(-99)},
    )


def test_anonymising_changes_what_tells_of_a_person_and_nothing_else():
    old = row(1, 70, ip="10.0.0.1", note="n")
    new = old | {"account_id": None, "ip": None}
    assert judge(masked(old, new)) == []
    assert kinds(masked(old, new | {"note": None})) == {"misdone"}
    assert kinds(masked(old, old | {"ip": None})) == {"misdone"}
    assert kinds(masked(old, None)) == {"misdone"}
    assert "misdone" in kinds(masked(new, new)), "and each record once"


# --- The ledger ---


@pytest.mark.parametrize(
    ("ledger", "kind"),
    [
        ([], "miscounted"),
        ([outcome(5, 2)], "miscounted"),
        ([outcome(5, 0)], "miscounted"),
        ([outcome(5, 1), outcome(6, 1)], "miscounted"),
        ([outcome(5, 1), outcome(5, 1)], "counted twice"),
        ([doubt(5, "nothing")], "miscounted"),
        ([doubt(5, "nothing"), outcome(5, 1)], "false doubt"),
        ([doubt(5, "committed"), doubt(5, "committed"), outcome(5, 1)], "counted twice"),
        ([outcome(5, 1), doubt(6, "committed")], "false doubt"),
    ],
)
def test_a_ledger_that_tells_something_else_than_what_went(history, ledger, kind):
    history.ledger = ledger
    assert kinds(history) == {kind}


def test_a_doubt_for_good_needs_a_crash_of_the_server_after_the_permit(history):
    history.ledger = [doubt(5, "unknown")]
    history.crashes = [("app", at(8)), ("far", at(10))]
    assert kinds(history) == {"doubt without a reason"}
    history.crashes = [("app", at(10))]
    assert judge(history) == []


@pytest.mark.parametrize("ledger", [[doubt(5, "committed"), outcome(5, 1)], [outcome(5, 1), doubt(6, "nothing")]])
def test_a_ledger_that_tells_it_honestly(history, ledger):
    history.ledger = ledger
    assert judge(history) == []


def test_a_permit_that_two_transactions_used(history):
    history.transactions[2:] = [taken(900, 10, row(1, 40)), taken(900, 11)]
    history.transactions[-1].changes.append(Change("plain", row(8, 40), None))
    history.transactions.insert(2, inserted(row(8, 40)))
    history.ledger = [outcome(5, 2)]
    assert kinds(history) == {"permit used twice"}


def test_a_number_that_a_server_gives_again_after_a_crash_is_the_later_permits(history):
    history.permits.insert(0, Permit(4, "plain", at(1), 900, "aborted"))
    history.ledger.append(doubt(4, "nothing"))
    assert judge(history) == []


def test_permits_without_an_outcome_at_the_end(history):
    history.open_permits = 1
    assert kinds(history) == {"unsettled"}


# --- The oracle's own eye ---


def test_a_record_that_is_gone_and_nobody_saw_it_go(history):
    history.left["plain"] = []
    assert kinds(history) == {"unaccounted"}


def test_a_trigger_that_saw_something_else(history):
    history.observed = ["1"]
    assert kinds(history) == {"unaccounted"}


def test_what_a_campaign_itself_found_wrong_is_told(history):
    history.faults = ["a worker ended by itself"]
    assert kinds(history) == {"fault"}


def test_of_many_violations_of_a_kind_some_are_shown_and_the_rest_counted(history):
    history.faults = ["f"] * 30
    found = judge(history)
    assert len(found) == 21
    assert "10 more" in found[-1].evidence
