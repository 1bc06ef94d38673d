"""Real S3 servers for the tests: moto's, a process of its own, and what a test does to a bucket behind our back."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
from aiobotocore.config import AioConfig

from retentiond.stores.aws import aws_session
from retentiond.stores.clock import Expiry
from retentiond.stores.s3.endpoint import Access, Bucket, Endpoint
from retentiond.stores.s3.items import How
from retentiond.stores.s3.signing import Fence
from services.postgres import free_port


@dataclass(frozen=True, slots=True)
class S3Server:
    """A running server. `kind` is `moto` or `ceph`."""

    kind: str
    url: str
    key: str = "testkey"
    secret: str = "testsecret"
    region: str = "us-east-1"

    def access(self, **other: Any) -> Access:
        """What our client needs to know of it."""
        usual = Access(self.url, self.region, self.key, self.secret, addressing="path", answer_seconds=10)
        return replace(usual, **other)

    @asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        """A client as anybody's application has one."""
        config = AioConfig(
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
        async with aws_session().create_client(
            "s3",
            region_name=self.region,
            endpoint_url=self.url,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            config=config,
        ) as client:
            yield client

    @asynccontextmanager
    async def bucket(self, *, versioned: bool = False, lock: bool = False) -> AsyncIterator[Ground]:
        """A fresh bucket; it stays, for the server does not."""
        name = f"b-{uuid.uuid4().hex[:12]}"
        async with self.client() as client:
            await client.create_bucket(Bucket=name, **({"ObjectLockEnabledForBucket": True} if lock else {}))
            if versioned:
                await client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
            endpoint = await Endpoint.open(self.access())
            try:
                yield Ground(self, name, client, await endpoint.locate(name))
            finally:
                await endpoint.close()


@dataclass(frozen=True, slots=True)
class Ground:
    """A bucket: as an application's client sees it, and as ours does."""

    server: S3Server
    name: str
    client: Any
    bucket: Bucket

    async def put(self, *keys: str, body: bytes = b"x") -> None:
        """Write objects of those keys."""
        for at in range(0, len(keys), 16):
            await asyncio.gather(
                *(self.client.put_object(Bucket=self.name, Key=key, Body=body) for key in keys[at : at + 16])
            )

    async def keys(self, prefix: str = "") -> list[str]:
        """The keys that are there now, by botocore's own listing."""
        found: list[str] = []
        async for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix):
            found += [each["Key"] for each in page.get("Contents", ())]
        return found

    def written_at(self, key: str, at: datetime) -> None:
        """Let the object have been written then; moto only."""
        body = json.dumps({"bucket": self.name, "key": key, "at": at.isoformat()}).encode()
        urlopen(Request(f"{self.server.url}/_past", body, method="POST")).close()


def how(server: S3Server, **other: Any) -> How:
    """What was measured of these servers: Ceph refuses after an expiry, moto nothing; neither compares ETags."""
    fence = Fence.QUERY if server.kind == "ceph" else Fence.NONE
    return replace(How(fence, conditional=False), **other)


def good_for(bucket: Bucket, seconds: float = 60, *, ago: float = 0) -> Expiry:
    """An expiry after so many seconds of the server's clock, of a request issued so many seconds ago."""
    now = bucket.endpoint.clock.earliest() - timedelta(seconds=ago)
    return Expiry(now, now + timedelta(seconds=seconds))


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    """moto's server, one for each process of the test run."""
    port = free_port()
    command = [sys.executable, str(Path(__file__).with_name("moto_process.py")), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise RuntimeError(f"moto's server ended with {process.wait()}")
        yield S3Server("moto", f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.communicate()
