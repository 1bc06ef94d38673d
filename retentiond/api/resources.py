"""From a request to a resource's function and back: who asks, parameters, body, idempotency key; ETag and JSON.

A resource is data: its method, path, models, and who may use it. OpenAPI is generated from the same (`openapi`).
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from retentiond.api.access import Needs
from retentiond.api.asked import Asked, Parameters
from retentiond.api.models import Answer, Fault
from retentiond.api.problems import Refusal
from retentiond.api.site import Call, Site
from retentiond.api.who import let_in
from retentiond.control.idempotency import Claim

PREFIX = "/api/v1"
KEY_HEADER = "Idempotency-Key"
MAX_BODY = 1 << 20
_BODY_SECONDS = 10.0
KEY = re.compile(r"[!-~]{1,255}")


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, its status and headers; `text` instead of a model where the client wants it plain.

    `body` is the answer as JSON, where that was made before.
    """

    answer: Answer | None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str | None = None
    body: bytes | None = None


M = TypeVar("M", bound=BaseModel)
Handler = Callable[[Site, Call], Awaitable[Reply]]


@dataclass(frozen=True, slots=True)
class Resource:
    """One method of one path. `answers` are the models by status; `plain`: it may be had as text as well."""

    method: str
    path: str
    handler: Handler
    summary: str
    answers: Mapping[int, type[Answer]]
    needs: Needs = "viewer"
    query: type[Parameters] | None = None
    body: type[Asked] | None = None
    plain: bool = False

    @property
    def changes(self) -> bool:
        """Whether it changes anything."""
        return self.method != "GET"


def add(app: web.Application, site: Site, resource: Resource) -> None:
    """Serve it."""

    async def handle(request: web.Request) -> web.StreamResponse:
        found = await let_in(site, request, resource.needs)
        query = _query(request, resource.query)
        body = await body_of(request, resource.body) if resource.body is not None else None
        name = found.token.name if found.token is not None else None
        claim = _claim(request, name, body) if resource.changes and name is not None else None
        path = {key: _path_part(value) for key, value in request.match_info.items()}
        call = Call(by=name, path=path, query=query, body=body, claim=claim)
        return _response(request, resource, await resource.handler(site, call))

    add_route = app.router.add_get if resource.method == "GET" else app.router.add_post
    add_route(PREFIX + resource.path, handle)


def wants_text(request: web.Request) -> bool:
    """Whether JSON is not what the client asks for by name."""
    return "application/json" not in request.headers.get("Accept", "")


def _response(request: web.Request, resource: Resource, reply: Reply) -> web.Response:
    headers = {"Cache-Control": "private, no-cache", **reply.headers}
    if resource.plain and reply.text is not None and wants_text(request):
        body, content_type = reply.text.encode(), "text/plain"
    else:
        body, content_type = reply.body or encode(reply.answer), "application/json"
    if resource.plain:
        headers["Vary"] = "Accept"
    if request.method in ("GET", "HEAD") and reply.status == 200:
        tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
        headers["ETag"] = tag
        if _matches(request.headers.get("If-None-Match"), tag):
            return web.Response(status=304, headers=headers)
    return web.Response(body=body, status=reply.status, content_type=content_type, headers=headers)


def encode(answer: Answer | None) -> bytes:
    """An answer as JSON, with the fields that it was made with."""
    document = None if answer is None else answer.model_dump(by_alias=True, exclude_unset=True)
    return orjson.dumps(document)


def _matches(wanted: str | None, tag: str) -> bool:
    """`If-None-Match` compares weakly (RFC 9110, 13.1.2): a proxy that compresses may have made the tag weak."""
    if wanted is None:
        return False
    return wanted.strip() == "*" or tag in (each.strip().removeprefix("W/") for each in wanted.split(","))


def _path_part(text: str) -> str:
    if "\x00" in text or len(text) > 200:
        raise Refusal(404, "there is nothing of that id")
    return text


def _query(request: web.Request, model: type[Parameters] | None) -> Parameters | None:
    given = request.query
    fields = model.model_fields if model is not None else {}
    if unknown := sorted({name for name in given if name not in fields}):
        listed = ", ".join(fields) or "none"
        raise Refusal(
            422,
            f"unknown parameter: {', '.join(unknown)}",
            remedy=f"known: {listed}",
            errors=tuple(Fault(field=name, message="unknown parameter") for name in unknown),
        )
    if model is None:
        return None
    values: dict[str, Any] = {}
    for name, info in fields.items():
        if name not in given:
            continue
        found = given.getall(name)
        if getattr(info.annotation, "__origin__", None) is list:
            values[name] = found
        elif len(found) > 1:
            raise Refusal(422, f"{name} is given twice", errors=(Fault(field=name, message="given twice"),))
        else:
            values[name] = found[0]
    return _validated(model, values)


async def body_of(request: web.Request, model: type[Asked]) -> Asked:
    """The body as that model; an empty one has no field. Raises Refusal."""
    raw = await _read(request)
    if not raw:
        raw = b"{}"
    elif request.content_type != "application/json":
        raise Refusal(
            415,
            f"the body is {request.content_type}, not application/json",
            remedy="send JSON, with the header `Content-Type: application/json`",
        )
    found = _validated(model, raw)
    _require_once(raw)
    return found


async def _read(request: web.Request) -> bytes:
    """The body: not a byte of one that says it is too large, and no longer than ten seconds of one that trickles."""
    if (request.content_length or 0) > MAX_BODY:
        raise Refusal(
            413, f"the body has more than {MAX_BODY} bytes", headers={"Connection": "close"}, remedy="send less"
        )
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise Refusal(
            408, f"the body did not come within {_BODY_SECONDS:.0f} s", headers={"Connection": "close"}
        ) from None
    except web.HTTPRequestEntityTooLarge:
        raise Refusal(
            413, f"the body has more than {MAX_BODY} bytes", headers={"Connection": "close"}, remedy="send less"
        ) from None
    except (web.RequestPayloadError, ConnectionError):
        raise Refusal(400, "the body broke off, or is not encoded as its headers say") from None


def _validated(model: type[M], given: bytes | Mapping[str, Any]) -> M:
    try:
        return model.model_validate_json(given) if isinstance(given, bytes) else model.model_validate(given)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        faults = tuple(Fault(field=".".join(map(str, each["loc"])), message=each["msg"]) for each in found[:50])
        if any(each["type"] == "json_invalid" for each in found):
            raise Refusal(400, faults[0].message, remedy="send one JSON object") from None
        named = "; ".join(f"{each.field or 'the body'}: {each.message}" for each in faults[:5])
        raise Refusal(422, named, errors=faults, remedy="see /openapi.json for the fields") from None


def _require_once(raw: bytes) -> None:
    """Raise Refusal where a field stands twice: the last would silently win, and a hold would cover less than meant."""

    def pairs(items: list[tuple[str, object]]) -> None:
        names = [name for name, _ in items]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise Refusal(400, f"the field {twice!r} stands twice", errors=(Fault(field=twice, message="twice"),))

    json.loads(raw, object_pairs_hook=pairs)


def _claim(request: web.Request, principal: str, body: Asked | None) -> Claim | None:
    given = request.headers.getall(KEY_HEADER, [])
    if not given:
        return None
    key = given[0].strip()
    if len(given) > 1 or not KEY.fullmatch(key):
        raise Refusal(
            422,
            f"the header {KEY_HEADER} is not one key of 1 to 255 printable characters without spaces",
            errors=(Fault(field=KEY_HEADER, message="not a key"),),
        )
    asked = body.model_dump_json() if body is not None else ""
    digest = hashlib.sha256(f"{request.method} {request.path}\n{asked}".encode("utf-8", "surrogateescape")).digest()
    return Claim(principal, key, digest)
