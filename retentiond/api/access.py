"""Who may do what: bearer tokens and sessions, the roles, and how many wrong tokens an address may try.

A token is compared by its SHA-256 with each that is configured, all of them, in constant time; it is in no log and no
answer. An address that failed too often is refused without a look at what it brings, but not who was right from there
before: somebody behind the same proxy must not be able to lock counsel out.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import structlog

from retentiond.api.clients import Client
from retentiond.api.problems import Refusal

log = structlog.get_logger()
Role = Literal["viewer", "operator", "counsel", "privacy", "admin"]
Needs = Literal["viewer", "operator", "counsel", "privacy"]
REMEDY = (
    "run `retentiond token new NAME --role ROLE`, configure what it prints as http.tokens.NAME "
    "(RETENTIOND_HTTP__TOKENS), restart, and send `Authorization: Bearer TOKEN`"
)
_BURST, _REFILL_SECONDS = 20, 1.0
_ADDRESSES = 4_096
_REALM = {"WWW-Authenticate": 'Bearer realm="retentiond"'}


@dataclass(frozen=True, slots=True)
class Token:
    """A configured token: whose it is, what it may, and its SHA-256 in lower-case hex."""

    name: str
    role: Role
    sha256: str

    def may(self, needs: Needs) -> bool:
        """Whether the role covers it; everybody with a token may read."""
        return needs == "viewer" or self.role in (needs, "admin")


@dataclass(slots=True)
class Failures:
    """Wrong tokens by address: a burst of 20, then one a second; the addresses heard of last are remembered."""

    clock: Callable[[], float] = time.monotonic
    _spent: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)
    _right: OrderedDict[tuple[str, str], None] = field(default_factory=OrderedDict)

    def refused(self, client: str) -> float:
        """For how many seconds the address is refused from now on; 0: it is not."""
        spent = self._now(client)
        return (spent - _BURST + 1) * _REFILL_SECONDS if spent > _BURST - 1 else 0.0

    def failed(self, client: str) -> None:
        """Count one, and say so in the log when it is the last that is let through."""
        spent = self._now(client) + 1
        self._spent[client] = (spent, self.clock())
        self._spent.move_to_end(client)
        if len(self._spent) > _ADDRESSES:
            self._spent.popitem(last=False)
        if spent > _BURST - 1 >= spent - 1:
            log.warning("too many wrong tokens", client=client)

    def was_right(self, client: str, sha256: str) -> bool:
        """Whether that token came from there before and was right."""
        return (client, sha256) in self._right

    def right(self, client: str, sha256: str) -> None:
        """Remember it."""
        self._right[client, sha256] = None
        self._right.move_to_end((client, sha256))
        if len(self._right) > _ADDRESSES:
            self._right.popitem(last=False)

    def _now(self, client: str) -> float:
        spent, at = self._spent.get(client, (0.0, 0.0))
        return max(spent - (self.clock() - at) / _REFILL_SECONDS, 0.0)


@dataclass(frozen=True, slots=True)
class Access:
    """The configured tokens, and what was tried."""

    tokens: tuple[Token, ...] = ()
    failures: Failures = field(default_factory=Failures)

    def by_token(self, presented: str, client: Client) -> Token:
        """Whose token it is; raises Refusal 401, or 429 where the address failed too often."""
        digest = hashlib.sha256(presented.encode("utf-8", "surrogateescape")).hexdigest()
        seconds = self.failures.refused(client.key)
        if seconds and not self.failures.was_right(client.key, digest):
            raise Refusal(
                429,
                "too many wrong tokens came from this address",
                remedy="wait, and send the right one",
                headers={"Retry-After": str(int(seconds) + 1)},
            )
        found: Token | None = None
        for token in self.tokens:
            if hmac.compare_digest(token.sha256, digest):
                found = token
        if found is None:
            self.failures.failed(client.key)
            raise Refusal(401, "the token is not one that is configured here", remedy=REMEDY, headers=_REALM)
        self.failures.right(client.key, digest)
        return found

    def standing(self, name: str, sha256: str) -> Token | None:
        """The token of that name, if it still is the one that a session was opened with."""
        return next((token for token in self.tokens if token.name == name and token.sha256 == sha256), None)

    def require(self, token: Token | None, needs: Needs, client: Client, *, changes: bool) -> None:
        """Raise Refusal where that may not be done: `token` is None where none came along."""
        if token is not None:
            if not token.may(needs):
                raise Refusal(
                    403,
                    f"the role {token.role} of {token.name} may not do this: it takes {needs} or admin",
                    remedy="let somebody of that role do it",
                )
        elif self.tokens:
            raise Refusal(401, "this takes a token", remedy=REMEDY, headers=_REALM)
        elif changes:
            raise Refusal(403, "no token is configured, so that nothing can be changed through the API", remedy=REMEDY)
        elif not client.local:
            raise Refusal(
                403, "no token is configured, so that only this host itself is answered, directly", remedy=REMEDY
            )
