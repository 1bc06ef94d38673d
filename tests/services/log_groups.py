"""A target `logs` over log groups of a real server, beside an account directory, as the contract's subject."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.request import Request, urlopen

import pytest

from retentiond.stores.aws import aws_session
from retentiond.stores.cloudwatch import batch
from retentiond.stores.cloudwatch.batch import CloudwatchBatch
from tests.contract.behaviours import Subject
from tests.services.s3 import S3Server
from tests.services.sweeping import ACCOUNTS, Rig, let_permits_age

_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class LogGround:
    """Log groups of one's own at a server: all have names that begin with `head`."""

    server: S3Server
    head: str
    client: Any

    async def stream(self, group: str, stream: str, *events: float, created: float = 800) -> None:
        """A stream of `HEAD + group` that was made so many days ago, with events of so many days ago."""
        now = int(time.time() * 1000)
        await asyncio.to_thread(
            self._post,
            {
                "region": self.server.region,
                "group": self.head + group,
                "stream": stream,
                "created": now - int(created * _DAY_MS),
                "events": [[now - int(days * _DAY_MS)] * 2 for days in events],
            },
        )

    def now(self) -> float:
        """Seconds since 1970."""
        return time.time()

    async def streams(self) -> list[tuple[str, str]]:
        """The groups (without the head) and streams that are there."""
        return [(group, stream) for group in await self.groups() for stream in await self._streams(group)]

    async def groups(self) -> dict[str, int | None]:
        """The groups, without the head, and their retention."""
        pages = self.client.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=self.head)
        found: dict[str, int | None] = {}
        async for page in pages:
            for each in page["logGroups"]:
                found[each["logGroupName"].removeprefix(self.head)] = each.get("retentionInDays")
        return found

    async def retain(self, group: str, days: int) -> None:
        """Somebody sets the retention of a group."""
        await self.client.put_retention_policy(logGroupName=self.head + group, retentionInDays=days)

    async def _streams(self, group: str) -> list[str]:
        pages = self.client.get_paginator("describe_log_streams").paginate(logGroupName=self.head + group)
        return [each["logStreamName"] async for page in pages for each in page["logStreams"]]

    def _post(self, document: dict[str, Any]) -> None:
        urlopen(Request(f"{self.server.url}/_logs", json.dumps(document).encode(), method="POST")).close()


@asynccontextmanager
async def log_ground(server: S3Server):
    """Names that nobody else has; what is made below them stays, for the server does not."""
    async with aws_session().create_client(
        "logs",
        region_name=server.region,
        endpoint_url=server.url,
        aws_access_key_id=server.key,
        aws_secret_access_key=server.secret,
    ) as client:
        yield LogGround(server, f"/t-{uuid.uuid4().hex[:12]}/", client)


class LogSubject(Subject):
    """A group for each account, a stream for each number, whose newest event is of so many days ago."""

    def __init__(self, rig: Rig, ground: LogGround) -> None:
        super().__init__(rig)
        self.ground = ground

    async def add(self, key, *, account="1", days=400):
        await self.ground.stream(account, f"{key:06}", days)

    async def left(self):
        return {int(stream) for _, stream in await self.ground.streams()}

    @contextmanager
    def dying(self, at):
        delete = batch.deleting.delete

        async def dying(*args, **named):
            if at == "after":
                await delete(*args, **named)
            raise asyncio.CancelledError

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(batch.deleting, "delete", dying)
            yield

    @contextmanager
    def meanwhile(self, work):
        whole, done = CloudwatchBatch.intended, []

        async def intended(each, permit, window):
            if not done:
                done.append(permit)
                await work()
            return await whole(each, permit, window)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(CloudwatchBatch, "intended", intended)
            yield
        assert done

    async def let_time_pass(self, seconds=3600):
        async with self.rig.control_connection() as control:
            await let_permits_age(control, seconds)


def target(ground: LogGround, **more: Any) -> dict[str, Any]:
    """The configuration of a target over those groups."""
    usual = {
        "store": "cloudwatch",
        "class": "operational_logs",
        "groups": ground.head + "{account}",
        "endpoint_url": ground.server.url,
        "region": ground.server.region,
        "access_key_id": ground.server.key,
        "secret_access_key": ground.server.secret,
        "unfenced": True,
        "pace": {"duty": 1.0, "max_batch": 10, "batch_seconds": 5.0, "records_per_second": 1000},
    }
    return {key: value for key, value in {**usual, **more}.items() if value is not None}


async def prepared(rig: Rig, ground: LogGround, **more: Any) -> LogSubject:
    """The rig with that target and its accounts."""
    await rig.db.execute(ACCOUNTS)
    rig.targets["logs"] = target(ground, **more)
    return LogSubject(rig, ground)
