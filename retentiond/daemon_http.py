"""HTTP as the daemon serves it: from the settings to a site, on a pool of connections of its own.

The sweeps' pool is theirs alone: however much is asked of the API, no batch waits for a connection because of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network

import structlog

from retentiond.api.access import Access, Token
from retentiond.api.app import make_app
from retentiond.api.connections import Connections, room_for
from retentiond.api.exposition import Exposition
from retentiond.api.health import Health
from retentiond.api.pulse import Pulse
from retentiond.api.server import Tls, serve
from retentiond.api.site import Site
from retentiond.daemon import App
from retentiond.daemon_ready import checks
from retentiond.daemon_watch import Watch
from retentiond.desk.base import Desk
from retentiond.settings.models import Http

log = structlog.get_logger()
_CONNECTIONS = 4


@asynccontextmanager
async def serving(app: App, watch: Watch, nudge: Callable[[], None]) -> AsyncIterator[str]:
    """Serve until left; gives the address. `nudge` lets the daemon look at the control database now."""
    given = app.settings.http
    database = await app.database.another(application_name="retentiond api", size=_CONNECTIONS)
    try:
        desk = Desk(app.rules, database, app.journal, app.engine, app.texts_key, app.document, app.native, app.asked)
        site = Site(
            desk,
            Health(checks(app, watch)),
            Access(tuple(Token(name, each.role, each.sha256) for name, each in given.tokens.items())),
            trusted=tuple(map(ip_network, given.trusted_proxies)),
            nudge=nudge,
        )
        pulse, connections = Pulse(), Connections(room_for(given.max_connections))
        web = make_app(site, Exposition(watch.metrics.exposition, watch.metrics.kind), pulse, connections)
        if is_exposed(given):
            log.warning(
                "tokens go over the network unencrypted",
                remedy="set http.tls, or put a proxy with TLS in front and name it in http.trusted_proxies",
            )
        async with pulse.beating(), serve(web, given.host, given.port, connections, tls_of(given)) as address:
            yield address
    finally:
        await database.close()


def tls_of(given: Http) -> Tls | None:
    """The certificate that it is served by."""
    return Tls(given.tls.certificate, given.tls.key) if given.tls is not None else None


def is_exposed(given: Http) -> bool:
    """Whether tokens can be read by anybody on their way."""
    return bool(given.tokens) and given.tls is None and not given.trusted_proxies and not _is_loopback(given.host)


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
