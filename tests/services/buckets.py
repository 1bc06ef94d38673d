"""A target `logs` over a bucket of a real S3 server, beside an account directory, as the contract's subject."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta

import pytest

from retentiond.stores.s3 import batch, objects
from retentiond.stores.s3.batch import S3Batch
from retentiond.stores.s3.endpoint import Endpoint
from tests.contract.behaviours import Subject
from tests.services.inventories import ID, report
from tests.services.inventories import PREFIX as PREFIX_OF_REPORTS
from tests.services.sweeping import ACCOUNTS, Rig, let_permits_age

PREFIX = "logs/"
_FEW_DAYS = 10


class S3Subject(Subject):
    """Objects `logs/ACCOUNT/NUMBER`; in a versioned bucket a number is there as long as it has a current version."""

    def __init__(self, rig: Rig, ground, past=None) -> None:
        """`past` gives a server that is so many days behind; where there is none, the date is changed afterwards."""
        super().__init__(rig)
        self.ground, self._past = ground, past

    async def add(self, key, *, account="1", days=400):
        await self.put(self.key(key, account), days=days)

    async def put(self, key, *, days=400, body=b"x"):
        """An object that was written so many days ago."""
        if self._past is not None:
            await self._put_then(key, days, body)
            return
        await self.ground.put(key, body=body)
        await asyncio.to_thread(self.ground.written_at, key, datetime.now(UTC) - timedelta(days=days))

    async def begin_upload(self, key, days=400):
        """An upload that nobody completes; moto says of all that they were begun in 2010."""
        async with self.then(days) as bucket:
            bucket.require(await bucket.ask("POST", key, [("uploads", "")]), "beginning an upload", "")

    async def _put_then(self, key, days, body):
        async with self.then(days) as bucket:
            await objects.head(bucket, key)  # to learn its clock
            await objects.put(bucket, key, body)

    @asynccontextmanager
    async def then(self, days):
        """The bucket at a server that has the time of then; of a few days ago that of now, since each is a process."""
        past = self._past if days > _FEW_DAYS else None
        server = await asyncio.to_thread(past, int(days)) if past is not None else self.ground.server
        endpoint = await Endpoint.open(server.access())
        try:
            yield await endpoint.locate(self.ground.name)
        finally:
            await endpoint.close()

    def key(self, number, account="1"):
        return f"{PREFIX}{account}/{number:06}"

    async def left(self):
        # Beside what finds out what the endpoint can.
        return {int(key.rsplit("/", 1)[1]) for key in await self.ground.keys(PREFIX) if "/.retentiond" not in key}

    async def versions(self):
        """Every version and marker that there is, as pairs of key and id."""
        found = await self.ground.client.list_object_versions(Bucket=self.ground.name, Prefix=PREFIX)
        return [
            (each["Key"], each["VersionId"]) for kind in ("Versions", "DeleteMarkers") for each in found.get(kind, ())
        ]

    @contextmanager
    def dying(self, at):
        delete = batch.delete

        async def dying(*args, **named):
            if at == "after":
                await delete(*args, **named)
            raise asyncio.CancelledError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batch, "delete", dying)
            yield

    @contextmanager
    def meanwhile(self, work):
        whole, done = S3Batch.intended, []

        async def intended(each, permit, window):
            if not done:
                done.append(permit)
                await work()
            return await whole(each, permit, window)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(S3Batch, "intended", intended)
            yield
        assert done

    async def let_time_pass(self, seconds=3600):
        async with self.rig.control_connection() as control:
            await let_permits_age(control, seconds)


class TaggedSubject(S3Subject):
    """Objects whose account stands in their tag `owner` alone; their keys tell nothing that is read."""

    @classmethod
    def of(cls, subject: S3Subject) -> TaggedSubject:
        """The same subject, with tags."""
        return cls(subject.rig, subject.ground)

    async def add(self, key, *, account="1", days=400):
        await super().add(key, account=account, days=days)
        tags = [] if account is None else [{"Key": "owner", "Value": account}]
        name = self.key(key, account)
        await self.ground.client.put_object_tagging(Bucket=self.ground.name, Key=name, Tagging={"TagSet": tags})


def target(server, bucket: str, **more):
    """The configuration of a target over that bucket."""
    usual = {
        "store": "s3",
        "class": "operational_logs",
        "bucket": bucket,
        "prefix": PREFIX,
        "key": "{account}/{file:path}",
        "endpoint_url": server.url,
        "region": server.region,
        "access_key_id": server.key,
        "secret_access_key": server.secret,
        "addressing": "path",
        "unfenced": server.kind == "moto",
        "pace": {"duty": 1.0, "max_batch": 10, "batch_seconds": 5.0},
    }
    return {key: value for key, value in {**usual, **more}.items() if value is not None}


async def prepared(rig: Rig, ground, past=None, **more) -> S3Subject:
    """The rig with that target and its accounts."""
    await rig.db.execute(ACCOUNTS)
    rig.targets["logs"] = target(ground.server, ground.name, **more)
    return S3Subject(rig, ground, past)


def by_inventory(rig: Rig, subject: S3Subject, **kind) -> None:
    """From now on the target goes by an inventory, and before each sweep a report of what there is then is written."""
    rig.targets["logs"]["inventory"] = {"id": ID, "prefix": PREFIX_OF_REPORTS}
    versions = kind.pop("versions", False)
    sweep = rig.sweep

    async def swept(*names, **more):
        await (await report(subject.ground, versions=versions, **kind)).write()
        return await sweep(*names, **more)

    rig.sweep = swept
