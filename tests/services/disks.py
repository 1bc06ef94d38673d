"""A small disk of its own that is really full, for servers under test: a tmpfs, which only root can mount."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


class Disk:
    """A small file system; `fill` leaves no byte of it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Let something else take all the room there is."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (1 << 20, 1 << 12, 1):
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError:
                    continue

    def make_room(self) -> None:
        """Take that away again."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(megabytes: int, account: tuple[int, int] | None) -> Iterator[Disk]:
    """Mounted for the time of the block; a failure where that can't be, for then nothing would be tested."""
    if os.getuid() != 0:
        pytest.fail("a disk that is really full needs root, to mount it; run the system tests as root")
    path = Path(tempfile.mkdtemp(prefix="rt-disk-", dir="/tmp"))
    path.chmod(0o755)
    mounting = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(path)]
    done = subprocess.run(mounting, check=False, capture_output=True, text=True)
    if done.returncode != 0:
        path.rmdir()
        pytest.fail(f"a small disk can't be mounted: {done.stderr.strip()}; run the system tests where root may mount")
    try:
        path.chmod(0o700)
        if account is not None:
            os.chown(path, *account)
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=False, capture_output=True)
        path.rmdir()
