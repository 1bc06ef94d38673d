"""The window of a signature as a fence: what was sent under a permit is refused by the service when the permit is over."""

import asyncio
from datetime import timedelta

import pytest

from retentiond.errors import Unreachable
from retentiond.stores.clock import Expiry
from retentiond.stores.cloudwatch import abilities, deleting
from retentiond.stores.cloudwatch.endpoint import Access, Endpoint
from tests.services.log_groups import log_ground, prepared
from tests.services.s3_faults import Fault
from tests.services.strict_logs import strict


def access(server):
    return Access(server.url, server.region, server.key, server.secret, tries=2)


@pytest.fixture
async def ground(moto_server):
    async with log_ground(moto_server) as made:
        yield made


@pytest.mark.parametrize(("minutes", "found"), [(5, 5), (15, 15), (4, None), (10, None), (600, None)])
async def test_how_long_a_signature_is_good_is_found_out(ground, moto_server, minutes, found):
    async with strict(moto_server, minutes=minutes) as proxy:
        endpoint = await Endpoint.open(access(proxy.server))
        window = await abilities.window_of(endpoint, ground.head)
        await endpoint.close()
    assert window == (timedelta(minutes=found) if found else None)


async def test_a_busy_service_is_no_answer_to_that(ground, moto_server):
    async with strict(moto_server) as proxy:
        proxy.arm(Fault("says", about=lambda _: True, status="429 Too Many Requests"))
        endpoint = await Endpoint.open(access(proxy.server))
        with pytest.raises(Unreachable):
            await abilities.window_of(endpoint, ground.head)
        await endpoint.close()


async def test_credentials_that_are_not_accepted_are_no_answer_to_that(ground, moto_server):
    async with strict(moto_server) as proxy:
        endpoint = await Endpoint.open(Access(proxy.server.url, proxy.server.region, "testkey", "another", tries=1))
        with pytest.raises(Unreachable, match="credentials are not accepted"):
            await abilities.window_of(endpoint, ground.head)
        await endpoint.close()


async def test_a_request_that_arrives_after_its_expiry_is_refused_by_the_service(ground, moto_server):
    await ground.stream("g", "s", 400)
    async with strict(moto_server) as proxy:
        endpoint = await Endpoint.open(access(proxy.server))
        window = await abilities.window_of(endpoint, ground.head)
        now = endpoint.clock.earliest()
        body = {"logGroupName": f"{ground.head}g", "logStreamName": "s"}
        proxy.clock_ahead = 30
        answer = await endpoint.destroy("DeleteLogStream", body, Expiry(now, now + timedelta(seconds=20)), window)
        assert answer.trouble is not None
        assert answer.trouble.late
        assert await ground.streams() == [("g", "s")]
        answer = await endpoint.destroy("DeleteLogStream", body, Expiry(now, now + timedelta(seconds=50)), window)
        assert answer.trouble is None
        await endpoint.close()
    assert await ground.streams() == []


async def test_an_endpoint_that_is_no_fence_erases_nothing_unless_that_is_accepted(apart, ground, moto_server):
    subject = await prepared(apart, ground, unfenced=False)
    await subject.records()
    outcome = await subject.rig.only()
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert "unfenced" in outcome.error["remedy"]
    assert len(await subject.left()) == 8
    assert set((await ground.groups()).values()) == {None}


async def test_a_worker_that_was_stopped_before_it_sends_erases_nothing_when_it_comes_back(
    apart, ground, moto_server, monkeypatch
):
    """The request is signed and under way, and arrives when the permit is long over."""
    async with strict(moto_server) as proxy:
        subject = await prepared(apart, ground, endpoint_url=proxy.server.url, unfenced=False, retention="leave")
        await subject.records()
        whole = deleting.destroy

        async def destroy(*args):
            proxy.clock_ahead = 35
            return await whole(*args)

        monkeypatch.setattr(deleting, "destroy", destroy)
        sweep = asyncio.create_task(subject.rig.only())
        outcome = await sweep
        assert outcome.changed == 0
        assert any(code == "InvalidSignatureException" and b'"000001"' in asked.body for asked, code in proxy.refused)
    assert len(await subject.left()) == 8
    await subject.rig.require_settled()
