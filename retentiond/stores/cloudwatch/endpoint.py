"""CloudWatch Logs in one region: who we are there, and one way to send a request.

botocore finds credentials, region and address, and does the arithmetic of signatures. Nothing is sent twice behind
anybody's back: a request that destroys is one attempt, and ends as an answer, as `Unsent` (surely not sent) or as
`Unanswered` (who knows).
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Self

import aiohttp
import orjson
from botocore.exceptions import BotoCoreError, ClientError
from yarl import URL

from retentiond.errors import Unreachable
from retentiond.stores.aws import aws_session, credentials_of
from retentiond.stores.clock import Expiry, ServerClock, floor_second
from retentiond.stores.cloudwatch.errors import Trouble, Unanswered, Unsent, error_of, trouble_in
from retentiond.stores.cloudwatch.signing import SERVICE, signed
from retentiond.stores.network import session

_PAUSE_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class Access:
    """Where the endpoint is and who we are there; what is None comes from the ordinary AWS chain.

    `tries`: how often a request that destroys nothing is sent, in all, where it is throttled or fails.
    """

    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    connect_seconds: float = 5.0
    answer_seconds: float = 20.0
    tries: int = 5

    @property
    def address(self) -> str:
        """The same for targets of one endpoint and login; shows no secret."""
        told = (self.endpoint_url, self.region, self.access_key_id, self.secret_access_key)
        return f"cloudwatch:{hashlib.sha256(repr(told).encode()).hexdigest()}"


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back: the document, or what is wrong instead."""

    document: Mapping[str, Any]
    trouble: Trouble | None


class Endpoint:
    """Made by `open`; everything in it is closed by `close`. `requests` counts what was sent."""

    def __init__(self, access: Access) -> None:
        self.access = access
        self.clock = ServerClock()
        self.requests = 0
        self.region = access.region or ""
        self._url = ""
        self._exit = AsyncExitStack()
        self._credentials: Any = None
        self._http: aiohttp.ClientSession | None = None

    @classmethod
    async def open(cls, access: Access) -> Self:
        """Find credentials, region and address; raises Unreachable where there are none. Nothing is sent."""
        self = cls(access)
        try:
            await self._open()
        except (BotoCoreError, ValueError) as error:
            await self.close()
            raise Unreachable(
                f"CloudWatch Logs: {error}", remedy="check endpoint_url, region and the AWS configuration"
            ) from error
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """Give up all connections."""
        await self._exit.aclose()

    async def ask(self, action: str, body: Mapping[str, Any], asked: str) -> Mapping[str, Any]:
        """Send what destroys nothing, again where the service is busy or the network fails.

        `asked` says in an error what was asked for. Raises what `error_of` makes of the answer, Unsent, Unanswered.
        """
        answer = await self.try_to(action, body)
        if answer.trouble is not None:
            raise error_of(answer.trouble, asked, f"logs:{action}")
        return answer.document

    async def ask_if_there(self, action: str, body: Mapping[str, Any], asked: str) -> Mapping[str, Any] | None:
        """The same of a group or stream that may be gone: None where it is."""
        answer = await self.try_to(action, body)
        if answer.trouble is not None and not answer.trouble.absent:
            raise error_of(answer.trouble, asked, f"logs:{action}")
        return answer.document if answer.trouble is None else None

    async def try_to(self, action: str, body: Mapping[str, Any]) -> Answer:
        """The same, with the answer whatever it is; raises Unsent, Unanswered."""
        for attempt in range(1, self.access.tries + 1):
            last = attempt == self.access.tries
            try:
                answer = await self._send(action, body, self.now())
            except (Unsent, Unanswered):
                if last:
                    raise
            else:
                trouble = answer.trouble
                again = trouble is not None and (trouble.throttled or trouble.late or trouble.status >= 500)
                if last or not again:
                    return answer
            await asyncio.sleep(_PAUSE_SECONDS * 2**attempt)
        raise AssertionError("the last try returns or raises")

    async def destroy(self, action: str, body: Mapping[str, Any], expiry: Expiry, window: timedelta | None) -> Answer:
        """Send, once, what the service is to refuse after the expiry; raises Unsent or Unanswered.

        `window`: for how long after its date a signature is good; None: it is not refused at all.
        """
        if expiry.spent or self.clock.latest() >= expiry.expires_at:
            raise Unsent("CloudWatch Logs: a request has no time left", remedy="nothing to do: it is asked for again")
        at = floor_second(expiry.expires_at) - window if window is not None else floor_second(expiry.issued_at)
        return await self._send(action, body, at)

    async def sent_as_of(self, action: str, body: Mapping[str, Any], at: datetime) -> Answer:
        """Send once, with a date of the caller's: to find out how long a signature is good."""
        return await self._send(action, body, at)

    def now(self) -> datetime:
        """What to sign by: the server's clock, as far as it is known."""
        return self.clock.latest() if self.clock.known else datetime.now(UTC)

    async def _send(self, action: str, body: Mapping[str, Any], at: datetime) -> Answer:
        """One attempt; of a whole one no more than two answers' time passes (less than `holds.late_effect_grace`)."""
        assert self._http is not None, "the endpoint is not open"
        content = orjson.dumps(body)
        headers = signed(await self._frozen(), self.region, self._url, action, content, at)
        seconds, began = self.access.answer_seconds, time.monotonic()
        timeout = aiohttp.ClientTimeout(total=2 * seconds, sock_connect=self.access.connect_seconds, sock_read=seconds)
        self.requests += 1
        try:
            async with self._http.request(
                "POST",
                URL(self._url, encoded=True),
                headers=headers,
                data=content,
                allow_redirects=False,
                timeout=timeout,
            ) as response:
                raw = await response.read()
                self.clock.observe(response.headers.get("Date"), began, time.monotonic())
                named = {key.lower(): value for key, value in response.headers.items()}
                trouble = trouble_in(response.status, named, raw)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            # Nothing of a request goes out before there is a connection.
            raise Unsent(f"CloudWatch Logs: {_why(error)}", remedy="check endpoint_url, region and network") from error
        except (aiohttp.ClientError, OSError, TimeoutError, ssl.SSLError) as error:
            raise Unanswered(
                f"CloudWatch Logs: no whole answer to {action}: {_why(error)}", remedy="check the network"
            ) from error
        return Answer(orjson.loads(raw) if trouble is None and raw else {}, trouble)

    async def _frozen(self) -> Any:
        try:
            return await self._credentials.get_frozen_credentials()
        except (BotoCoreError, ClientError, aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unsent(
                f"CloudWatch Logs: credentials can't be had: {error}", remedy="check the role, or give keys"
            ) from error

    async def _open(self) -> None:
        access, found = self.access, aws_session()
        self._credentials = await credentials_of(
            found, "CloudWatch Logs", access.access_key_id, access.secret_access_key, access.session_token
        )
        region = access.region or found.get_config_variable("region") or "us-east-1"
        async with found.create_client(
            SERVICE,
            region_name=region,
            endpoint_url=access.endpoint_url,
            aws_access_key_id="unused",
            aws_secret_access_key="unused",  # noqa: S106 - it only tells the address
        ) as client:
            self.region, self._url = client.meta.region_name, client.meta.endpoint_url.rstrip("/") + "/"
        self._http = await self._exit.enter_async_context(
            session(
                self._url,
                answer_seconds=access.answer_seconds,
                connections=16,
                ca_bundle=found.get_config_variable("ca_bundle"),
            )
        )


def _why(error: BaseException) -> str:
    """What the network said, without the address."""
    inner = getattr(error, "os_error", None)
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return type(error).__name__
