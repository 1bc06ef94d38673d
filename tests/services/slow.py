"""A slow network: a TCP proxy that lets everything pass, each way so many seconds later, in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit


@asynccontextmanager
async def slow(dsn: str, seconds: float) -> AsyncIterator[str]:
    """A DSN that leads to the same database by a way that takes so long in each direction."""
    parts = urlsplit(dsn)
    running: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                at, data = await queue.get()
                await asyncio.sleep(max(at - loop.time(), 0))
                if not data:
                    writer.close()
                    return
                writer.write(data)

        delivering = asyncio.create_task(deliver())
        try:
            with suppress(ConnectionError):
                while data := await reader.read(65536):
                    queue.put_nowait((loop.time() + seconds, data))
            queue.put_nowait((loop.time() + seconds, b""))
            await delivering
        finally:
            delivering.cancel()
            writer.transport.abort()

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection(parts.hostname, parts.port)
        for way in (pass_on(reader, up_writer), pass_on(up_reader, writer)):
            task = asyncio.create_task(way)
            running.add(task)
            task.add_done_callback(running.discard)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        port = server.sockets[0].getsockname()[1]
        yield urlunsplit(parts._replace(netloc=f"{parts.username}@127.0.0.1:{port}"))
    finally:
        server.close()
        for task in list(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
