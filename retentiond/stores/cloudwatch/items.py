"""What a batch on log streams is about to ask for, as it is written down before, and what is gone of it afterwards."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retentiond.domain.duration import rfc3339
from retentiond.stores.base import Tally
from retentiond.stores.cloudwatch.rows import Stream


@dataclass(frozen=True, slots=True)
class Items:
    """The streams that are to go, with the tier of each."""

    streams: Sequence[Stream]
    labels: Sequence[str]

    def __len__(self) -> int:
        return len(self.streams)

    def document(self) -> Mapping[str, Any]:
        """As JSON; instants are milliseconds since 1970."""
        return {
            "what": "streams",
            "groups": [each.group for each in self.streams],
            "streams": [each.name for each in self.streams],
            "created": [each.created for each in self.streams],
            "newest": [each.newest for each in self.streams],
            "ingested": [each.ingested for each in self.streams],
            "labels": list(self.labels),
        }

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Items:
        """From what was written down."""
        columns = (document[name] for name in ("groups", "streams", "created", "newest", "ingested"))
        return cls([Stream(*row) for row in zip(*columns, strict=True)], document["labels"])

    def went(self, gone: Sequence[int], salt: str) -> Tally:
        """What those by these indices come to, now that they are gone; of bytes the service tells nothing."""
        if not gone:
            return Tally()
        streams = [self.streams[i] for i in gone]
        anchors = [each.anchor for each in streams]
        known = [each for each in anchors if each is not None]
        return Tally(
            changed=len(gone),
            by_tier=dict(Counter(self.labels[i] for i in gone)),
            oldest=rfc3339(min(known)) if known else None,
            newest=rfc3339(max(known)) if known else None,
            ids_digest=_digest(streams, salt),
        )


def _digest(streams: Sequence[Stream], salt: str) -> str:
    """Of the records' ids, in the order of their bytes (ADR 2)."""
    ids = sorted(each.id.encode(errors="surrogateescape") for each in streams)
    return hashlib.sha256(salt.encode() + b"\n".join(ids)).hexdigest()
