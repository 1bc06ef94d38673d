"""Where a target's log groups are: the endpoint, and for how long a signature is good there.

The latter is tried out before something is erased, and not before: a plan asks for nothing that it does not need.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

from retentiond.domain.clock import ClockReading
from retentiond.errors import Blind
from retentiond.stores.cloudwatch import abilities, api
from retentiond.stores.cloudwatch.config import CloudwatchTarget
from retentiond.stores.cloudwatch.endpoint import Access, Endpoint
from retentiond.stores.cloudwatch.pace import Pacer


class Place:
    """One target's endpoint; made closed, and opened by whoever asks first."""

    def __init__(self, name: str, config: CloudwatchTarget) -> None:
        self._name, self._config = name, config
        self._access = _access(config)
        self._head = config.names().head
        self._lock = asyncio.Lock()
        self._probing = asyncio.Lock()
        self._endpoint: Endpoint | None = None
        self._window: timedelta | None = None
        self._probed = False
        self.pacer = Pacer(config.pace.records_per_second)

    @property
    def address(self) -> str:
        """The same for targets of one endpoint and login."""
        return self._access.address

    async def endpoint(self) -> Endpoint:
        """The endpoint; raises Unreachable where there are no credentials."""
        async with self._lock:
            if self._endpoint is None:
                self._endpoint = await Endpoint.open(self._access)
            return self._endpoint

    async def open(self) -> None:
        """See that groups can be listed; raises Blind, Unreachable."""
        await api.groups(await self.endpoint(), self._head, limit=1)

    async def clock(self) -> ClockReading:
        """The service's clock; raises Unreachable."""
        endpoint = await self.endpoint()
        # Whatever it answers, it tells the time.
        await endpoint.try_to("DescribeLogGroups", {"limit": 1})
        return endpoint.clock.reading()

    async def window(self) -> timedelta | None:
        """For how long a signature is good; raises Blind where it is for ever, unless that is accepted: then None."""
        endpoint = await self.endpoint()
        async with self._probing:
            if not self._probed:
                self._window = await abilities.window_of(endpoint, self._head)
                self._probed = True
        if self._window is None and not self._config.unfenced:
            raise Blind(UNFENCED, remedy=unfenced_remedy(self._name))
        return self._window

    async def close(self) -> None:
        """Give up all connections."""
        async with self._lock:
            endpoint, self._endpoint = self._endpoint, None
            if endpoint is not None:
                await endpoint.close()


UNFENCED = (
    "CloudWatch Logs: this endpoint carries out requests whose signatures are too old, so that what was sent under an "
    "old permit may erase after a hold has become active"
)


def unfenced_remedy(name: str) -> str:
    """What to do about it."""
    return f"use AWS itself, or accept it with targets.{name}.unfenced: true"


def _access(config: CloudwatchTarget) -> Access:
    secret, token = config.secret_access_key, config.session_token
    return Access(
        endpoint_url=config.endpoint_url,
        region=config.region,
        access_key_id=config.access_key_id.get_secret_value() if config.access_key_id else None,
        secret_access_key=secret.get_secret_value() if secret else None,
        session_token=token.get_secret_value() if token else None,
    )
