"""The contract, kept by objects in a bucket: its requests' expiry is the fence."""

import pytest

from tests.contract.behaviours import Contract
from tests.services.buckets import TaggedSubject, by_inventory, prepared
from tests.services.inventories import CURRENT_SCHEMA


class OfVersions(Contract):
    """What is another in a bucket that keeps versions."""

    async def test_a_record_that_is_replaced_meanwhile_stays(self, subject):
        """The old version was judged, and goes; the new one is another record."""
        await subject.records()
        with subject.meanwhile(lambda: subject.add(3, days=1)):
            outcome = await subject.rig.only()
        assert outcome.changed == 5
        assert await subject.left() == {3, 1001, 1002, 1003}
        assert len(await subject.versions()) == 4
        await subject.rig.require_told(logs=5)


class TestObjects(Contract):
    """A bucket without versions, at moto's server."""

    @pytest.fixture
    async def subject(self, apart, moto_server):
        async with moto_server.bucket() as ground:
            yield await prepared(apart, ground)


class TestVersions(OfVersions):
    """A bucket that keeps versions, at moto's server."""

    @pytest.fixture
    async def subject(self, apart, moto_server):
        async with moto_server.bucket(versioned=True) as ground:
            yield await prepared(apart, ground)


class TestTaggedObjectsByInventory(Contract):
    """A bucket without versions whose objects say by a tag whose they are, by reports of its inventory, not by lists."""

    @pytest.fixture
    async def subject(self, apart, moto_server):
        async with moto_server.bucket() as ground:
            made = TaggedSubject.of(await prepared(apart, ground, key=None, tags={"account": "owner"}))
            by_inventory(apart, made, schema=CURRENT_SCHEMA)
            yield made


class TestLockedVersionsByInventory(OfVersions):
    """A bucket with versions and Object Lock, by reports of its inventory instead of lists."""

    @pytest.fixture
    async def subject(self, apart, moto_server):
        async with moto_server.bucket(lock=True) as ground:
            made = await prepared(apart, ground)
            by_inventory(apart, made, versions=True, format="Parquet")
            yield made


@pytest.mark.system
class TestObjectsOfCeph(Contract):
    """A bucket without versions, at a server that enforces the expiry."""

    @pytest.fixture
    async def subject(self, apart, ceph_server, ceph_past):
        async with ceph_server.bucket() as ground:
            yield await prepared(apart, ground, ceph_past)


@pytest.mark.system
class TestVersionsOfCeph(OfVersions):
    """A bucket that keeps versions, at a server that enforces the expiry."""

    @pytest.fixture
    async def subject(self, apart, ceph_server, ceph_past):
        async with ceph_server.bucket(versioned=True) as ground:
            yield await prepared(apart, ground, ceph_past)
