"""What to try next, in another terminal: a file to source, and commands that work with it as they are."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

_FORGET = """\
for name in $(env | sed -n 's/^\\(\\(RETENTIOND\\|AWS\\)_[A-Z0-9_]*\\)=.*/\\1/p'); do unset "$name"; done
"""


def write_environment(path: Path, variables: Mapping[str, str]) -> None:
    """A file for a shell to source: the daemon's configuration, without what was set before, and `retentiond`."""
    # Port 0: a second daemon started with it works beside the first.
    exports = [
        f"export {name}={shlex.quote(value)}"
        for name, value in (dict(variables) | {"RETENTIOND_HTTP__PORT": "0"}).items()
    ]
    command = f'retentiond() {{ {shlex.quote(sys.executable)} -m retentiond "$@"; }}'
    path.write_text(_FORGET + "\n".join([*exports, command]) + "\n", encoding="utf-8")


def hints(
    environment: Path, address: str, evidence: Path, log: Path, *, record: str, artifact: str, bucket: str
) -> Sequence[str]:
    """The lines to print; `record` of request_logs and `artifact` are held, `evidence` is a folder to write to.

    `bucket` is the address of the bucket.
    """
    return (
        "The daemon goes on keeping them; Ctrl-C ends it. In another terminal:",
        "",
        f"  source {shlex.quote(str(environment))}",
        "  retentiond hold place --matter 2026-18 --reason audit --account 4711",
        f"  retentiond explain request_logs {record}",
        f"  retentiond explain artifacts {shlex.quote(artifact)}",
        "  retentiond promises",
        "  retentiond ledger verify",
        f"  retentiond ledger export --out {shlex.quote(str(evidence))}",
        f"  retentiond ledger verify {shlex.quote(str(evidence))}",
        f"  curl '{bucket}?versions&max-keys=3'",
        f"  curl {address}/metrics",
        f"  curl {address}/readyz",
        f"  tail {shlex.quote(str(log))}",
        "",
    )
