"""Anonymising a line: what becomes of its fields, and whether that has been done already.

Each line is changed once, the changed values being the mark: a null, the constant, an address that is cut, a hash with
its seal (2-semantics, "Actions"). So a line is done where changing it would change nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Mapping
from typing import Any, Final

from msgspec import UNSET

from retentiond.stores.files.config import FieldChange
from retentiond.stores.files.formats import Format, value_at

_HASHED: Final = re.compile(r"hmac:([0-9a-f]{64}):([0-9a-f]{16})")
_V4, _V6 = 24, 48


class Unchangeable(Exception):
    """A value of the line can't be changed as it is to be."""


class Changing:
    """The changes of one target; `key` is that of its hashes."""

    def __init__(self, format_: Format, fields: Mapping[str, FieldChange], key: bytes) -> None:
        self._format, self._key = format_, hashlib.sha256(b"anonymise" + key).digest()
        self._fields = fields

    def changed(self, line: bytes) -> bytes | None:
        """The line as it is to be; None where it is so already. Raises Unchangeable."""
        found = self._format.fields(line)
        if found is None:
            raise Unchangeable
        values: dict[str, Any] = {}
        dropped: list[str] = []
        for name, rule in self._fields.items():
            there = value_at(found, name.split("."))
            if there is UNSET and name in found:
                there = found[name]
            if there is UNSET:
                continue
            if rule.method == "drop":
                dropped.append(name)
            elif (wanted := self._value(rule, there)) != there or type(wanted) is not type(there):
                values[name] = wanted
        if not values and not dropped:
            return None
        try:
            return self._format.changed(line, values, dropped)
        except ValueError as error:
            raise Unchangeable from error

    def _value(self, rule: FieldChange, value: object) -> object:
        if rule.method == "null" or value is None:
            return None if rule.method != "constant" else rule.value
        if rule.method == "constant":
            return rule.value
        if rule.method == "truncate_ip":
            return _cut(value)
        return self._hashed(value)

    def _hashed(self, value: object) -> str:
        text = value if isinstance(value, str) else repr(value)
        found = _HASHED.fullmatch(text)
        if found is not None and hmac.compare_digest(found[2], self._hmac(found[1])[:16]):
            return text
        digest = self._hmac(text)
        return f"hmac:{digest}:{self._hmac(digest)[:16]}"

    def _hmac(self, text: str) -> str:
        return hmac.new(self._key, text.encode(errors="surrogateescape"), "sha256").hexdigest()


def _cut(value: object) -> str:
    try:
        address = ipaddress.ip_address(str(value))
    except ValueError as error:
        raise Unchangeable from error
    bits = _V4 if address.version == 4 else _V6
    return str(ipaddress.ip_network(f"{address}/{bits}", strict=False).network_address)
