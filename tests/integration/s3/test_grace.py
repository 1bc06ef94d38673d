"""What `holds.late_effect_grace` rests on: how long a server waits for the rest of a request that it let in in time."""

import asyncio
from contextlib import suppress
from datetime import timedelta
from urllib.parse import urlsplit

import pytest

from retentiond.stores.clock import Expiry
from retentiond.stores.s3 import listing
from retentiond.stores.s3.bodies import body_of, checksum
from retentiond.stores.s3.signing import Fence


async def begun(bucket, key, seconds):
    """A deletion whose headers and first bytes are sent, good for so long; its connection, and what is to come."""
    await bucket.ask("HEAD")
    (item,) = [each for each in (await listing.objects(bucket)).items() if each.key == key]
    body = body_of([item], conditional=False)
    now = bucket.endpoint.clock.earliest()
    signed = (await bucket.endpoint.signer()).until(
        Fence.QUERY,
        "POST",
        bucket.url(),
        [("delete", "")],
        {"Content-Type": "application/xml", **checksum(body, "md5")},
        body,
        Expiry(now, now + timedelta(seconds=seconds)),
    )
    url = urlsplit(signed.url)
    lines = [f"POST {url.path}?{url.query} HTTP/1.1", f"Host: {url.netloc}", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in signed.headers.items()]
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write("\r\n".join([*lines, "", ""]).encode() + body[:20])
    await writer.drain()
    return reader, writer, body[20:]


@pytest.mark.system
@pytest.mark.late
@pytest.mark.parametrize(("stalled", "gone"), [(20, True), (80, False)])
async def test_a_server_waits_for_a_stalled_body_past_the_expiry_but_not_for_the_whole_grace(
    ceph_server, stalled, gone
):
    async with ceph_server.bucket() as ground:
        await ground.put("k")
        reader, writer, rest = await begun(ground.bucket, "k", 8)
        await asyncio.sleep(stalled)
        with suppress(ConnectionError):
            writer.write(rest)
            await writer.drain()
            await reader.read(400)
        writer.close()
        assert (await ground.keys() == []) is gone
