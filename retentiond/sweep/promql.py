"""One PromQL expression as a signal: an instant query, and the largest of its samples.

No sample and NaN are no answer: an expression that compares (`x > 5`) has none when all is well, and would look like a
Prometheus that has lost its data. So the threshold stands beside the expression.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from retentiond.errors import Blind, RetentiondError, Unreachable
from retentiond.stores.base import Finding
from retentiond.sweep.spec import Query

if TYPE_CHECKING:
    import aiohttp

_SECONDS = 5.0
_LARGEST = 1_000_000
_AT_ONCE = 32
# It can't be parsed, or not be carried out.
_REFUSES = (400, 422)


async def ask(query: Query) -> float:
    """The largest sample of the expression now.

    Raises Blind where Prometheus refuses the expression, and Unreachable where it gives no answer.
    """
    import aiohttp

    headers = {"Authorization": f"Bearer {query.token}"} if query.token else {}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS), headers=headers) as session,
            session.post(
                f"{query.url}/api/v1/query", data={"query": query.expression}, allow_redirects=False
            ) as answer,
        ):
            document = _document(await _whole(answer.content), answer.status)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise _unknown(f"does not answer: {type(error).__name__}") from error
    return _largest(document)


async def findings(queries: Mapping[str, Query]) -> list[Finding]:
    """What `check` says of these targets' expressions, each asked once: those that stop the sweep."""
    turns = asyncio.Semaphore(_AT_ONCE)

    async def fault(query: Query) -> RetentiondError | None:
        async with turns:
            try:
                await ask(query)
            except (Blind, Unreachable) as error:
                return error
        return None

    different = list(dict.fromkeys(queries.values()))
    faults = dict(zip(different, await asyncio.gather(*map(fault, different)), strict=True))
    return [
        Finding(
            "error",
            name,
            f"pace.health.promql: {error.message} (asked at {query.url}); this stops the sweep",
            error.remedy or "",
        )
        for name, query in queries.items()
        if (error := faults[query]) is not None
    ]


async def _whole(content: aiohttp.StreamReader) -> bytes:
    """The body until its end; raises Unreachable for one that is larger than an answer can be meant.

    `StreamReader.read(n)` gives what has come by then, which of a body in chunks may be any part of it
    (https://docs.aiohttp.org/en/stable/streams.html).
    """
    body = bytearray()
    async for part in content.iter_any():
        body += part
        if len(body) > _LARGEST:
            raise _unknown(f"answered more than {_LARGEST} bytes")
    return bytes(body)


def _document(body: bytes, status: int) -> dict[str, Any]:
    import orjson

    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _unknown(f"answered {status}, and no JSON") from error
    if not isinstance(document, dict) or document.get("status") != "success" or status != 200:
        told = str((document.get("error") if isinstance(document, dict) else None) or "no reason given")[:200]
        if status in _REFUSES and isinstance(document, dict):
            raise _refused(f"refuses the expression: {told}")
        raise _unknown(f"answered {status}: {told}")
    data = document.get("data")
    return data if isinstance(data, dict) else {}


def _largest(data: dict[str, Any]) -> float:
    try:
        found = [float(sample) for sample in _samples(data)]
    except (TypeError, ValueError, KeyError, IndexError) as error:
        raise _unknown("gave a result that is no number") from error
    if not found:
        raise _unknown("has no sample for the expression; use one that always has, such as `… or vector(0)`")
    if any(math.isnan(sample) for sample in found):
        raise _unknown("gave NaN for the expression")
    return max(found)


def _samples(data: dict[str, Any]) -> Iterator[str]:
    kind, result = data.get("resultType"), data.get("result")
    if kind == "scalar" and isinstance(result, list):
        yield result[1]
    elif kind == "vector" and isinstance(result, list):
        yield from (each["value"][1] for each in result)
    else:
        wrong = _refused if kind in ("matrix", "string") else _unknown
        raise wrong(f"gave a {kind} for the expression, and a vector or scalar is needed")


def _unknown(why: str) -> Unreachable:
    return Unreachable(
        f"Prometheus {why}", remedy="check pace.health.promql, or take it out to sweep without this signal"
    )


def _refused(why: str) -> Blind:
    return Blind(
        f"Prometheus {why}",
        remedy="mend pace.health.promql.expression, or take promql out to sweep without it",
    )
