"""How a file is packed, by the end of its name: read and written as a stream, and never whole in memory.

`.gz` by ISA-L (python-isal), `.zst` by libzstd, `.xz` by the standard library. Whatever a damaged file raises is
`Damaged`; a file is left where it can't be read to its very end.
"""

from __future__ import annotations

import gzip
import io
import lzma
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, Final, cast

import zstandard
from isal import igzip, isal_zlib

Packing = str
SUFFIXES: Final = (".gz", ".zst", ".xz")
_BUFFER: Final = 1 << 18
_GZIP_LEVEL: Final = 2
_ZSTD_LEVEL: Final = 3
_XZ_PRESET: Final = 2
_GZIP: Final[Any] = igzip.GzipFile
_ISAL: Final[Any] = isal_zlib.error
_ERRORS: Final = (_ISAL, EOFError, zlib.error, zlib.error, lzma.LZMAError, zstandard.ZstdError, gzip.BadGzipFile)


class Damaged(Exception):
    """The file is not packed as its name says, or ends before its end."""


def packing_of(name: str) -> Packing:
    """The suffix by which a file is packed; empty for a plain one."""
    return next((suffix for suffix in SUFFIXES if name.endswith(suffix)), "")


@contextmanager
def unpacked(fd: int, packing: Packing) -> Iterator[Callable[[int], bytes]]:
    """Reads the file's content, at most so many bytes at a time, empty at the end; raises Damaged, OSError."""
    with os.fdopen(os.dup(fd), "rb", buffering=0) as raw:
        raw.seek(0)
        stream: Any = _reader(raw, packing)

        def read(size: int) -> bytes:
            try:
                return cast("bytes", stream.read(size))
            except _ERRORS as error:
                raise Damaged(str(error) or type(error).__name__) from error

        yield read
        if stream is not raw:
            stream.close()


def _reader(raw: io.RawIOBase | BinaryIO, packing: Packing) -> Any:
    if packing == ".gz":
        return _GZIP(fileobj=io.BufferedReader(cast("Any", raw), _BUFFER), mode="rb")
    if packing == ".zst":
        return _Frames(raw, lambda: zstandard.ZstdDecompressor().decompressobj())
    if packing == ".xz":
        return _Frames(raw, lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ))
    return raw


class _Frames:
    """All frames of a file, one after another: whatever is none is damage, and so is one that was cut off.

    The readers of the libraries pass over both.
    """

    def __init__(self, raw: io.RawIOBase | BinaryIO, begin: Callable[[], Any]) -> None:
        self._raw, self._begin, self._rest = raw, begin, b""
        self._open: Any = None

    def read(self, size: int) -> bytes:
        """The next bytes, more or less than `size` of them; empty at the end."""
        while True:
            given, self._rest = self._rest, b""
            if not given:
                given = self._raw.read(min(size, _BUFFER)) or b""
            if not given:
                if self._open is not None:
                    raise EOFError("the file ends before the end of a frame")
                return b""
            if self._open is None:
                self._open = self._begin()
            found: bytes = self._open.decompress(given)
            if self._open.eof:
                self._rest, self._open = self._open.unused_data, None
            if found:
                return found

    def close(self) -> None:
        """Nothing is held."""


@dataclass
class Packed:
    """Writes content to a file, packed: how many bytes of content it was given, and their CRC-32."""

    fd: int
    packing: Packing
    size: int = 0
    crc: int = 0

    def __post_init__(self) -> None:
        """Begin."""
        self._raw = os.fdopen(os.dup(self.fd), "wb", buffering=_BUFFER)
        self._stream: Any = self._writer()

    def write(self, content: bytes) -> None:
        """More of it; raises OSError."""
        if content:
            self._stream.write(content)
            self.size += len(content)
            self.crc = isal_zlib.crc32(content, self.crc)

    def finish(self) -> None:
        """The end of it; raises OSError. What was written is not on the disk for sure yet."""
        if self._stream is not self._raw:
            self._stream.close()
        self._raw.close()

    def give_up(self) -> None:
        """Write no more of it; the file is of no use then."""
        for each in {id(self._stream): self._stream, id(self._raw): self._raw}.values():
            try:
                each.close()
            except (OSError, ValueError, zstandard.ZstdError):
                continue  # a full disk takes not even the end; the file is thrown away

    def _writer(self) -> Any:
        if self.packing == ".gz":
            return _GZIP(fileobj=self._raw, mode="wb", compresslevel=_GZIP_LEVEL, mtime=0, filename="")
        if self.packing == ".zst":
            made = zstandard.ZstdCompressor(level=_ZSTD_LEVEL, write_checksum=True)
            return made.stream_writer(self._raw, closefd=False)
        if self.packing == ".xz":
            return lzma.LZMAFile(self._raw, "wb", preset=_XZ_PRESET, check=lzma.CHECK_CRC64)
        return self._raw


def is_as_written(fd: int, packed: Packed) -> bool:
    """Whether what is read back from the file is what was written; raises OSError."""
    size = crc = 0
    try:
        with unpacked(fd, packed.packing) as read:
            while part := read(1 << 20):
                size += len(part)
                crc = isal_zlib.crc32(part, crc)
    except Damaged:
        return False
    return (size, crc) == (packed.size, packed.crc)
