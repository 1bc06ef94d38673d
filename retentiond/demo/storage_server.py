"""The bucket of the demo: moto's S3 server with the artifacts in it, on a free port of the loopback interface.

`python -m retentiond.demo.storage_server` is a process of its own, for a server in the demo's event loop would take its
time. It prints `ready PORT` once it listens, and ends when its standard input does: also where whoever started it was
killed, and could stop nothing any more. The objects are made in memory, and not by requests, because only so can they
be old.
"""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from threading import Thread

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import S3Backend, s3_backends
from moto.utilities.utils import CaseInsensitiveDict
from werkzeug.serving import make_server

from retentiond.demo.artifacts import BUCKET, artifacts, remains

REGION = "us-east-1"


class _Quiet(MotoRequestHandler):
    """Connections stay open, and requests are not logged."""

    protocol_version = "HTTP/1.1"

    def log_request(self, *_: object) -> None:
        """Nothing."""


def fill(backend: S3Backend) -> None:
    """Make the bucket, which keeps versions, and all that is in it."""
    now = datetime.now(UTC).replace(tzinfo=None)  # moto's own dates are naive, in UTC
    backend.create_bucket(BUCKET, REGION)
    backend.put_bucket_versioning(BUCKET, "Enabled")
    for each in artifacts():
        made = backend.put_object(BUCKET, each.key, b"x" * each.size)
        made.last_modified = now - each.age
    left = remains()
    for key in left.deleted:
        backend.delete_object(BUCKET, key)
    for key in left.uploads:
        # When one was begun moto does not remember: its listing says 2010 of all.
        backend.create_multipart_upload(
            BUCKET, key, CaseInsensitiveDict(), "STANDARD", tags={}, acl=None, sse_encryption="", kms_key_id=""
        )


def main() -> None:
    """Serve until standard input ends."""
    fill(s3_backends[DEFAULT_ACCOUNT_ID]["aws"])
    application = DomainDispatcherApplication(create_backend_app)
    server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
    Thread(target=server.serve_forever, daemon=True).start()
    print("ready", server.server_port, flush=True)
    sys.stdin.buffer.read()
    # A thread that serves a connection which stays open would be waited for.
    os._exit(0)


if __name__ == "__main__":
    main()
