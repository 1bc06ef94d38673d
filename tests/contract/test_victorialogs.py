"""The contract, kept by lines in VictoriaLogs (a fake of it), and what is its own: tasks that vanish, no fence."""

import asyncio
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from retentiond.control import holds
from retentiond.stores.victorialogs.backend import VictoriaLogsBackend
from tests.contract.behaviours import Contract, killed
from tests.contract.test_postbox import DeferredSubject, activated, place, stages
from tests.services.sweeping import ACCOUNTS
from tests.services.victorialogs import VictoriaLogs


class VictoriaLogsSubject(DeferredSubject):
    """Lines of one stream."""

    def __init__(self, rig, server):
        super().__init__(rig)
        self.server = server

    async def add(self, key, *, account="1", days=400):
        at = datetime.now(UTC) - timedelta(days=days)
        self.server.put(key, at, **({"account": account} if account else {}))

    async def left(self):
        return {key for key in self.server.lines if key > 0}

    @contextmanager
    def dying(self, at):
        whole = VictoriaLogsBackend.submit

        async def submit(*args):
            if at == "after":
                await whole(*args)
            raise asyncio.CancelledError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(VictoriaLogsBackend, "submit", submit)
            yield


@pytest.fixture
async def subject(apart):
    await apart.db.execute(ACCOUNTS)
    async with VictoriaLogs().running() as server:
        apart.targets["logs"] = {
            "store": "victorialogs",
            "url": server.url,
            "filter": '{app="api"}',
            "account": "account",
            "class": "operational_logs",
            "pace": {"duty": 1.0, "max_batch": 10, "batch_seconds": 5.0},
        }
        yield VictoriaLogsSubject(apart, server)


class TestVictoriaLogs(Contract):
    """All that every store does."""


async def test_the_bound_of_time_and_the_accounts_stand_in_the_filter_and_it_says_whose_it_is(subject):
    await subject.records()
    await subject.rig.only()
    (said,) = subject.server.submitted
    assert said.startswith('({app="api"}) ((_time:<')
    assert '"account":in("1")' in said
    assert "!retentiond_deletion:=" in said
    assert await subject.left() == {1001, 1002, 1003}
    assert subject.server.husks == 5, "empty lines are left, and are not counted"


async def test_a_task_that_vanished_without_having_done_anything_is_found_out(subject):
    await subject.records()
    subject.server.busy = True
    assert (await subject.rig.only()).requested == 5
    subject.server.tasks.clear()
    subject.server.busy = False
    outcome = await subject.rig.only()
    assert outcome.changed == 5
    assert await stages(subject) == ["requested", "failed", "requested", "erased", "verified"]


async def test_a_hold_stops_the_task(subject):
    await subject.records()
    subject.server.busy = True
    await subject.rig.only()
    await place(subject)
    assert (await activated(subject))[0] == 1
    assert subject.server.tasks == {}
    assert (await subject.rig.only()).held == 5
    assert await stages(subject) == ["requested", "cancelled"]


async def test_a_hold_stops_deletions_of_others_too_and_those_of_other_tenants_not(subject):
    await subject.records()
    subject.server.busy = True
    await subject.rig.only()
    (task,) = subject.server.tasks.values()
    task.filter = '({app="api"}) ((_time:<2030-01-01T00:00:00Z))'
    await place(subject, accounts=("2",))
    assert (await activated(subject))[0] == 1
    assert list(subject.server.tasks) == [task.id], "by its id it is known, and can't reach that account"
    task.id, subject.server.tasks = "7", {"7": task}
    await place(subject, accounts=("3",))
    assert (await activated(subject))[0] == 1
    assert subject.server.tasks == {}
    task.tenant, subject.server.tasks = (1, 0), {"7": task}
    await place(subject, accounts=("1",))
    assert (await activated(subject))[0] == 1
    assert list(subject.server.tasks) == ["7"]


async def test_a_deletion_that_is_sent_late_is_stopped_when_the_server_is_next_asked(subject):
    """The worker is stopped before it sends until its permit is waited out: there is no fence."""
    await subject.records()
    subject.server.busy = True
    whole, seen = VictoriaLogsBackend.submit, []

    async def submit(*args):
        await place(subject)
        seen.append((await activated(subject))[:2])
        await subject.let_time_pass()
        seen.append((await activated(subject))[0])
        await whole(*args)
        raise asyncio.CancelledError

    with pytest.MonkeyPatch.context() as patch, killed():
        patch.setattr(VictoriaLogsBackend, "submit", submit)
        await subject.rig.only()
    assert seen == [(0, ["batch"]), 1]
    assert len(subject.server.tasks) == 1
    async with subject.rig.app() as app:
        async with app.database.transaction(read_only=True) as tx:
            known = await holds.list_all(tx)
        assert await app.natives()["logs"].settle(known) == {}
    assert subject.server.tasks == {}
    assert len(await subject.left()) == 8


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_is_busy_for_a_moment_is_asked_again(subject, status):
    await subject.records()
    subject.server.fail("/select/logsql/query", status, times=2)
    assert (await subject.rig.only()).changed == 5


@pytest.mark.parametrize("status", [0, -1, 502])
async def test_a_deletion_without_an_answer_is_waited_out_and_counted_once(subject, status):
    await subject.records()
    subject.server.fail("/delete/run_task", status)
    assert (await subject.rig.only()).outcome == "failed"
    await subject.let_time_pass()
    await subject.rig.only()
    assert await subject.left() == {1001, 1002, 1003}
    await subject.rig.require_told(logs=5)
    await subject.rig.require_settled()


async def test_where_deletions_are_switched_off_it_is_blind_and_says_how_to_switch_them_on(subject):
    await subject.records()
    subject.server.enabled = False
    outcome = await subject.rig.only()
    assert outcome.outcome == "blind"
    assert "-delete.enable" in outcome.error["remedy"]


async def test_lines_of_nobody_and_accounts_with_odd_names(subject):
    await subject.add(1, account=None)
    await subject.add(2, account='o"dd \\ näme')
    outcome = await subject.rig.only()
    assert (await subject.left(), outcome.by_tier) == ({2}, {"none": 1})


async def test_the_servers_own_retention_is_a_rule(subject):
    for said, days in (("30d", 30), ("2w", 14), ("1", 31), ("100y", 36500)):
        subject.server.retention = said
        async with subject.rig.app() as app:
            (rule,) = await app.engine.stores["logs"].native_rules()
        assert rule.days == days


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        ('{app="a"}', '{app="b"}', True),
        ('{app="a",env="x"}', '{env="y"}', True),
        ('{app="a"}', '{env="x"}', False),
        ('{app="a"}', "level:=info", False),
        ('{app="a"}', '{app="b"} or {app="a"}', False),
        ('{app="a"}', '{app="b" or app="a"}', False),
    ],
)
def test_two_targets_of_a_tenant_are_one_over_the_other_unless_their_labels_tell_them_apart(one, other, apart):
    from retentiond.stores.victorialogs.config import VictoriaLogsTarget

    first, second = (
        VictoriaLogsTarget.model_validate(
            {"store": "victorialogs", "url": "http://logs:9428", "class": "build_logs", "filter": each}
        )
        for each in (one, other)
    )
    assert (first.overlaps(second), second.overlaps(first)) == (not apart, not apart)


async def test_a_stream_is_explained(subject):
    await subject.records()
    for line in subject.server.lines.values():
        line["_stream_id"] = "0" * 48
    async with subject.rig.app() as app:
        verdict = await app.engine.explain(app.spec.target("logs"), "0" * 48)
    assert (str(verdict.kind), verdict.tier) == ("erase", "free")


@pytest.mark.parametrize(
    "filter", ["*", "", "app:x | delete y", 'app:"x', "(app:x", '{app="a"}) or ({app="b"}', "x]) or ([y", "{a=b} } {"]
)
async def test_a_filter_that_is_none_is_refused(subject, filter):
    from retentiond.errors import ConfigurationError

    subject.rig.targets["logs"]["filter"] = filter
    with pytest.raises(ConfigurationError, match=r"targets\.logs\.filter"):
        await subject.rig.only()
