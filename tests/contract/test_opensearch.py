"""The contract, kept by documents in OpenSearch (a fake of it), and what is its own: conflicts, indices, the fence."""

import asyncio
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from retentiond.control import requests
from retentiond.errors import NotFound
from retentiond.stores.opensearch.server import Server
from tests.contract.behaviours import Contract
from tests.contract.test_postbox import DeferredSubject, activated, place, stages
from tests.services.opensearch import Index, OpenSearch, Task
from tests.services.sweeping import ACCOUNTS


class OpenSearchSubject(DeferredSubject):
    """Documents of one index, whose ids are the keys."""

    index = "logs-000001"

    def __init__(self, rig, server):
        super().__init__(rig)
        self.server = server

    async def add(self, key, *, account="1", days=400, index=None, **more):
        at = datetime.now(UTC) - timedelta(days=days)
        source = {"@timestamp": at.isoformat(timespec="milliseconds"), **({"account": account} if account else {})}
        self.server.put(index or self.index, str(key), source, **more)

    async def left(self):
        return {int(each) for each in self.server.ids()}

    @contextmanager
    def dying(self, at):
        whole = Server.delete

        async def delete(server, *args, **named):
            if at == "after":
                await whole(server, *args, **named)
            raise asyncio.CancelledError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Server, "delete", delete)
            yield


@pytest.fixture
async def subject(apart):
    await apart.db.execute(ACCOUNTS)
    async with OpenSearch().running() as server:
        server.indices[OpenSearchSubject.index] = Index()
        apart.targets["logs"] = {
            "store": "opensearch",
            "url": server.url,
            "index": "logs-*",
            "account": "account",
            "class": "operational_logs",
            "pace": {"duty": 1.0, "max_batch": 10, "batch_seconds": 5.0},
        }
        yield OpenSearchSubject(apart, server)


class TestOpenSearch(Contract):
    """All that every store does."""


def deletions(subject):
    return [path for method, path in subject.server.calls if method == "POST" and "_delete_by_query" in path]


async def test_each_deletion_has_a_range_and_a_term_and_names_the_fence(subject):
    await subject.records()
    asked = []
    whole = Server.delete

    async def delete(server, fence, mark, query, **named):
        asked.append((fence, mark, query))
        return await whole(server, fence, mark, query, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Server, "delete", delete)
        await subject.rig.only()
    ((fence, mark, query),) = asked
    (clause,) = query["bool"]["should"]
    dated, named = clause["bool"]["filter"]
    assert list(dated["range"]["@timestamp"]) == ["lt", "format"]
    assert named == {"terms": {"account": ["1"]}}
    (path,) = deletions(subject)
    assert f"/logs-*,{fence}/" in path
    assert "ignore_unavailable=false" in path
    assert mark.startswith("retentiond/")
    assert not subject.server.indices["retentiond-fence"].aliases, "it goes with the deletion"
    assert not subject.server.kept, "and so does the task's result"


async def test_a_document_that_changes_meanwhile_is_a_conflict_and_what_is_due_of_it_goes_with_the_next_sweep(subject):
    await subject.records()

    async def touch():
        await subject.add(2, days=399, refresh=False)

    subject.server.before_delete = touch
    first = await subject.rig.only()
    assert (first.changed, first.failed, first.outcome) == (4, 1, "failed")
    assert await stages(subject) == ["requested", "failed"]
    details = [entry["detail"].get("told", "") for entry in await subject.rig.ledger() if entry["kind"] == "request"]
    assert "1 documents were changed meanwhile" in details[-1]
    subject.server.before_delete = None
    assert (await subject.rig.only()).changed == 1
    await subject.rig.require_told(logs=5)


async def test_a_late_deletion_is_refused_by_the_server_once_a_hold_is_active(subject):
    """The worker is stopped right before it sends, for as long as a hold takes to be active."""
    await subject.records()
    whole, seen = Server.delete, []

    async def delete(server, *args, **named):
        if not seen:
            seen.append(None)
            await place(subject)
            seen[0] = await activated(subject)
        return await whole(server, *args, **named)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Server, "delete", delete)
        outcome = await subject.rig.only()
    assert seen[0][0] == 1
    assert len(await subject.left()) == 8
    assert (outcome.changed, outcome.held) == (0, 5)
    await subject.rig.require_settled()


async def test_a_hold_stops_a_task_and_what_it_had_deleted_by_then_is_told(subject):
    await subject.records()
    subject.server.busy = True
    await subject.rig.only()
    (task,) = subject.server.tasks.values()
    del subject.server.indices[subject.index].docs["1"]
    await place(subject)
    assert (await activated(subject))[0] == 1
    assert task.completed
    assert (await subject.rig.only()).held == 4
    assert await stages(subject) == ["requested", "cancelled"]
    await subject.rig.require_told(logs=1)


async def test_a_hold_waits_for_a_task_that_can_not_be_cancelled(subject):
    await subject.records()
    subject.server.busy = subject.server.refuses_cancel = True
    await subject.rig.only()
    await place(subject)
    count, why, detail = await activated(subject)
    assert (count, why) == (0, ["native"])
    assert "failed_node_exception" in detail


async def test_a_task_that_is_lost_with_its_node_is_counted_and_asked_for_anew(subject):
    await subject.records()
    subject.server.busy = True
    assert (await subject.rig.only()).requested == 5
    subject.server.restart()
    subject.server.busy = False
    assert (await subject.rig.only()).changed == 5
    assert await stages(subject) == ["requested", "failed", "requested", "erased", "verified"]


async def test_a_task_that_never_ends_is_waited_for_by_nobody_and_its_age_is_told(subject):
    await subject.records()
    subject.server.busy = True
    for _ in range(2):
        outcome = await subject.rig.only()
        assert (outcome.outcome, outcome.changed, outcome.requested) == ("drained", 0, 5)
        assert outcome.overdue > 0
    async with subject.rig.app() as app, app.database.transaction(read_only=True) as tx:
        ((number, seconds),) = (await requests.ages(tx)).values()
    assert number == 1
    assert seconds > 0


@pytest.mark.parametrize("status", [429, 503])
async def test_a_server_that_is_busy_for_a_moment_is_asked_again(subject, status):
    await subject.records()
    subject.server.fail("_search", status, times=2)
    assert (await subject.rig.only()).changed == 5


async def test_a_server_that_has_too_much_to_do_for_a_deletion_is_left_alone_until_the_next_sweep(subject):
    await subject.records()
    subject.server.fail("_delete_by_query", 429, times=99)
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.error["kind"], len(deletions(subject))) == ("capped", "strained", 1)
    await subject.rig.require_settled()
    assert not subject.server.indices["retentiond-fence"].aliases
    subject.server.faults.clear()
    assert (await subject.rig.only()).changed == 5


@pytest.mark.parametrize("status", [400, 413])
async def test_a_deletion_that_the_server_does_not_take_on_leaves_nothing_open(subject, status):
    await subject.records()
    subject.server.fail(
        "_delete_by_query", status, times=99, body={"error": {"type": "es_rejected_execution_exception"}}
    )
    outcome = await subject.rig.only()
    assert outcome.outcome == "failed"
    assert "es_rejected_execution_exception" in outcome.error["message"]
    await subject.rig.require_settled()
    subject.server.faults.clear()
    assert (await subject.rig.only()).changed == 5


@pytest.mark.parametrize("status", [0, -1, 504])
async def test_a_deletion_without_an_answer_is_looked_for_and_counted_once(subject, status):
    await subject.records()
    subject.server.fail("_delete_by_query", status)
    assert (await subject.rig.only()).outcome == "failed"
    await subject.rig.only()
    assert await subject.left() == {1001, 1002, 1003}
    await subject.rig.require_told(logs=5)
    await subject.rig.require_settled()


async def test_an_index_that_is_read_only_is_said_and_keeps_nobody_else(subject):
    await subject.records()
    await subject.add(6, index="logs-000002")
    subject.server.indices[subject.index].settings["index.blocks.read_only_allow_delete"] = "true"
    subject.server.indices["logs-000002"].seen = dict(subject.server.indices["logs-000002"].docs)
    outcome = await subject.rig.only()
    assert outcome.outcome == "failed"
    told = [entry["detail"].get("told", "") for entry in await subject.rig.ledger() if entry["kind"] == "request"]
    assert "cluster_block_exception" in told[-1]


async def test_a_document_of_several_accounts_or_of_one_that_is_not_indexed_stays(subject):
    await subject.records()
    at = (datetime.now(UTC) - timedelta(days=400)).isoformat(timespec="milliseconds")
    subject.server.put(subject.index, "71", {"@timestamp": at, "account": ["1", "2"]})
    subject.server.put(subject.index, "72", {"@timestamp": at, "account": "7" * 300})
    async with subject.rig.app() as app:
        await subject.rig.hold(app, accounts=("2",))
    assert (await subject.rig.only()).changed == 5
    assert await subject.left() == {71, 72, 1001, 1002, 1003}


async def test_a_fence_that_is_gone_already_holds_only_when_every_node_has_heard(subject):
    async with subject.rig.app() as app:
        backend = app.engine.stores["logs"].backend
        fence = await backend.fence()
        subject.server.fail("_alias/", 200, method="DELETE", body={"acknowledged": False})
        assert await backend.unfence(fence) is False
        assert await backend.unfence(fence) is True
        subject.server.calls.clear()
        subject.server.fail("_alias/retentiond-fence-", 404, method="DELETE", body={"error": {"type": "x"}})
        subject.server.fail("_alias/retentiond-fence-", 200, method="DELETE", body={"acknowledged": False})
        assert await backend.unfence(fence) is False, "the later change is not known to all either"
        assert len(subject.server.calls) == 4


@pytest.mark.parametrize("status", [401, 403])
async def test_a_missing_right_makes_it_blind(subject, status):
    await subject.records()
    subject.server.fail("_search", status, times=99, body={"error": {"type": "security_exception"}})
    outcome = await subject.rig.only()
    assert outcome.outcome == "blind"
    assert "security_exception" in outcome.error["message"]


@pytest.mark.parametrize(("field", "kind"), [("account", "text"), ("@timestamp", "long")])
async def test_fields_by_which_nothing_can_be_told_make_it_blind(subject, field, kind):
    await subject.records()
    subject.server.fields[field] = kind
    outcome = await subject.rig.only()
    assert (outcome.outcome, len(await subject.left())) == ("blind", 8)


async def test_accounts_that_are_numbers_are_compared_in_the_directorys_type(subject):
    for key in range(1, 4):
        await subject.add(key)
        source, version = subject.server.indices[subject.index].docs[str(key)]
        subject.server.indices[subject.index].docs[str(key)] = ({**source, "account": 1}, version)
    subject.server.indices[subject.index].seen = dict(subject.server.indices[subject.index].docs)
    subject.server.fields["account"] = "long"
    assert (await subject.rig.only()).changed == 3


async def test_documents_of_nobody_and_without_a_date(subject):
    """Of nobody: the tier of anonymous visitors. Without a date: never due, but for an account that is erased."""
    await subject.add(1, account=None)
    for key, account in ((2, "1"), (3, subject.gone)):
        subject.server.put(subject.index, str(key), {"account": account})
    outcome = await subject.rig.only()
    assert (await subject.left(), outcome.unresolved) == ({2}, 1)


async def test_documents_can_name_their_own_tier(subject):
    subject.rig.targets["logs"] |= {"tier_field": "tier"}
    at = (datetime.now(UTC) - timedelta(days=100)).isoformat()
    for key, tier in ((1, "free"), (2, "pro"), (3, None)):
        source = {"@timestamp": at, "account": "1", **({"tier": tier} if tier else {})}
        subject.server.put(subject.index, str(key), source)
    assert (await subject.rig.only()).changed == 1
    assert await subject.left() == {2, 3}


class TestWholeIndices:
    """An index whose name has a date, with nothing in it but what is due."""

    async def test_it_is_deleted_as_such(self, subject):
        for key in range(1, 4):
            await subject.add(key, index="logs-2020.01.31")
        await subject.add(1001, days=1)
        outcome = await subject.rig.only()
        assert (outcome.changed, outcome.by_tier) == (3, {"free": 3})
        assert "logs-2020.01.31" not in subject.server.indices
        assert await subject.left() == {1001}
        await subject.rig.require_told(logs=3)

    @pytest.mark.parametrize("why", ["held", "young", "undated name", "written to", "off"])
    async def test_it_is_not_where_anything_in_it_has_to_stay(self, subject, why):
        name = "logs-x" if why == "undated name" else "logs-2020.01.31"
        for key in range(1, 4):
            await subject.add(key, index=name)
        if why == "held":
            await subject.add(4, account="2", days=500, index=name)
            async with subject.rig.app() as app:
                await subject.rig.hold(app, accounts=("2",))
        elif why == "young":
            await subject.add(4, days=1, index=name)
        elif why == "written to":
            subject.server.streams["logs-stream"] = [name]
        elif why == "off":
            subject.rig.targets["logs"]["whole_indices"] = False
        assert (await subject.rig.only()).changed == 3
        assert name in subject.server.indices
        assert await subject.left() == ({4} if why in ("held", "young") else set())
        assert "index.blocks.write" not in subject.server.indices[name].settings

    async def test_a_document_that_comes_at_the_last_moment_keeps_the_index(self, subject):
        for key in range(1, 4):
            await subject.add(key, index="logs-2020.01.31")
        whole = Server.block

        async def block(server, index):
            await subject.add(9, days=1, index=index, refresh=False)
            return await whole(server, index)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Server, "block", block)
            await subject.rig.only()
        assert await subject.left() == {9}
        assert "index.blocks.write" not in subject.server.indices["logs-2020.01.31"].settings

    @pytest.mark.parametrize("status", [403, 404, 429])
    async def test_what_went_with_it_is_told_where_the_rest_is_refused(self, subject, status):
        for key in range(1, 4):
            await subject.add(key, index="logs-2020.01.31")
        await subject.add(4)
        await subject.add(1001, days=1)
        subject.server.fail("_delete_by_query", status)
        assert (await subject.rig.only()).outcome == "failed"
        assert "logs-2020.01.31" not in subject.server.indices
        await subject.rig.only()
        assert await subject.left() == {1001}
        await subject.rig.require_told(logs=4)
        await subject.rig.require_settled()

    async def test_one_whose_fence_is_gone_is_not_deleted(self, subject):
        for key in range(1, 4):
            await subject.add(key, index="logs-2020.01.31")
        whole, done = Server.block, []

        async def block(server, index):
            if not done:
                done.append(index)
                await place(subject)
                assert (await activated(subject))[0] == 1
            return await whole(server, index)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Server, "block", block)
            await subject.rig.only()
        assert await subject.left() == {1, 2, 3}
        assert "index.blocks.write" not in subject.server.indices["logs-2020.01.31"].settings


class TestCheck:
    """What `check` says of such a target."""

    async def found(self, subject):
        async with subject.rig.app() as app:
            store = app.engine.stores["logs"]
            return {each.message: each.severity for each in await store.check()}

    async def test_of_one_that_can_be_swept_nothing(self, subject):
        await subject.records()
        assert await self.found(subject) == {}
        assert len(await subject.left()) == 8
        assert not subject.server.indices["retentiond-fence"].aliases

    async def test_a_server_that_minds_no_missing_name_has_no_fence(self, subject, monkeypatch):
        await subject.records()
        whole = OpenSearch.resolve
        monkeypatch.setattr(OpenSearch, "resolve", lambda server, names, **_: whole(server, names, lenient=True))
        ((message, severity),) = (await self.found(subject)).items()
        assert severity == "error"
        assert "a late one can't be refused" in message

    async def test_blocks_and_deletions_of_others_are_told(self, subject):
        await subject.records()
        subject.server.indices[subject.index].settings["index.blocks.write"] = "true"
        subject.server.tasks["node:9"] = Task("node:9", "", "delete-by-query [logs-*]", [])
        found = await self.found(subject)
        assert sorted(found.values()) == ["error", "info"]

    async def test_policies_of_the_server_that_delete_are_rules_of_its_own(self, subject):
        await subject.records()
        subject.server.answers |= {
            "/_plugins/_ism/explain/logs-*": {"logs-000001": {"policy_id": "tidy", "enabled": True}, "total": 1},
            "/_plugins/_ism/policies/tidy": {
                "policy": {
                    "default_state": "hot",
                    "states": [
                        {
                            "name": "hot",
                            "transitions": [{"state_name": "gone", "conditions": {"min_index_age": "30d"}}],
                        },
                        {"name": "gone", "actions": [{"delete": {}}]},
                    ],
                }
            },
            "/logs-*/_ilm/explain": {"indices": {"logs-000001": {"managed": True, "policy": "old"}}},
            "/_ilm/policy/old": {"old": {"policy": {"phases": {"delete": {"min_age": "720h"}}}}},
            "/_data_stream/logs-*/_lifecycle": {"data_streams": [{"name": "s", "lifecycle": {"data_retention": "7d"}}]},
        }
        async with subject.rig.app() as app:
            rules = await app.engine.stores["logs"].native_rules()
        assert [(rule.name, rule.days) for rule in rules] == [
            ("ISM policy tidy", 30),
            ("ILM policy old", 30),
            ("lifecycle of data stream s", 7),
        ]


async def test_a_document_is_explained_by_its_index_and_id_and_an_index_by_its_oldest(subject):
    await subject.records()
    async with subject.rig.app() as app:
        verdict = await app.engine.explain(app.spec.target("logs"), subject.index)
        assert (str(verdict.kind), verdict.tier) == ("erase", "free")
        verdict = await app.engine.explain(app.spec.target("logs"), f"{subject.index}/1")
        assert (str(verdict.kind), verdict.tier) == ("erase", "free")
        with pytest.raises(NotFound, match="no document 1"):
            await app.engine.explain(app.spec.target("logs"), "1")


async def test_a_hold_counts_what_it_matches(subject):
    await subject.records()
    await subject.add(6, account="2")
    async with subject.rig.app() as app:
        store = app.engine.stores["logs"]
        await store.open(app.engine.directory)
        hold = await subject.rig.hold(app, accounts=("001",))
        assert (await store.matches(await store.hold(hold), seconds=5)).records == 8
