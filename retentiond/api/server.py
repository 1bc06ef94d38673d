"""The listening socket: bound address, TLS by certificate files that may be renewed meanwhile, connections."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from retentiond.api.connections import Connections
from retentiond.beside import beside
from retentiond.errors import UsageError

log = structlog.get_logger()
_CLOSE_SECONDS = 2.0
_RELOAD_SECONDS = 60.0
_BACKLOG = 128
_KEPT_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a certificate with its chain, and of its key; PEM."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """What connections are encrypted by; raises UsageError for files that can't be used."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        self.load(context)
        return context

    def load(self, context: ssl.SSLContext) -> None:
        """Read the files (again)."""
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            # An SSLError is an OSError whose text tells of its own place in C.
            told = error.reason or "no PEM" if isinstance(error, ssl.SSLError) else error.strerror
            raise UsageError(
                f"the certificate {self.certificate} with the key {self.key} can't be used: {told}",
                remedy="let http.tls.certificate and http.tls.key name PEM files that belong together and can be read",
            ) from error

    def stamp(self) -> tuple[int, ...]:
        """What changes when the files do."""
        return tuple(each.stat().st_mtime_ns for each in (self.certificate, self.key))


@asynccontextmanager
async def serve(
    app: web.Application, host: str, port: int, connections: Connections, tls: Tls | None = None
) -> AsyncIterator[str]:
    """Serve until left; gives the address. Raises UsageError when it can't be bound, or has no certificate."""
    context = tls.context() if tls is not None else None
    runner = web.AppRunner(
        app, access_log=None, shutdown_timeout=_CLOSE_SECONDS, keepalive_timeout=_KEPT_SECONDS, logger=_logger()
    )
    await runner.setup()
    assert runner.server is not None
    try:
        server = await _listening(connections.protocol_of(runner.server), host, port, context)
        async with beside(connections.close_idle()), beside(_renewed(tls, context)):
            bound = server.sockets[0].getsockname()
            shown = f"[{bound[0]}]" if ":" in bound[0] else bound[0]
            try:
                yield f"{'https' if tls else 'http'}://{shown}:{bound[1]}"
            finally:
                server.close()
    finally:
        await runner.cleanup()


def _logger() -> logging.Logger:
    """What aiohttp says of connections, but for those that speak no HTTP: anybody may send anything."""
    logger = logging.getLogger("retentiond.http")
    logger.addFilter(_is_no_bad_message)
    return logger


def _is_no_bad_message(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


async def _listening(
    make: Callable[[], asyncio.Protocol], host: str, port: int, context: ssl.SSLContext | None
) -> asyncio.Server:
    try:
        return await asyncio.get_running_loop().create_server(
            make, host, port, ssl=context, backlog=_BACKLOG, reuse_address=True
        )
    except OSError as error:
        raise UsageError(
            f"HTTP can't be served on {host}:{port}: {error.strerror}",
            remedy="set RETENTIOND_HTTP__PORT to a free port (0 chooses one)",
        ) from error


async def _renewed(tls: Tls | None, context: ssl.SSLContext | None) -> None:
    """Read the files again when they change, for ever; new connections have the new certificate."""
    if tls is None or context is None:
        return
    known = tls.stamp()
    while True:
        await asyncio.sleep(_RELOAD_SECONDS)
        try:
            stamp = tls.stamp()
            if stamp != known:
                tls.load(context)
                known = stamp
                log.info("certificate renewed")
        except (OSError, UsageError) as error:
            log.warning("the certificate is kept as it was", message=str(error))
