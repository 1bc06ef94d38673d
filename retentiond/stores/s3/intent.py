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
from datetime import datetime
from typing import Any

from retentiond.domain.duration import instant, rfc3339
from retentiond.stores.base import Tally
from retentiond.stores.s3.items import Doomed
from retentiond.stores.s3.rows import Listing, read_all, written_all


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
        """As JSON; ids are of versions or uploads."""
        ids = [each.upload_id or each.version_id or "" for each in self.doomed]
        return {
            "listing": self.what,
            "keys": written_all([each.key for each in self.doomed]),
            "ids": None if self.what == "objects" else written_all(ids),
            "etags": [each.etag for each in self.doomed],
            "sizes": [each.size for each in self.doomed],
            "modified": [each.modified and rfc3339(each.modified) for each in self.doomed],
            "labels": list(self.labels),
            "anchors": [anchor and rfc3339(anchor) for anchor in self.anchors],
            "markers": self.markers,
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Items:
        """From what was written down."""
        what, keys = document["listing"], read_all(document["keys"])
        ids: Sequence[str | None] = read_all(document["ids"]) if document["ids"] is not None else [None] * len(keys)
        doomed = [
            Doomed(
                key,
                None if what == "uploads" else identity,
                etag,
                size,
                instant(modified) if modified else None,
                identity if what == "uploads" else None,
            )
            for key, identity, etag, size, modified in zip(
                keys, ids, document["etags"], document["sizes"], document["modified"], strict=True
            )
        ]
        anchors = [instant(anchor) if anchor else None for anchor in document["anchors"]]
        return cls(what, doomed, document["labels"], anchors, document["markers"])

    def went(self, gone: Sequence[int], salt: str) -> Tally:
        """What those by these indices come to, now that they are gone."""
        if not gone:
            return Tally()
        anchors = [anchor for i in gone if (anchor := self.anchors[i]) is not None]
        return Tally(
            changed=len(gone),
            by_tier=dict(Counter(self.labels[i] for i in gone)),
            bytes=sum(self.doomed[i].size for i in gone),
            oldest=rfc3339(min(anchors)) if anchors else None,
            newest=rfc3339(max(anchors)) if anchors else None,
            ids_digest=_digest([self.doomed[i] for i in gone], salt),
        )


def _digest(gone: Sequence[Doomed], salt: str) -> str:
    if gone[0].version_id is None and gone[0].upload_id is None:
        ids = [_bytes(each.key) for each in gone]
    else:
        pairs = [(each.key, each.upload_id or each.version_id) for each in gone]
        ids = [_bytes(json.dumps(pair, ensure_ascii=False)) for pair in pairs]
    return hashlib.sha256(salt.encode() + b"\n".join(sorted(ids))).hexdigest()


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
