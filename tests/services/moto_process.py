"""A server of moto's in a process of its own: `python moto_process.py PORT`; prints `ready` when it listens.

Two things are added to what moto has, because AWS has them not: `POST /_past` with `{"bucket", "key", "at"}` sets when the
object's current version was written, and `POST /_logs` with `{"region", "group", "stream", "created", "events":
[[at, ingested], …]}` makes a log stream with such events (milliseconds), so that a test need not wait for a term.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime

from moto.logs.models import LogEvent, logs_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from moto.s3.models import s3_backends
from werkzeug.serving import make_server
from werkzeug.wrappers import Request, Response

_ACCOUNT = "123456789012"


def past(request: Request) -> Response:
    given = json.loads(request.get_data())
    key = s3_backends[_ACCOUNT]["aws"].buckets[given["bucket"]].keys[given["key"]]
    key.last_modified = datetime.fromisoformat(given["at"]).replace(tzinfo=None)
    return Response(status=204)


def logs(request: Request) -> Response:
    given = json.loads(request.get_data())
    groups = logs_backends[_ACCOUNT][given["region"]].groups
    if given["group"] not in groups:
        logs_backends[_ACCOUNT][given["region"]].create_log_group(given["group"], {})
    group = groups[given["group"]]
    if given["stream"] not in group.streams:
        group.create_log_stream(given["stream"])
    stream = group.streams[given["stream"]]
    stream.creation_time = _at(given["created"])
    for at, ingested in given["events"]:
        stream.events.append(LogEvent(ingested, {"timestamp": at, "message": "x"}))
        stream.last_ingestion_time = _at(ingested)
    return Response(status=204)


def _at(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).replace(tzinfo=None)


def main() -> None:
    moto = DomainDispatcherApplication(create_backend_app)

    def application(environ, start_response):
        if environ["PATH_INFO"] == "/_past":
            return past(Request(environ))(environ, start_response)
        if environ["PATH_INFO"] == "/_logs":
            return logs(Request(environ))(environ, start_response)
        return moto(environ, start_response)

    MotoRequestHandler.protocol_version = "HTTP/1.1"
    MotoRequestHandler.log_request = lambda *_: None
    server = make_server("127.0.0.1", int(sys.argv[1]), application, threaded=True, request_handler=MotoRequestHandler)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
