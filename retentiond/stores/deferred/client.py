"""HTTP to a server of log records: each request that erases is sent once, each question again where that may help.

aiohttp repeats a request whose connection broke; of one that erases that would be wrong, so it is switched off.
Questions are asked again by stamina, as elsewhere. The Date of answers tells the server's clock.
"""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

import aiohttp
import orjson
import stamina

from retentiond.domain.clock import ClockReading
from retentiond.errors import Strained, Unreachable
from retentiond.stores.deferred.config import HttpAccess

_TRIES: Final = 4
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_LARGEST: Final = 64 * 1024 * 1024
_TICK: Final = timedelta(seconds=1)


class Overloaded(Unreachable):
    """The server has too much to do."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said: `body` is its JSON, or a text where it is none."""

    status: int
    body: Any

    @property
    def ok(self) -> bool:
        """Whether it did what it was asked."""
        return 200 <= self.status < 300

    def require_time_for_it(self, what: str) -> None:
        """Raise Strained where the server said that it has too much to do, and so did not do it."""
        if self.status == 429:
            raise Strained(f"{what} has too much to do for a deletion (429)", remedy="nothing to do: it is asked again")

    @property
    def document(self) -> dict[str, Any]:
        """Its JSON object; raises Unreachable where it is none."""
        if not isinstance(self.body, dict):
            raise Unreachable(f"the server answered {self.status}, and no JSON object")
        return self.body


class Client:
    """A server; `what` names it in errors."""

    def __init__(self, access: HttpAccess, what: str, *, headers: Mapping[str, str], seconds: float) -> None:
        self._access, self._what, self._seconds = access, what, seconds
        self._headers = {"User-Agent": "retentiond", **headers, **_login(access)}
        self._session: aiohttp.ClientSession | None = None
        self._clock: tuple[datetime, float, float] | None = None

    async def close(self) -> None:
        """Give up all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def ask(self, method: str, path: str, **named: Any) -> Answer:
        """A question, or what may be done twice: asked again while the server is busy; raises Unreachable."""
        async for attempt in stamina.retry_context(
            on=Unreachable, attempts=_TRIES, wait_initial=0.1, wait_max=2.0, timeout=self._seconds * 2
        ):
            with attempt:
                answer = await self.once(method, path, **named)
                if answer.status in _AGAIN:
                    raise Overloaded(f"{self._what} answers {answer.status}", remedy="see its own log")
                return answer
        raise AssertionError("unreachable: the last attempt returns or raises")

    async def once(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """One request, sent once; raises Unreachable where no whole answer came: it may have been carried out."""
        sent = time.monotonic()
        more = {"Content-Type": "application/json"} if json is not None else {}
        data: Any = orjson.dumps(json) if json is not None else dict(form) if form is not None else None
        try:
            async with self._open().request(
                method,
                self._access.url + path,
                params=dict(params or {}),
                data=data,
                headers={**more, **(headers or {})},
                allow_redirects=False,
            ) as answer:
                body = bytearray()
                async for chunk in answer.content.iter_any():
                    body += chunk
                    if len(body) > _LARGEST:
                        raise Unreachable(f"{self._what} answers more than {_LARGEST} bytes")
                self._heard(answer.headers.get("Date"), sent)
                return Answer(answer.status, _parsed(body))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(
                f"{self._what} does not answer: {type(error).__name__}", remedy="see whether its address is right"
            ) from error

    async def clock(self, path: str) -> ClockReading:
        """The server's clock, by an answer to a question that costs nothing; raises Unreachable."""
        if self._clock is None or time.monotonic() - self._clock[2] > 1.0:
            await self.ask("GET", path)
        if self._clock is None:
            raise Unreachable(
                f"the answers of {self._what} have no Date, so its clock is not known",
                remedy="make the proxy in front of it pass the Date header on",
            )
        said, sent, received = self._clock
        host = datetime.now(UTC)
        # When it was received it was `said` at the earliest, and a tick later at the latest when it was sent.
        low = said + timedelta(seconds=time.monotonic() - received)
        high = said + _TICK + timedelta(seconds=time.monotonic() - sent)
        now = host if low <= host <= high else low if host < low else high
        return ClockReading(now=now, host=host, same_machine=False)

    def _heard(self, date: str | None, sent: float) -> None:
        if date is None:
            return
        try:
            said = parsedate_to_datetime(date)
        except ValueError:
            return
        self._clock = (said if said.tzinfo else said.replace(tzinfo=UTC), sent, time.monotonic())

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = ssl.create_default_context(cafile=self._access.ca_file) if self._access.ca_file else True
            self._session = aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=self._seconds),
                connector=aiohttp.TCPConnector(ssl=context, limit=16),
                headers=self._headers,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
            # A deletion whose connection breaks would be sent a second time, and only one of the two be accounted for.
            self._session._retry_connection = False  # noqa: SLF001 - there is no other way to say so
        return self._session


def _login(access: HttpAccess) -> dict[str, str]:
    if access.token is not None:
        return {"Authorization": f"Bearer {access.token.get_secret_value()}"}
    if access.api_key is not None:
        return {"Authorization": f"ApiKey {access.api_key.get_secret_value()}"}
    if access.username is not None and access.password is not None:
        return {
            "Authorization": aiohttp.BasicAuth(access.username, access.password.get_secret_value(), "utf-8").encode()
        }
    return {}


def _parsed(body: bytearray) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return body.decode("utf-8", "replace")
