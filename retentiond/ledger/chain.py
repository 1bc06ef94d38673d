"""Walking along the entries, from the first on, and naming the first that can't be as it was written.

The same walk serves an export and the database. Two neighbours that disagree (`prev` of one is not the hash of the
one before) don't say by themselves which was altered; the entries after them do, so the walk goes up to two steps
further: one altered entry disagrees with two neighbours at most, so a third disagreement in a row means several.
What the chain can't show, since it was rewritten as a whole, the root in a signed checkpoint does.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import orjson

from retentiond.domain.evidence import TreeHead, canonical, leaf_hash
from retentiond.errors import LedgerError

_FLUSH = 4_096
_LARGEST = 2**53 - 1
_SEVERAL = 3
ALTERED = "it was altered: the entry after it names another hash for it"
_EITHER = "it was altered, or else the entry after it was, which names another hash for it"
_REWRITTEN = "it was altered: it fits neither the entry before it nor the one after"


@dataclass(frozen=True, slots=True)
class Break:
    """Where the evidence stops holding: the entry, its line in an export, and what is wrong.

    `seq` and `line` are None when it is not an entry that fails but what vouches for them all.
    """

    seq: int | None
    line: int | None
    what: str

    def document(self) -> dict[str, object]:
        """The break as `--json` shows it."""
        return {"seq": self.seq, "line": self.line, "what": self.what}

    def __str__(self) -> str:
        return self.what if self.seq is None else f"entry {self.seq}: {self.what}"


class Chain:
    """The entries seen so far: how many, their tree, the hash of the last, and its content.

    `doubtful` is the first entry that disagrees with the one before it: which of the two was altered may be open yet.
    """

    def __init__(self) -> None:
        self.size = 0
        self.last = b""
        self.entry: dict[str, object] = {}
        self._tree = TreeHead()
        self._waiting: list[bytes] = []
        self._disagreements = 0
        self.doubtful: int | None = None

    @property
    def tree(self) -> TreeHead:
        """The tree over all entries seen."""
        self._tree = self._tree.extend(self._waiting)
        self._waiting.clear()
        return self._tree

    def feed(self, leaf: bytes) -> Break | None:
        """Take the next entry; the first break, once it is certain where it is."""
        seq = self.size + 1
        entry = parse_leaf(leaf)
        if entry is None:
            return self.doubt() or _at(seq, "it is not one JSON object in canonical form (RFC 8785)")
        if entry.get("seq") != seq or entry.get("seq") is True:
            return self.doubt() or _at(seq, f"missing: in its place is one with the number {entry.get('seq')!r}")
        follows = entry.get("prev") == self.last.hex()
        if not follows and seq == 1:
            return _at(1, "the first entry names one before it")
        if self.doubtful is not None and follows:
            return self._single(self.doubtful)
        if not follows:
            self.doubtful = self.doubtful or seq
            self._disagreements += 1
        self._add(entry, leaf)
        return self.doubt() if self._disagreements == _SEVERAL else None

    def doubt(self) -> Break | None:
        """The break that no further entry can place more exactly."""
        if self.doubtful is None:
            return None
        if self._disagreements == 1:
            return _at(self.doubtful - 1, _EITHER)
        return self._single(self.doubtful) if self._disagreements < _SEVERAL else _at(self.doubtful - 1, ALTERED)

    def _single(self, doubtful: int) -> Break:
        """The break when the fewest entries were altered that can have been: one."""
        return _at(doubtful - 1, ALTERED) if self._disagreements == 1 else _at(doubtful, _REWRITTEN)

    def _add(self, entry: dict[str, object], leaf: bytes) -> None:
        self.size += 1
        self.entry = entry
        self.last = leaf_hash(leaf)
        self._waiting.append(self.last)
        if len(self._waiting) >= _FLUSH:
            _ = self.tree


def _at(seq: int, what: str) -> Break:
    return Break(seq, None, what)


def parse_leaf(leaf: bytes) -> dict[str, object] | None:
    """The object that a leaf is in canonical form; None when it is anything else.

    orjson is many times faster than the canonical serializer, and writes the same for what `_plain` lets through.
    """
    try:
        entry = orjson.loads(leaf)
        if not isinstance(entry, dict):
            return None
        if _plain(entry):
            same = orjson.dumps(entry, option=orjson.OPT_SORT_KEYS) == leaf
        else:
            same = canonical(json.loads(leaf, parse_int=_number)) == leaf
    except (ValueError, OverflowError, RecursionError, orjson.JSONEncodeError, LedgerError):
        return None
    return entry if same else None


def _number(text: str) -> int | float:
    """To JSON a number is a double: beyond 2^53 an integral one is written like an integer that Python keeps exact."""
    number = int(text)
    return number if -_LARGEST <= number <= _LARGEST else float(number)


def _plain(value: object) -> bool:
    """Whether it has no float, no integer beyond 2^53 and no key but ASCII, where the two serializers may differ."""
    if value is None or isinstance(value, str | bool):
        return True
    if isinstance(value, int):
        return -_LARGEST <= value <= _LARGEST
    if isinstance(value, dict):
        return all(key.isascii() and _plain(item) for key, item in value.items())
    return isinstance(value, list) and all(map(_plain, value))
