"""A process that uses the embedded Postgres of a state folder until its standard input ends.

`python embedded_user.py STATE [--as-nobody PACKAGES]`: with the latter it stops being root before it starts, and takes
the binaries from the folder PACKAGES. Prints the DSN, and `stopped` at the end.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import sys
from contextlib import suppress
from pathlib import Path

import asyncpg

from retentiond.control.embedded import EmbeddedPostgres


async def main() -> None:
    if "--as-nobody" in sys.argv:
        sys.path.insert(0, sys.argv[3])
        # Python may lie where that account can't read: all modules that are imported late have to be there before.
        await asyncio.to_thread(lambda: None)
        with suppress(OSError):
            await asyncpg.connect("postgresql://nobody@/none?host=/nowhere")
        nobody = pwd.getpwnam("nobody")
        os.setgroups([])
        os.setgid(nobody.pw_gid)
        os.setuid(nobody.pw_uid)
    server = await EmbeddedPostgres.start(Path(sys.argv[1]), create=True)
    print(server.dsn, flush=True)
    await asyncio.to_thread(sys.stdin.read)
    await server.stop()
    print("stopped", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
