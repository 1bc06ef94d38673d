"""What lies in the folder of logs of the demo: JSON lines of a year and a half, a file a week, most of them packed.

Made data that is the same each time, save for its ages, which count back from now. Lines of accounts of every plan are
mixed in each file, as a service writes them; one file has a line that is no JSON, and one is being written.
"""

from __future__ import annotations

import json
import os
import random
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import zstandard

FOLDER: Final = "logs"
NAMES: Final = "edge.log*"
_ACCOUNTS = 20_000
_WEEKS = 78
_LINES = 150
_WEEK = timedelta(days=7)
_PLAIN = 2
"""Of the youngest files, so many are not packed yet."""
_BROKEN = "panic: runtime error: index out of range [3] with length 3\n"
_GZIP = 16 + zlib.MAX_WBITS


def make_logs(folder: Path) -> Path:
    """Make the folder in this one, with all its files; returns it."""
    made = folder / FOLDER
    made.mkdir(mode=0o700)
    now = datetime.now(UTC)
    for name, lines, end in _files(now):
        content = "".join(lines).encode()
        (made / name).write_bytes(_packed(content, name))
        os.utime(made / name, (end.timestamp(), end.timestamp()))
    return made


def _files(now: datetime) -> Iterator[tuple[str, list[str], datetime]]:
    chance = random.Random(2026)
    for week in range(_WEEKS):
        end = now - week * _WEEK
        name = "edge.log" if week == 0 else f"edge.log-{end:%Y%m%d}{_suffix(week)}"
        lines = [_line(chance, end - _WEEK + at * _WEEK / _LINES) for at in range(_LINES)]
        if week == _WEEKS // 2:
            lines.insert(_LINES // 2, _BROKEN)
        yield name, lines, end


def _suffix(week: int) -> str:
    if week <= _PLAIN:
        return ""
    return ".zst" if week % 2 else ".gz"


def _line(chance: random.Random, at: datetime) -> str:
    account = chance.randint(1, _ACCOUNTS)
    return (
        json.dumps(
            {
                "ts": at.isoformat(timespec="milliseconds"),
                "account_id": str(account),
                "ip": f"203.0.113.{account % 251}",
                "path": f"/sites/{account * 7}/",
                "status": chance.choice((200, 200, 304, 404)),
            }
        )
        + "\n"
    )


def _packed(content: bytes, name: str) -> bytes:
    if name.endswith(".gz"):
        packer = zlib.compressobj(wbits=_GZIP)
        return packer.compress(content) + packer.flush()
    return zstandard.compress(content) if name.endswith(".zst") else content
