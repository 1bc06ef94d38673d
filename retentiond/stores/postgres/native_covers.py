"""What a hold covers in one target, as a row of `retentiond_holds.held` says it."""

from __future__ import annotations

import json
from collections.abc import Collection
from datetime import datetime
from typing import Any

from retentiond.domain.duration import instant, rfc3339
from retentiond.domain.holds import TargetHold
from retentiond.errors import UsageError

_LISTS = ("accounts", "records", "prefixes")
_MOMENTS = ("since", "until")


def document(hold: TargetHold) -> str:
    """JSON with the dimensions that there are."""
    found: dict[str, Any] = {}
    if hold.accounts is not None:
        found["accounts"] = sorted(hold.accounts)
    if hold.records is not None:
        found["records"] = sorted(hold.records)
    if hold.prefixes:
        found["prefixes"] = list(hold.prefixes)
    for name, moment in (("since", hold.since), ("until", hold.until)):
        if moment is not None:
            found[name] = rfc3339(moment)
    return json.dumps(found, ensure_ascii=False)


def read(hold_id: str, text: str) -> TargetHold:
    """What such JSON covers; raises ValueError for anything else, since to guess could be to keep less."""
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ValueError("it is no object")  # noqa: TRY004 - a value in a database, not an argument
    if not found.keys() <= {*_LISTS, *_MOMENTS}:
        raise ValueError("it has a dimension that is not known here")
    accounts, records, prefixes = (_texts(name, found[name]) if name in found else None for name in _LISTS)
    since, until = (_moment(name, found[name]) if name in found else None for name in _MOMENTS)
    return TargetHold(hold_id, _set(accounts), _set(records), tuple(prefixes or ()), since, until)


def _texts(name: str, value: object) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{name!r} is no list of texts")
    return value


def _set(texts: Collection[str] | None) -> frozenset[str] | None:
    return None if texts is None else frozenset(texts)


def _moment(name: str, value: object) -> datetime:
    try:
        return instant(str(value))
    except UsageError as error:
        raise ValueError(f"{name!r} is no instant") from error
