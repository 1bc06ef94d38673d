"""Objects that are really old, and a server whose clock is off."""

from datetime import UTC, datetime, timedelta

import pytest

from retentiond.stores.s3 import listing, objects
from retentiond.stores.s3.deleting import delete
from retentiond.stores.s3.endpoint import Endpoint
from tests.services.s3 import good_for, how


@pytest.mark.system
async def test_a_server_whose_clock_is_off_is_asked_by_its_own_clock(ceph_server):
    async with ceph_server.bucket() as ground:
        with ceph_server.past(100) as past:
            endpoint = await Endpoint.open(past.access())
            try:
                bucket = await endpoint.locate(ground.name)
                await objects.put(bucket, "old", b"x")
                await objects.put(bucket, "older", b"x")
                assert endpoint.clock.reading().offset < timedelta(days=-99)
                items = (await listing.objects(bucket)).items()
                age = datetime.now(UTC) - items[0].modified
                assert timedelta(days=99) < age < timedelta(days=101)
                done = await delete(bucket, items[1:], expiry=good_for(bucket), how=how(past))
                assert done.count("erased") == 1
            finally:
                await endpoint.close()
        page = await listing.objects(ground.bucket)
        assert (page.keys, page.modified) == (["old"], [items[0].modified])


async def test_what_a_test_says_was_written_then_was_written_then(moto_server):
    at = datetime(2020, 2, 3, 4, 5, 6, tzinfo=UTC)
    async with moto_server.bucket() as ground:
        await ground.put("a b", "new")
        ground.written_at("a b", at)
        page = await listing.objects(ground.bucket)
        assert dict(zip(page.keys, page.modified, strict=True))["a b"] == at
