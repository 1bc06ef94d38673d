"""Answers of others than the server that was asked: a redirect, and what comes on a connection before anything is asked."""

import asyncio
import socket
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest

from retentiond.control.activation import LATE_EFFECT_GRACE_SECONDS
from retentiond.stores.clock import Expiry
from retentiond.stores.s3.deleting import delete
from retentiond.stores.s3.endpoint import Access, Endpoint
from retentiond.stores.s3.items import Doomed, How
from retentiond.stores.s3.signing import Fence

DELETED = b"<DeleteResult></DeleteResult>"


class Wire:
    """A server that says what it is told to; `asked` has the connection and method of each request."""

    def __init__(self):
        self.asked = []
        self.answers = []
        self.strays = []
        self.working = set()
        self.idle = asyncio.Event()
        self.idle.set()

    async def serve(self, reader, writer):
        self.working.add(asyncio.current_task())
        try:
            await self.answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    async def answer(self, reader, writer):
        name = writer.get_extra_info("peername")
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            for line in head.lower().split(b"\r\n"):
                if line.startswith(b"content-length:"):
                    await reader.readexactly(int(line.split(b":")[1]))
            self.asked.append((name, head.split(b" ", 1)[0].decode()))
            answer = self.answers.pop(0) if self.answers else ("200 OK", b"", "")
            if answer is None:
                continue
            writer.write(said(*answer))
            await writer.drain()
            if self.strays:
                self.idle.clear()
                await asyncio.sleep(0.1)
                writer.write(said(*self.strays.pop(0)))
                await writer.drain()
                await asyncio.sleep(0.1)
                self.idle.set()


def said(status, body, more=""):
    date = format_datetime(datetime.now(UTC), usegmt=True)
    head = f"HTTP/1.1 {status}\r\nDate: {date}\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


@asynccontextmanager
async def wired():
    wire = Wire()
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    endpoint = await Endpoint.open(Access(url, "us-east-1", "k", "s", addressing="path", answer_seconds=1))
    try:
        bucket = await endpoint.locate("b")
        await bucket.ask("GET")
        yield wire, bucket
    finally:
        await endpoint.close()
        server.close()
        await asyncio.gather(*wire.working)


async def erase(bucket):
    now = bucket.endpoint.clock.earliest()
    items = [Doomed("k", "v1")]
    return await delete(bucket, items, expiry=Expiry(now, now + timedelta(seconds=28)), how=How(Fence.QUERY, False))


async def test_what_came_on_an_idle_connection_answers_no_request():
    """The request that is sent then is on its way, and has no answer: its permit must not end."""
    async with wired() as (wire, bucket):
        wire.strays.append(("200 OK", DELETED))
        await bucket.ask("GET")
        await asyncio.sleep(0)
        await asyncio.sleep(0.3)
        await wire.idle.wait()
        wire.answers = [None]
        done = await erase(bucket)
        (first, _), (second, method) = wire.asked[-2:]
        assert (done.outcomes[0].outcome, done.unanswered) == ("unknown", 1)
        assert (first != second, method) == (True, "POST"), "another connection is used"


@pytest.mark.parametrize("status", ["408 Request Timeout", "502 Bad Gateway", "503 Service Unavailable", "504 Late"])
async def test_what_a_gateway_says_by_itself_is_no_answer_of_the_server(status, monkeypatch):
    monkeypatch.setattr("retentiond.stores.s3.deleting._TRIES", 2)
    async with wired() as (wire, bucket):
        wire.answers = [(status, b"<html>gateway</html>"), ("200 OK", DELETED)]
        done = await erase(bucket)
        assert (done.outcomes[0].outcome, done.unanswered, len(wire.asked)) == ("unknown", 1, 3)


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"])
async def test_a_redirect_is_not_followed(status):
    """Another server would be asked by its own clock, and by a name that was not signed."""
    async with wired() as (wire, bucket), wired() as (other, elsewhere):
        before = len(other.asked)
        wire.answers = [(status, b"", f"Location: {elsewhere.address}/?delete\r\n")]
        done = await erase(bucket)
        assert (done.outcomes[0].outcome, done.unanswered) == ("failed", 0)
        assert len(other.asked) == before


async def test_a_deletion_is_given_up_well_before_the_grace_of_its_permit_also_where_each_byte_is_in_time(monkeypatch):
    """Of its 120 s Ceph may wait 65 for a byte."""
    async with wired() as (_, bucket):
        given, whole = [], bucket.endpoint._http.request
        monkeypatch.setattr(
            bucket.endpoint._http,
            "request",
            lambda *args, **named: given.append(named["timeout"]) or whole(*args, **named),
        )
        await erase(bucket)
        (timeout,) = given
        seconds = Access().answer_seconds
        assert timeout.total == 2 * bucket.endpoint.access.answer_seconds
        assert 2 * seconds + 65 < LATE_EFFECT_GRACE_SECONDS


async def test_the_kernel_gives_up_a_body_that_the_server_does_not_take():
    async with wired() as (_, bucket):
        (idle,) = [protocol for held in bucket.endpoint._http.connector._conns.values() for protocol, _ in held]
        kept = idle.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
        assert kept == 1000


async def test_a_deletion_that_was_accepted_for_later_is_not_done():
    async with wired() as (wire, bucket):
        wire.answers = [("202 Accepted", DELETED)]
        done = await erase(bucket)
        assert (done.outcomes[0].outcome, done.unanswered) == ("unknown", 1)
