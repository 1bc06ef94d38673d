"""Pages of listings: a list for each column, since objects of Python for each row would cost more than all else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import repeat

from retentiond.stores.s3.items import Doomed


@dataclass(frozen=True, slots=True)
class ListPage:
    """Objects, a list for each column; `after` is where the next page begins, None at the end. ETags have no quotes."""

    keys: list[str]
    modified: list[datetime]
    sizes: list[int]
    etags: list[str]
    after: tuple[str, ...] | None

    def items(self) -> list[Doomed]:
        """Its rows, as what may be erased."""
        nothing = repeat(None)
        return list(map(Doomed._make, zip(self.keys, nothing, self.etags, self.sizes, self.modified, nothing)))  # noqa: B905 - of repeat there is no end


@dataclass(frozen=True, slots=True)
class VersionPage:
    """Versions and delete markers; a marker has size 0 and no ETag. `version_ids` has `null` where one was made before
    the bucket was versioned.
    """

    keys: list[str]
    modified: list[datetime]
    sizes: list[int]
    etags: list[str]
    version_ids: list[str]
    is_latest: list[bool]
    is_marker: list[bool]
    after: tuple[str, ...] | None

    def items(self) -> list[Doomed]:
        """Its rows, as what may be erased."""
        columns = (self.keys, self.version_ids, self.etags, self.sizes, self.modified)
        return list(map(Doomed._make, zip(*columns, repeat(None))))

    def part(self, start: int) -> VersionPage:
        """Its rows from that index on."""
        return VersionPage(
            self.keys[start:],
            self.modified[start:],
            self.sizes[start:],
            self.etags[start:],
            self.version_ids[start:],
            self.is_latest[start:],
            self.is_marker[start:],
            self.after,
        )


@dataclass(frozen=True, slots=True)
class UploadPage:
    """Multipart uploads that were begun and neither completed nor aborted; `modified` is when they were begun."""

    keys: list[str]
    modified: list[datetime]
    upload_ids: list[str]
    after: tuple[str, ...] | None

    def items(self) -> list[Doomed]:
        """Its rows, as what may be aborted."""
        return [Doomed(key, upload_id=upload) for key, upload in zip(self.keys, self.upload_ids, strict=True)]
