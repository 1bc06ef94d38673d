"""What `check` finds of how HTTP is served, and by whom it may be used."""

from __future__ import annotations

from collections.abc import Iterator

from retentiond.daemon_http import is_exposed, tls_of
from retentiond.errors import UsageError
from retentiond.settings import Settings
from retentiond.stores.base import Finding

_SUBJECT = "http"


def findings(settings: Settings) -> Iterator[Finding]:
    """A certificate that can't be used, tokens that can be read on the way, two people who are fewer."""
    http = settings.http
    tls = tls_of(http)
    if tls is not None:
        try:
            tls.context()
        except UsageError as error:
            yield Finding("error", _SUBJECT, error.message, error.remedy or "")
    if is_exposed(http):
        yield Finding(
            "warning",
            _SUBJECT,
            f"bound to {http.host}, tokens go over the network unencrypted",
            "set http.tls, or put a proxy with TLS in front and name it in http.trusted_proxies",
        )
    able = sorted(name for name, token in http.tokens.items() if token.role in ("counsel", "admin"))
    if settings.holds.two_person and len(able) < 2:
        yield Finding(
            "warning",
            _SUBJECT,
            f"holds.two_person: no hold can be released, since {len(able)} of the two people have a token",
            "retentiond token new NAME --role counsel",
        )
