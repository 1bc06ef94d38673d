"""A daemon with tokens of each role, and calls of its API as each of them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from tests.services.daemon import Daemon, running

ROLES = {"vera": "viewer", "olga": "operator", "carl": "counsel", "cora": "counsel", "pia": "privacy", "ada": "admin"}
TOKENS = {name: f"rtd_of_{name}" for name in ROLES}


def tokens(names: Mapping[str, str] = ROLES) -> dict[str, str]:
    """The environment that configures them."""
    found = {
        name: {"role": role, "sha256": hashlib.sha256(TOKENS[name].encode()).hexdigest()}
        for name, role in names.items()
    }
    return {"RETENTIOND_HTTP__TOKENS": json.dumps(found)}


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer: its status, headers and document."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def problem(self) -> Any:
        """The problem document that it is."""
        assert self.headers["Content-Type"] == "application/problem+json", self.body
        found = self.json
        assert found["status"] == self.status
        assert found["title"]
        assert found["detail"]
        return found


@dataclass(frozen=True, slots=True)
class Api:
    """An API that is served; `daemon` where it is one of a process of its own."""

    http: aiohttp.ClientSession
    daemon: Daemon | None = None
    app: Any = None

    async def call(
        self,
        method: str,
        path: str,
        by: str | None = "ada",
        *,
        json: Any = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
        **params: Any,
    ) -> Answered:
        """One call below /api/v1 under that name's token."""
        sent = dict(headers or {})
        if by is not None:
            sent["Authorization"] = f"Bearer {TOKENS.get(by, by)}"
        async with self.http.request(
            method, f"/api/v1/{path}", json=json, data=data, headers=sent, params=params or None
        ) as answer:
            return Answered(answer.status, answer.headers.copy(), await answer.read())

    async def get(self, path: str, by: str | None = "vera", **params: Any) -> Any:
        """The document at a path, which is there."""
        answer = await self.call("GET", path, by, **params)
        assert answer.status == 200, answer.body
        return answer.json

    async def post(self, path: str, by: str = "ada", key: str | None = None, **body: Any) -> Answered:
        """Post the body, under that idempotency key."""
        return await self.call("POST", path, by, json=body, headers={"Idempotency-Key": key} if key else None)

    async def post_session(self, token: str, headers: Mapping[str, str] | None = None) -> Answered:
        """Log in."""
        return await self.call("POST", "session", None, json={"token": token}, headers=headers)

    async def app_hold(self) -> str:
        """The id of a hold that was just placed, in whatever state."""
        return (await self.post("holds", "carl", matter="1", reason="r", accounts=["7"])).json["id"]

    async def ledger(self, *kinds: str) -> list[dict[str, Any]]:
        """All entries of these kinds."""
        found: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = await self.get("ledger", after=after, limit=1000, kind=list(kinds))
            found += page["entries"]
            after = page["next"]
        return found


@asynccontextmanager
async def serving(env: Mapping[str, str]) -> AsyncIterator[Api]:
    """A daemon that is ready, with all tokens."""
    async with running({**tokens(), **env}) as daemon:
        await daemon.until_ready()
        yield Api(daemon.http, daemon)
