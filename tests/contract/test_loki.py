"""The contract, kept by streams in Loki (a fake of it), and what is its own: deletions that take days."""

import asyncio
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from retentiond.control import requests
from retentiond.errors import ConfigurationError
from retentiond.stores.deferred.clauses import Clause, Range
from retentiond.stores.loki import queries
from retentiond.stores.loki.backend import LokiBackend
from retentiond.stores.loki.queries import Labels
from tests.contract.behaviours import Contract
from tests.contract.test_postbox import DeferredSubject, activated, place, stages
from tests.services.loki import Loki, matches
from tests.services.sweeping import ACCOUNTS

DAY = 86_400


class LokiSubject(DeferredSubject):
    """Lines of streams that have their account as a label."""

    def __init__(self, rig, server):
        super().__init__(rig)
        self.server = server

    async def add(self, key, *, account="1", days=400):
        self.server.put(key, datetime.now(UTC) - timedelta(days=days), **({"account": account} if account else {}))

    async def left(self):
        return set(self.server.lines)

    @contextmanager
    def dying(self, at):
        whole = LokiBackend.submit

        async def submit(*args):
            if at == "after":
                await whole(*args)
            raise asyncio.CancelledError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LokiBackend, "submit", submit)
            yield

    async def let_pass(self, seconds):
        """For the server, and for what is remembered of deletions."""
        self.server.let_pass(seconds)
        async with self.rig.control_connection() as control:
            await control.execute(
                "UPDATE retentiond.requests SET requested_at = requested_at - make_interval(secs => $1),"
                " moved_at = moved_at - make_interval(secs => $1)",
                float(seconds),
            )


@pytest.fixture
async def subject(apart):
    await apart.db.execute(ACCOUNTS)
    async with Loki().running() as server:
        apart.targets["logs"] = {
            "store": "loki",
            "url": server.url,
            "tenant": "acme",
            "selector": '{app="api"}',
            "account": "account",
            "class": "operational_logs",
            "pace": {"duty": 1.0, "max_batch": 10, "batch_seconds": 5.0},
        }
        yield LokiSubject(apart, server)


class TestLoki(Contract):
    """All that every store does, at a server that carries out at once what it is asked for, and shows it at once."""

    @pytest.fixture
    def subject(self, subject, monkeypatch):
        subject.server.instant = True
        monkeypatch.setattr(LokiBackend, "follow_seconds", 2.0)
        monkeypatch.setattr(LokiBackend, "settle_seconds", 0.0)
        return subject


async def test_a_deletion_goes_from_requested_to_hidden_to_erased_to_verified_over_days(subject):
    await subject.records()
    first = await subject.rig.only()
    assert (first.outcome, first.changed, first.requested) == ("drained", 0, 5)
    assert await stages(subject) == ["requested", "hidden"]
    assert len(await subject.left()) == 8
    await subject.let_pass(DAY / 2)
    subject.server.compact()
    await subject.rig.only()
    assert await stages(subject) == ["requested", "hidden"]
    async with subject.rig.app() as app, app.database.transaction(read_only=True) as tx:
        (number, seconds) = (await requests.ages(tx))["logs"]
    assert (number, seconds > DAY / 2 - 60) == (1, True)
    await subject.let_pass(DAY)
    subject.server.compact()
    await subject.rig.only()
    assert await stages(subject) == ["requested", "hidden", "erased"]
    await subject.rig.require_told(logs=0)
    await subject.let_pass(2 * 3600)
    await subject.rig.only()
    assert await stages(subject) == ["requested", "hidden", "erased", "verified"]
    assert await subject.left() == {1001, 1002, 1003}
    await subject.rig.require_told(logs=5)
    assert subject.server.tenants == {"acme"}


async def test_one_that_is_called_processed_and_did_nothing_is_found_out(subject):
    """Its range is older than what the tenant retains, and the data is there all the same."""
    await subject.records()
    subject.server.retention_ms = 60 * DAY * 1000
    await subject.rig.only()
    await subject.let_pass(2 * DAY)
    subject.server.compact()
    assert [each.status for each in subject.server.requests.values()] == ["processed"]
    await subject.rig.only()
    assert "failed" in await stages(subject)
    await subject.rig.require_told(logs=0)
    assert len(await subject.left()) == 8


async def test_nothing_is_asked_for_twice_while_it_is_hidden_and_what_comes_late_is(subject):
    await subject.records()
    await subject.rig.only()
    await subject.rig.only()
    assert len(subject.server.requests) == 1
    await subject.add(6, account="2", days=500)
    await subject.rig.only()
    assert len(subject.server.requests) == 2


async def test_a_hold_cancels_what_is_pending_before_it_is_active_and_the_data_comes_back(subject):
    await subject.records()
    await subject.rig.only()
    await place(subject)
    assert (await activated(subject))[0] == 1
    assert subject.server.requests == {}
    await subject.let_pass(700)
    outcome = await subject.rig.only()
    assert (outcome.changed, outcome.held) == (0, 5)
    assert await stages(subject) == ["requested", "hidden", "cancelled"]
    await subject.rig.require_told(logs=0)


async def test_a_hold_that_comes_after_the_cancel_period_waits_until_it_is_certain_what_went(subject):
    """DELETE takes it from the list while a compaction may be at it."""
    await subject.records()
    await subject.rig.only()
    await subject.let_pass(DAY + 600)
    await place(subject)
    count, why, detail = await activated(subject)
    assert (count, why) == (0, ["native"])
    assert "not certain yet" in detail
    assert subject.server.requests == {}
    await subject.let_pass(7 * 3600)
    await subject.rig.only()
    assert (await activated(subject))[0] == 1
    assert (await stages(subject))[-1] == "cancelled"


async def test_a_second_hold_waits_too_for_what_was_cancelled_late_for_a_first_one(subject):
    await subject.records()
    await subject.rig.only()
    await subject.let_pass(DAY + 600)
    await place(subject)
    assert (await activated(subject))[0] == 0
    await place(subject)
    await place(subject, accounts=("1",), targets=("logs",))
    assert (await activated(subject))[0] == 0
    await place(subject, accounts=("77",))
    assert (await activated(subject))[0] == 1, "it covers nothing of that"
    await subject.let_pass(7 * 3600)
    await subject.rig.only()
    assert (await activated(subject))[0] == 3


async def test_a_hold_waits_for_one_that_somebody_else_cancelled_late(subject):
    await subject.records()
    await subject.rig.only()
    await subject.let_pass(DAY + 600)
    subject.server.requests.clear()
    await place(subject)
    assert (await activated(subject))[0] == 0
    await subject.let_pass(7 * 3600)
    await subject.rig.only()
    assert (await activated(subject))[0] == 1


async def test_one_whose_worker_died_is_as_old_as_its_permit_when_it_is_taken_over(subject):
    await subject.records()
    with subject.dying("after"), pytest.raises(asyncio.CancelledError):
        await subject.rig.only()
    await subject.let_time_pass(DAY + 600)
    await subject.let_pass(DAY + 600)
    await subject.rig.only()
    await place(subject)
    assert (await activated(subject))[0] == 0
    assert subject.server.requests == {}


async def test_a_hold_waits_for_what_a_dead_worker_asked_for_and_nobody_has_written_down_yet(subject):
    """The permit is open, the hold cancels what the server lists, and there is no row that could say so."""
    await subject.records()
    with subject.dying("after"), pytest.raises(asyncio.CancelledError):
        await subject.rig.only()
    await subject.let_time_pass(DAY + 600)
    await subject.let_pass(DAY + 600)
    await place(subject)
    for _ in range(2):
        assert (await activated(subject))[0] == 0
    assert subject.server.requests == {}
    await subject.rig.only()
    assert (await activated(subject))[0] == 0, "it is followed as one that may have been too late"
    await subject.let_pass(7 * 3600)
    await subject.rig.only()
    assert (await activated(subject))[0] == 1


async def test_a_hold_cancels_what_was_asked_for_when_the_target_knew_no_accounts(subject):
    await subject.records()
    label = subject.rig.targets["logs"].pop("account")
    subject.rig.targets["logs"]["tier"] = "free"
    await subject.rig.only()
    assert len(subject.server.requests) == 1
    del subject.rig.targets["logs"]["tier"]
    subject.rig.targets["logs"]["account"] = label
    await subject.rig.approve_policy()
    await place(subject)
    assert (await activated(subject))[0] == 1
    assert subject.server.requests == {}


async def test_a_hold_cancels_what_was_asked_for_when_ids_were_of_another_type(subject):
    await subject.records()
    await subject.rig.only()
    await subject.rig.db.execute("ALTER TABLE accounts ALTER id TYPE text USING 'a' || id")
    await place(subject, accounts=("a1",))
    assert (await activated(subject))[0] == 1
    assert subject.server.requests == {}


async def test_what_was_asked_for_by_another_label_is_never_called_verified(subject):
    await subject.records()
    await subject.rig.only()
    subject.rig.targets["logs"]["account"] = "customer"
    await subject.rig.approve_policy()
    subject.server.retention_ms = 60 * DAY * 1000
    await subject.let_pass(2 * DAY)
    subject.server.compact()
    await subject.rig.only()
    assert "failed" in await stages(subject)
    assert not {"erased", "verified"} & set(await stages(subject))


async def test_one_that_is_processed_is_past_cancelling_and_the_hold_is_active_over_what_is_left(subject):
    await subject.records()
    await subject.rig.only()
    await subject.let_pass(2 * DAY)
    subject.server.compact()
    await place(subject)
    assert (await activated(subject))[0] == 1
    await subject.rig.only()
    await subject.let_pass(2 * DAY)
    await subject.rig.only()
    await subject.rig.require_told(logs=5)


async def test_accounts_on_hold_are_left_out_and_ranges_too(subject):
    await subject.records()
    await subject.add(6, account="2", days=500)
    await subject.add(7, account="2", days=700)
    now = datetime.now(UTC)
    async with subject.rig.app() as app:
        await subject.rig.hold(app, accounts=("1",))
        await subject.rig.hold(app, accounts=("2",), until=now - timedelta(days=600))
    outcome = await subject.rig.only()
    assert (outcome.requested, outcome.held) == (1, 6)
    (asked,) = subject.server.requests.values()
    assert 'account="2"' in asked.query
    assert asked.start >= int((now - timedelta(days=600)).timestamp() * 1000)


async def test_deletions_of_others_on_the_same_streams_are_cancelled_and_on_other_streams_not(subject):
    await subject.records()
    await subject.rig.only()
    (mine,) = subject.server.requests.values()
    mine.query = '{app="web"}'
    subject.server.requests = {"x": mine}
    mine.id = "x"
    await place(subject)
    assert (await activated(subject))[0] == 1
    assert list(subject.server.requests) == ["x"]
    mine.query = '{app=~".+"}'
    await place(subject, accounts=("2",))
    assert (await activated(subject))[0] == 1
    assert subject.server.requests == {}


@pytest.mark.parametrize("status", [0, -1, 500])
async def test_a_deletion_without_an_answer_is_waited_out_and_looked_for_in_the_list(subject, status):
    await subject.records()
    subject.server.fail("/delete?", status, method="POST")
    assert (await subject.rig.only()).outcome == "failed"
    await subject.let_time_pass()
    outcome = await subject.rig.only()
    assert len(subject.server.requests) == 1, "it is there, once"
    assert (outcome.outcome, outcome.requested + (0 if status else 5)) == ("drained", 5)
    await subject.rig.require_settled()


@pytest.mark.parametrize("status", [400, 403, 404])
async def test_one_that_was_taken_on_and_can_not_be_found_at_once_is_not_called_refused(subject, status):
    await subject.records()
    whole = LokiBackend.find

    async def find(backend, permit, what):
        subject.server.fail("/delete", status, method="GET", times=1)
        return await whole(backend, permit, what)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LokiBackend, "find", find)
        assert (await subject.rig.only()).outcome == "failed"
    async with subject.rig.control_connection() as control:
        assert await control.fetchval("SELECT count(*) FROM retentiond.permits WHERE ended_at IS NULL") == 1
    await subject.let_time_pass()
    await subject.rig.only()
    assert len(subject.server.requests) == 1
    assert await stages(subject) == ["requested", "hidden"]


async def test_a_term_that_is_longer_than_what_is_counted_makes_it_blind(subject):
    await subject.records()
    subject.rig.targets["logs"]["reach_days"] = 60
    outcome = await subject.rig.only()
    assert (outcome.outcome, subject.server.requests) == ("blind", {})
    assert "reach_days" in outcome.error["remedy"]


async def test_a_tenant_without_deletions_makes_it_blind(subject):
    await subject.records()
    subject.server.mode = "disabled"
    outcome = await subject.rig.only()
    assert outcome.outcome == "blind"
    assert "deletion_mode" in outcome.error["remedy"]


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_is_busy_for_a_moment_is_asked_again(subject, status):
    await subject.records()
    subject.server.fail("/query?", status, times=2)
    assert (await subject.rig.only()).requested == 5


async def test_streams_by_tier_alone(subject):
    """No label names an account: every hold on an account holds all of it."""
    del subject.rig.targets["logs"]["account"]
    subject.rig.targets["logs"]["tier_label"] = "plan"
    at = datetime.now(UTC) - timedelta(days=100)
    subject.server.put(1, at, plan="free")
    subject.server.put(2, at, plan="pro")
    subject.server.put(3, at)
    await subject.rig.only()
    (asked,) = subject.server.requests.values()
    assert 'plan="free"' in asked.query


async def test_check_tells_of_a_server_that_only_hides_and_of_another_cancel_period(subject):
    await subject.records()
    subject.server.config = {
        "compactor": {"retention_enabled": False, "delete_request_cancel_period": "10m"},
        "limits_config": {"deletion_mode": "filter-only", "retention_period": "30d"},
    }
    async with subject.rig.app() as app:
        store = app.engine.stores["logs"]
        assert sorted(each.severity for each in await store.check()) == ["error", "error", "warning"]
        assert await store.native_rules() == []
        subject.server.config["compactor"]["retention_enabled"] = True
        (rule,) = await store.native_rules()
    assert (rule.name, rule.days) == ("retention_period", 30)


async def test_a_stream_is_explained(subject):
    await subject.records()
    async with subject.rig.app() as app:
        verdict = await app.engine.explain(app.spec.target("logs"), '{app="api", account="1"}')
    assert (str(verdict.kind), verdict.tier) == ("erase", "free")


@pytest.mark.parametrize("selector", ["", "{}", "api", '{app=~".+"}', '{app="api"} |= "x"'])
async def test_a_selector_that_is_none_is_refused(subject, selector):
    subject.rig.targets["logs"]["selector"] = selector
    with pytest.raises(ConfigurationError, match=r"targets\.logs\.selector"):
        await subject.rig.only()


class TestQueries:
    """What clauses are in Loki's terms."""

    LABELS = Labels('{app="api"}', "account", None)

    def clause(self, *accounts, since=None, until=None):
        return Clause("due", "free", Range(since, until), accounts, accounts)

    def test_many_accounts_go_in_parts_that_fit_into_an_address_and_none_is_lost(self):
        accounts = tuple(f"account-{n}.x|y" for n in range(1000))
        found = list(queries.parts(self.LABELS, self.clause(*accounts)))
        assert sum((part.accounts for part in found), ()) == accounts == sum((part.ids for part in found), ())
        assert max(len(queries.selector_of(self.LABELS, part, part.accounts)) for part in found) < 5_000

    @pytest.mark.parametrize("name", ["a.b", "a|b", "x+", "(", "\\d", 'q"q', "$^", "ü{2}"])
    def test_an_account_is_matched_to_the_letter(self, name):
        selector = queries.selector_of(self.LABELS, self.clause(name, None, "other"), (name, None, "other"))
        assert matches(selector, {"app": "api", "account": name})
        assert matches(selector, {"app": "api"})
        assert not matches(selector, {"app": "api", "account": f"{name}x"})
        assert not matches(selector, {"app": "web", "account": name})

    def test_the_last_millisecond_before_the_bound_is_the_end_and_less_goes_rather_than_more(self):
        now = datetime(2026, 1, 1, tzinfo=UTC)
        for micros, last in ((0, -1000), (1, 0), (999, 0), (1000, 0)):
            span = Range(now + timedelta(microseconds=micros), now + timedelta(days=1, microseconds=micros))
            first, end = queries.bounds(span, now, now + timedelta(days=9))
            assert first == now + timedelta(microseconds=1000 if micros else 0)
            assert end == now + timedelta(days=1, microseconds=last)
        assert queries.bounds(Range(now, now), now, now) is None
