"""Runs retentiond so that it stops itself, as by SIGSTOP, at a step of its first batch on files; for tests to go on from.

It is given as a prefix of the command; `STOP_AT` says where: `before` the first file is put in its place, `between` that
and what came away being unlinked, `after` all of the batch is done and its outcome is not written.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from retentiond.stores.files import swap
from retentiond.stores.files.batch import FilesBatch

WHERE = os.environ["STOP_AT"]
rename, erase, stopped = swap._rename2, FilesBatch.erase, []


def stop(at: str) -> None:
    if at == WHERE and not stopped:
        stopped.append(at)
        # To this very thread, which then does not take one step more; another would stop it only some steps later.
        signal.pthread_kill(threading.get_ident(), signal.SIGSTOP)


def _rename2(*args, **named) -> None:
    stop("before")
    rename(*args, **named)
    stop("between")


async def _erase(*args, **named):
    found = await erase(*args, **named)
    stop("after")
    return found


swap._rename2, FilesBatch.erase = _rename2, _erase

if __name__ == "__main__":
    from retentiond.cli.main import main

    # What follows is the command as it would be run: the interpreter, -m, retentiond.
    sys.argv = ["retentiond", *sys.argv[4:]]
    main()
