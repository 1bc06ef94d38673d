"""Bytes into Zstandard and back, with what tells that nothing was lost on the way. Never the whole in memory.

The work is done in threads: it takes no time from whoever else is served meanwhile.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from typing import Final

import zstandard

_LEVEL: Final = 3
_SLICE: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Sums:
    """Lines, bytes and SHA-256 (hexadecimal) of what was packed, and bytes and SHA-256 of what that became."""

    lines: int
    plain_bytes: int
    plain_sha256: str
    bytes: int
    sha256: str


class _Counted:
    """What is common to both ways: what has passed, of the plain and of the packed bytes."""

    def __init__(self) -> None:
        self._lines = self._plain_bytes = self._bytes = 0
        self._plain, self._packed = hashlib.sha256(), hashlib.sha256()

    def _saw(self, *, plain: bytes = b"", packed: bytes = b"") -> None:
        self._lines += plain.count(b"\n")
        self._plain_bytes += len(plain)
        self._bytes += len(packed)
        self._plain.update(plain)
        self._packed.update(packed)

    @property
    def sums(self) -> Sums:
        """Of all that has passed by now."""
        return Sums(self._lines, self._plain_bytes, self._plain.hexdigest(), self._bytes, self._packed.hexdigest())


class Packer(_Counted):
    """Packs; each call gives what can be written by then."""

    def __init__(self) -> None:
        super().__init__()
        self._zstd = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compressobj()

    async def feed(self, plain: bytes) -> bytes:
        """Take these bytes."""
        return await asyncio.to_thread(self._feed, plain)

    async def finish(self) -> bytes:
        """There are no more."""
        return await asyncio.to_thread(self._finish)

    def _feed(self, plain: bytes) -> bytes:
        packed: bytes = self._zstd.compress(plain)
        self._saw(plain=plain, packed=packed)
        return packed

    def _finish(self) -> bytes:
        packed: bytes = self._zstd.flush()
        self._saw(packed=packed)
        return packed


class Unpacker(_Counted):
    """Unpacks, and keeps nothing but the sums."""

    def __init__(self) -> None:
        super().__init__()
        self._zstd = zstandard.ZstdDecompressor().decompressobj()

    async def feed(self, packed: bytes) -> bool:
        """Take these bytes; False where they are no whole Zstandard any more."""
        return await asyncio.to_thread(self._feed, packed)

    @property
    def ended(self) -> bool:
        """Whether the end was there, with its checksum, and nothing after it."""
        return bool(self._zstd.eof) and not self._zstd.unused_data

    def _feed(self, packed: bytes) -> bool:
        # What a slice becomes may be many times as long.
        for start in range(0, len(packed), _SLICE):
            part = packed[start : start + _SLICE]
            try:
                plain: bytes = self._zstd.decompress(part)
            except zstandard.ZstdError:
                return False
            self._saw(plain=plain, packed=part)
        return True
