"""Errors as problem documents (RFC 9457): what is wrong, where, and how to mend it. A defect says nothing of itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

import orjson
import structlog
from aiohttp import web

from retentiond.api.models import Fault, Problem
from retentiond.control.failures import CommitUnknown
from retentiond.control.hold_rows import UnreadableHold
from retentiond.errors import (
    Blind,
    Guarded,
    LedgerError,
    NotFound,
    Otherwise,
    Paused,
    PlanMode,
    PolicySuperseded,
    Refused,
    RetentiondError,
    Unreachable,
    UsageError,
)

log = structlog.get_logger()
CONTENT_TYPE = "application/problem+json"
_FIRST_ERROR = 400
_AGAIN_SECONDS = 5
_STATUS: tuple[tuple[type[RetentiondError], int], ...] = (
    (NotFound, 404),
    (Otherwise, 409),
    (UsageError, 422),
    ((Guarded), 409),
    (Paused, 409),
    (PlanMode, 409),
    (PolicySuperseded, 409),
    (Blind, 409),
    (CommitUnknown, 503),
    (Unreachable, 503),
    (Refused, 503),
    # Nobody's request is wrong, and nothing is answered until somebody mends it.
    (UnreadableHold, 503),
    (LedgerError, 503),
)


class Refusal(Exception):
    """An answer that is an error: its status, what is wrong, how to mend it, at which fields, and headers."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        remedy: str | None = None,
        errors: tuple[Fault, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.remedy, self.errors = status, detail, remedy, errors
        self.headers = dict(headers or {})


@web.middleware
async def problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Answer each error with a problem document; a defect is logged, and its answer says nothing of it."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < _FIRST_ERROR:
            raise
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        return answer(request, Refusal(error.status, _detail(request, error), headers=headers))
    except Refusal as error:
        return answer(request, error)
    except RetentiondError as error:
        return answer(request, refusal(error), kind=error.kind)
    except Exception as error:
        log.error("unexpected", path=request.path, exc_info=error)
        return answer(request, Refusal(500, "a defect: see the log, and report it"))


def refusal(error: RetentiondError) -> Refusal:
    """One of our errors as an answer; what is not foreseen here is a defect, and is logged."""
    status = next((status for each, status in _STATUS if isinstance(error, each)), 500)
    if status == 500:
        log.error("unexpected", kind=error.kind, message=error.message, exc_info=error)
        return Refusal(500, "a defect: see the log, and report it")
    headers = {"Retry-After": str(_AGAIN_SECONDS)} if status == 503 else {}
    return Refusal(status, error.message, remedy=error.remedy, headers=headers)


def answer(request: web.Request, refused: Refusal, *, kind: str | None = None) -> web.Response:
    """The problem document."""
    document = Problem(
        title=HTTPStatus(refused.status).phrase,
        status=refused.status,
        detail=refused.detail,
        instance=request.path,
        kind=kind,
        remedy=refused.remedy,
        errors=refused.errors or None,
    )
    return web.Response(
        body=orjson.dumps(document.model_dump(exclude_none=True, by_alias=True)),
        status=refused.status,
        content_type=CONTENT_TYPE,
        headers=refused.headers,
    )


def _detail(request: web.Request, error: web.HTTPException) -> str:
    details = {
        404: f"there is nothing at {request.path}; see /openapi.json, /healthz, /readyz and /metrics",
        405: f"{request.method} is not for {request.path}; see the header Allow",
        413: "the body is too large",
    }
    return details.get(error.status, error.reason)
