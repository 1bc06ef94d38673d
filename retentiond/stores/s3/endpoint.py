"""One S3 endpoint: who we are there, where a bucket is, and one way to send a request.

botocore finds credentials, region and address. Requests that are many (lists, deletes, HEADs) are signed by its
arithmetic and sent by aiohttp as they are, because what its client does around each of them costs several times the
request. The client itself (`Endpoint.client`) is there for what is rare: the bucket's settings, objects of an archive.

Nothing is sent twice behind anybody's back: a request that destroys is one attempt, and ends as an answer, as `Unsent`
(surely not sent) or as `Unanswered` (who knows). Redirects are not followed.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, Literal, Self
from urllib.parse import urlsplit

import aiohttp
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.exceptions import BotoCoreError, ClientError
from yarl import URL

from retentiond.errors import Blind, Unreachable
from retentiond.stores.aws import aws_session, credentials_of
from retentiond.stores.clock import Expiry, ServerClock
from retentiond.stores.network import is_here, session
from retentiond.stores.s3.errors import TOO_SKEWED, Trouble, Unanswered, Unsent, error_of, trouble_in
from retentiond.stores.s3.signing import Fence, Signed, Signer, encoded

Addressing = Literal["auto", "path", "virtual"]
Query = Sequence[tuple[str, str]]
_IN_PIECES = 2**19
_NO_HEADERS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True)
class Access:
    """Where the endpoint is and who we are there; what is None comes from the ordinary AWS chain.

    `tries`: how often a request that destroys nothing is sent, in all.
    """

    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    addressing: Addressing = "auto"
    connect_seconds: float = 5.0
    answer_seconds: float = 20.0
    connections: int = 64
    tries: int = 3


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def trouble(self) -> Trouble | None:
        """What is wrong with it, None where nothing is."""
        return trouble_in(self.status, self.headers, self.body)


class Endpoint:
    """Made by `open`; everything in it is closed by `close`.

    `requests` counts what was sent; `plus_is_space` has what the listing of each bucket was found to mean by `+`, and
    `skips_one` whether that of its versions leaves one out (`listing`).
    """

    def __init__(self, access: Access, session: AioSession) -> None:
        self.access = access
        self.clock = ServerClock()
        self.requests = 0
        self.plus_is_space: dict[str, bool] = {}
        self.skips_one: dict[str, bool] = {}
        self._session = session
        self._exit = AsyncExitStack()
        self._credentials: Any = None
        self._http: aiohttp.ClientSession | None = None
        self.client: Any = None
        self.region = access.region or ""

    @classmethod
    async def open(cls, access: Access) -> Self:
        """Find credentials and region; raises Unreachable where there are none. Nothing is sent to the endpoint."""
        try:
            session = aws_session()
        except BotoCoreError as error:  # a profile that there is not, a file that can't be read
            raise _unusable(error) from error
        self = cls(access, session)
        try:
            await self._open()
        except BaseException:
            await self.close()
            raise
        return self

    async def close(self) -> None:
        """Give up all connections."""
        await self._exit.aclose()

    async def locate(self, name: str) -> Bucket:
        """The bucket of that name, or access point of that ARN; raises Blind where there can't be one."""
        if name.endswith("--x-s3"):
            raise Blind(
                f"bucket {name}: directory buckets list in no order, so they can't be swept",
                remedy="keep data with a term in a general purpose bucket",
            )
        try:
            url = await self.client.generate_presigned_url("list_objects_v2", Params={"Bucket": name})
        except BotoCoreError as error:
            raise Blind(f"bucket {name}: {error}", remedy="check bucket, region and endpoint_url") from error
        parts = urlsplit(url)
        return Bucket(self, name, f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}")

    async def signer(self) -> Signer:
        """Signs with the credentials as they are now: those of a role are renewed before they expire.

        Raises Unsent where they can't be had.
        """
        try:
            frozen = await self._credentials.get_frozen_credentials()
        except (BotoCoreError, ClientError, aiohttp.ClientError, OSError, TimeoutError) as error:
            # What renews them answers over the network, and errors of botocore's name no secret.
            raise Unsent(f"S3: credentials can't be had: {error}", remedy="check the role, or give keys") from error
        return Signer(frozen, self.region)

    async def send(self, method: str, signed: Signed, body: bytes, *, answers: int = 3) -> Reply:
        """One attempt, given up after so many times `answer_seconds`; raises Unsent or Unanswered, nothing else."""
        assert self._http is not None, "the endpoint is not open"
        self.requests += 1
        seconds, began = self.access.answer_seconds, time.monotonic()
        timeout = aiohttp.ClientTimeout(
            total=answers * seconds, sock_connect=self.access.connect_seconds, sock_read=seconds
        )
        # aiohttp writes bytes in one go, and a file in pieces.
        data = BytesIO(body) if len(body) > _IN_PIECES else body or None
        try:
            async with self._http.request(
                method,
                URL(signed.url, encoded=True),
                headers=signed.headers,
                data=data,
                allow_redirects=False,
                timeout=timeout,
            ) as response:
                content = await response.read()
                self.clock.observe(response.headers.get("Date"), began, time.monotonic())
                return Reply(response.status, {k.lower(): v for k, v in response.headers.items()}, content)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL) as error:
            # Nothing of a request goes out before there is a connection.
            raise Unsent(f"S3 at {_host(signed.url)}: {_why(error)}", remedy=self.remedy(signed.url)) from error
        except (aiohttp.ClientError, OSError, TimeoutError, ssl.SSLError) as error:
            raise Unanswered(
                f"S3 at {_host(signed.url)}: no whole answer to a request: {_why(error)}",
                remedy="check the network and the endpoint",
            ) from error

    def remedy(self, url: str) -> str:
        """What may help where no connection to that address can be made."""
        given = self.access.endpoint_url
        if given is None or _host(given) == _host(url):
            return "check endpoint_url and the network"
        return f"set addressing to path where only {_host(given)} is a known name; or check endpoint_url, network"

    async def _open(self) -> None:
        access = self.access
        try:
            self._credentials = await credentials_of(
                self._session, "S3", access.access_key_id, access.secret_access_key, access.session_token
            )
            self.client = await self._exit.enter_async_context(
                self._session.create_client(
                    "s3",
                    region_name=access.region or self._session.get_config_variable("region") or "us-east-1",
                    endpoint_url=access.endpoint_url,
                    aws_access_key_id=access.access_key_id,
                    aws_secret_access_key=access.secret_access_key,
                    aws_session_token=access.session_token,
                    config=_config(access),
                )
            )
        except (BotoCoreError, ValueError) as error:
            raise _unusable(error) from error
        self.region = self.client.meta.region_name
        ca_bundle = self._session.get_config_variable("ca_bundle")
        self._http = await self._exit.enter_async_context(
            session(
                self.client.meta.endpoint_url,
                answer_seconds=access.answer_seconds,
                connections=access.connections,
                ca_bundle=ca_bundle,
            )
        )


@dataclass(frozen=True, slots=True)
class Bucket:
    """One bucket at its address (scheme, host, and the path where it is named there)."""

    endpoint: Endpoint
    name: str
    address: str

    def url(self, key: str = "") -> str:
        """The address of an object; every byte of the key is as it was given."""
        return f"{self.address}/{encoded(key, safe='/')}"

    async def ask(
        self,
        method: str,
        key: str = "",
        query: Query = (),
        headers: Mapping[str, str] = _NO_HEADERS,
        body: bytes = b"",
    ) -> Reply:
        """Send what destroys nothing, again where the server is busy or the network fails; signed as of now."""
        tries = self.endpoint.access.tries
        for attempt in range(1, tries + 1):
            signer = await self.endpoint.signer()
            signed = signer.by_header(method, self.url(key), query, headers, body, _now(self.endpoint.clock))
            try:
                reply = await self.endpoint.send(method, signed, body)
            except (Unsent, Unanswered):
                if attempt == tries:
                    raise
            else:
                trouble = reply.trouble
                if trouble is None or attempt == tries:
                    return reply
                # Its Date has told by now what its clock says, and so by what clock to sign.
                if not (trouble.throttled or trouble.broken or trouble.code == TOO_SKEWED):
                    return reply
            await asyncio.sleep(0.2 * 2**attempt)
        raise AssertionError("the last try returns or raises")

    async def destroy(
        self, fence: Fence, expiry: Expiry, method: str, key: str, query: Query, headers: Mapping[str, str], body: bytes
    ) -> Reply:
        """Send, once, what the server is to refuse after the expiry; raises Unsent or Unanswered.

        A server may wait a minute for the rest of a body, and each byte makes it wait anew: so all of it has two
        answers' time, which is less than `holds.late_effect_grace` also where this process is stopped in the middle.
        """
        if expiry.spent:
            raise Unsent(
                f"bucket {self.name}: a request has no time left", remedy="nothing to do: it is asked for again"
            )
        signer = await self.endpoint.signer()
        signed = signer.until(fence, method, self.url(key), query, headers, body, expiry)
        return await self.endpoint.send(method, signed, body, answers=2)

    async def call(
        self, operation: str, asked: str, right: str, *, nothing: Collection[str] = (), **given: Any
    ) -> dict[str, Any] | None:
        """What is rare, by botocore's client: an operation's answer, parsed; None for codes that mean there is nothing.

        Raises as `require` does.
        """
        try:
            found: dict[str, Any] = await getattr(self.endpoint.client, operation)(Bucket=self.name, **given)
        except ClientError as error:
            said, about = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
            trouble = Trouble(int(about.get("HTTPStatusCode", 0)), str(said.get("Code", "Unknown")))
            if trouble.code in nothing:
                return None
            raise error_of(trouble, self.name, asked, right) from error
        except (BotoCoreError, aiohttp.ClientError, OSError, TimeoutError) as error:
            raise Unreachable(
                f"S3 at {_host(self.address)}: {_why(error)}", remedy=self.endpoint.remedy(self.address)
            ) from error
        return found

    def require(self, reply: Reply, asked: str, right: str) -> Reply:
        """The reply, if it is what was asked for; raises our error with what is missing where not."""
        if (trouble := reply.trouble) is not None:
            raise error_of(trouble, self.name, asked, right)
        return reply


def _config(access: Access) -> AioConfig:
    return AioConfig(
        connect_timeout=access.connect_seconds,
        read_timeout=access.answer_seconds,
        proxies={} if access.endpoint_url is not None and is_here(access.endpoint_url) else None,
        retries={"total_max_attempts": 3, "mode": "standard"},
        s3={"addressing_style": access.addressing},
        # Other servers than AWS know none of the newer checksums.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )


def _now(clock: ServerClock) -> datetime:
    return clock.latest() if clock.known else datetime.now(UTC)


def _unusable(error: Exception) -> Unreachable:
    return Unreachable(f"S3: {error}", remedy="check endpoint_url, region and the AWS configuration")


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _why(error: BaseException) -> str:
    """What the network said, without the address, which holds a key and a signature."""
    # botocore wraps what the network said, and the network's client what the system did.
    error = getattr(error, "kwargs", {}).get("error") or error
    inner = getattr(error, "os_error", None)
    if isinstance(inner, OSError) and inner.strerror:
        return inner.strerror
    return type(error).__name__
