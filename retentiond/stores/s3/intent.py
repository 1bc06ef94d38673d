"""What a batch on objects is about to ask for, as it is written down before, and what is gone of it afterwards.

Columns, because there may be thousands. An id in the ledger's digest is the key of an object, or of what has a version
(or an upload) the JSON array of key and id; they are put in the order of their bytes (ADR 2).
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any

from retentiond.domain.duration import rfc3339
from retentiond.stores.base import Tally
from retentiond.stores.s3.items import Doomed
from retentiond.stores.s3.rows import Listing, read_all, written_all

_SIZE = itemgetter(Doomed._fields.index("size"))


@dataclass(frozen=True, slots=True)
class Items:
    """What is to go, in order: with the tier and the anchor of each (None: of a marker none counts).

    The last `markers` of them are delete markers.
    """

    what: Listing
    doomed: Sequence[Doomed]
    labels: Sequence[str]
    anchors: Sequence[datetime | None]
    markers: int = 0

    def __len__(self) -> int:
        return len(self.doomed)

    def document(self) -> Mapping[str, Any]:
        """As JSON; ids are of versions or uploads, instants are seconds since 1970."""
        columns = zip(*self.doomed, strict=True) if self.doomed else [()] * len(Doomed._fields)
        keys, versions, etags, sizes, modified, uploads = columns
        ids = uploads if self.what == "uploads" else versions
        written = _seconds(modified)
        return {
            "listing": self.what,
            "keys": written_all(keys),
            "ids": None if self.what == "objects" else written_all(ids),
            "etags": etags,
            "sizes": sizes,
            "modified": written,
            # Nearly always the same.
            "anchors": None if self.anchors == [*modified] else _seconds(self.anchors),
            "labels": self.labels,
            "markers": self.markers,
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Items:
        """From what was written down."""
        what, keys = document["listing"], read_all(document["keys"])
        ids: Sequence[str | None] = read_all(document["ids"]) if document["ids"] is not None else [None] * len(keys)
        nothing: Sequence[None] = [None] * len(keys)
        versions, uploads = (nothing, ids) if what == "uploads" else (ids, nothing)
        modified = _instants(document["modified"])
        columns = (keys, versions, document["etags"], document["sizes"], modified, uploads)
        doomed = [Doomed(*row) for row in zip(*columns, strict=True)]
        anchors = modified if document["anchors"] is None else _instants(document["anchors"])
        return cls(what, doomed, document["labels"], anchors, document["markers"])

    def went(self, gone: Sequence[int], salt: str) -> Tally:
        """What those by these indices come to, now that they are gone."""
        if not gone:
            return Tally()
        every = len(gone) == len(self)
        doomed = self.doomed if every else [self.doomed[i] for i in gone]
        labels = self.labels if every else [self.labels[i] for i in gone]
        anchors = [each for each in (self.anchors if every else [self.anchors[i] for i in gone]) if each is not None]
        return Tally(
            changed=len(gone),
            by_tier=dict(Counter(labels)),
            bytes=sum(map(_SIZE, doomed)),
            oldest=rfc3339(min(anchors)) if anchors else None,
            newest=rfc3339(max(anchors)) if anchors else None,
            ids_digest=_digest(doomed, salt),
        )


def _seconds(instants: Sequence[datetime | None]) -> list[float | None]:
    return [None if each is None else each.timestamp() for each in instants]


def _instants(seconds: Sequence[float | None]) -> list[datetime | None]:
    return [None if each is None else datetime.fromtimestamp(each, UTC) for each in seconds]


def _digest(gone: Sequence[Doomed], salt: str) -> str:
    if gone[0].version_id is None and gone[0].upload_id is None:
        ids = [_bytes(each.key) for each in gone]
    else:
        pairs = [(each.key, each.upload_id or each.version_id) for each in gone]
        ids = [_bytes(json.dumps(pair, ensure_ascii=False)) for pair in pairs]
    return hashlib.sha256(salt.encode() + b"\n".join(sorted(ids))).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
