"""JSON columns, as text on the wire: a codec of asyncpg would ask the catalog outside of a transaction; constants."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def to_json(document: Mapping[str, Any] | None) -> str | None:
    """The document as text for a jsonb parameter; None is SQL's NULL."""
    return None if document is None else json.dumps(document, ensure_ascii=False, allow_nan=False)


def from_json(text: str | None) -> dict[str, Any] | None:
    """A jsonb object as asyncpg gives it, which is text."""
    return None if text is None else dict(json.loads(text))


def literal(text: str) -> str:
    """A text as an SQL constant, whatever `standard_conforming_strings` is."""
    doubled = text.replace("'", "''")
    return "E'" + doubled.replace("\\", "\\\\") + "'" if "\\" in text else f"'{doubled}'"
