"""Clients that are slow, or do nothing at all: each is let go of, and none of them costs anybody else anything."""

import asyncio
import os
import shutil
import ssl

from aiohttp import web

from retentiond.api import resources, server
from retentiond.api.connections import Connections
from retentiond.api.server import Tls, serve
from tests.services.api import TOKENS
from tests.services.certificates import certificate
from tests.services.daemon import until


async def hello(_):
    return web.Response(text="hello")


async def served(connections):
    app = web.Application(middlewares=[connections.busy])
    app.router.add_get("/", hello)
    return serve(app, "127.0.0.1", 0, connections)


async def dial(address):
    host, port = address.removeprefix("http://").split(":")
    return await asyncio.open_connection(host, int(port))


async def test_a_connection_that_never_finishes_its_request_is_closed():
    connections = Connections(100, idle_seconds=0.05, look_seconds=0.02)
    async with await served(connections) as address:
        for begun in (b"", b"GET / HTTP/1.1\r\nX-Slow: 1", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"):
            reader, writer = await dial(address)
            writer.write(begun)
            said = await asyncio.wait_for(reader.read(), 20)
            assert (b"hello" in said) is begun.endswith(b"\r\n\r\n")
            writer.close()


async def test_one_connection_too_many_is_told_so_and_room_is_made_when_one_goes():
    connections = Connections(2)
    async with await served(connections) as address:
        kept = [await dial(address) for _ in range(2)]
        for _, writer in kept:
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for reader, _ in kept:
            assert b"200 OK" in await reader.readline()
        reader, writer = await dial(address)
        said = await asyncio.wait_for(reader.read(), 20)
        assert said.startswith(b"HTTP/1.1 503 ")
        writer.close()
        kept[0][1].close()
        async with asyncio.timeout(20):
            while True:
                reader, writer = await dial(address)
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                if b"200 OK" in await reader.readline():
                    break
                writer.close()
                await asyncio.sleep(0.02)
        for _, each in (*kept, (reader, writer)):
            each.close()


async def test_a_body_that_trickles_is_not_waited_for(api, monkeypatch):
    monkeypatch.setattr(resources, "_BODY_SECONDS", 0.1)
    reader, writer = await dial(str(api.http._base_url).rstrip("/"))
    head = f"POST /api/v1/pause HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKENS['ada']}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
    said = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"application/problem+json" in said
    writer.close()
    assert not (await api.get("status"))["paused"]


async def test_what_speaks_no_http_is_refused_and_makes_no_noise(api, capsys):
    for sent in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GARBAGE\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"):
        reader, writer = await dial(str(api.http._base_url).rstrip("/"))
        writer.write(sent)
        writer.write_eof()
        assert b" 200 " not in await asyncio.wait_for(reader.read(), 60)
        writer.close()
    assert '"level": "error"' not in capsys.readouterr().err


async def test_a_certificate_that_was_renewed_is_shown_to_who_comes_then(tmp_path, monkeypatch):
    monkeypatch.setattr(server, "_RELOAD_SECONDS", 0.02)
    files, newer = certificate(tmp_path, "127.0.0.1"), certificate(tmp_path / "newer", "127.0.0.1")
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    app = web.Application()
    app.router.add_get("/", hello)

    async def shown(address):
        host, port = address.removeprefix("https://").split(":")
        _, writer = await asyncio.open_connection(host, int(port), ssl=trust)
        found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.close()
        await writer.wait_closed()
        return ssl.DER_cert_to_PEM_cert(found).encode()

    old, new = files.certificate.read_bytes(), newer.certificate.read_bytes()
    async with serve(app, "127.0.0.1", 0, Connections(10), Tls(files.certificate, files.key)) as address:
        assert await shown(address) == old
        files.key.write_text("half written")  # it is kept as it was until both fit
        await asyncio.sleep(0.1)
        assert await shown(address) == old
        shutil.copy(newer.certificate, files.certificate)
        shutil.copy(newer.key, files.key)
        os.utime(files.key)

        async def renewed():
            return await shown(address) == new

        await until(renewed)
