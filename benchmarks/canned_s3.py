"""An S3 endpoint that costs nothing: `python -m benchmarks.canned_s3 PORT KEYS`. For measuring clients, not servers.

List pages are made once, and every deletion succeeds at once, with nothing deleted: only what is put is kept, and goes.
What is put below `reports/` is kept with its body, is listed by folders, and can be read in parts: an inventory.
What a client may find out about an endpoint this one has: it refuses requests that have expired and compares ETags; it
keeps no versions, has no locks and no uploads. Prints `ready`; `GET /_asked` tells how many requests of each kind have
come. Two more arguments are the seconds that a request takes which is no deletion, and those of a deletion.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from urllib.parse import parse_qs, quote, unquote

import uvloop

_XML = '<?xml version="1.0" encoding="UTF-8"?>'
_SPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_DATE = "2024-05-06T07:08:09.000Z"
_ETAG = "&quot;9dd4e461268c8034f5c8564e155c67a6&quot;"
_PAGE = 1000
_MONTHS = 8
_ETAG_OF_ALL = "9dd4e461268c8034f5c8564e155c67a6"
_KEY = re.compile(rb"<Key>([^<]*)</Key>")
_EMPTY = {
    "location": "LocationConstraint",
    "versioning": "VersioningConfiguration",
    "uploads": "ListMultipartUploadsResult",
}
_RANGE = re.compile(rb"\r\nrange: *bytes=(\d+)-(\d+)", re.IGNORECASE)
_REPORTS = "reports/"
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def keys(count: int) -> list[str]:
    """Keys as an application's logs have them, in order."""
    each = -(-count // _MONTHS)
    return sorted(
        f"logs/2025/{i // each + 1:02}/{i // 500 % 28 + 1:02}/app-{i % 7:03}/part-{i:08}.json.gz" for i in range(count)
    )


def answer(body: bytes, status: str = "200 OK", extra: str = "") -> bytes:
    """A whole HTTP answer but for its Date, which `dated` gives it."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/xml\r\n{extra}"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def dated(said: bytes) -> bytes:
    """The answer as of now."""
    return said.replace(b"\r\n", b"\r\nDate: %s\r\n" % formatdate(usegmt=True).encode(), 1)


class Pages:
    """The list pages of one kind (`v1`, `v2`, `versions`), encoded or not; made when first asked for."""

    def __init__(self, names: list[str]) -> None:
        self._names = names
        self._made: dict[tuple[str, bool, int, int], bytes] = {}

    def page(self, kind: str, query: dict[str, list[str]]) -> bytes:
        """The answer to a listing."""
        encoded = query.get("encoding-type") == ["url"]
        begins, ends = self._range(query.get("prefix", [""])[0])
        marker = next((query[n][0] for n in ("start-after", "key-marker", "marker") if query.get(n, [""])[0]), "")
        token = query.get("continuation-token", [""])[0]
        at = int(token) if token else max(begins, bisect_right(self._names, marker) if marker else 0)
        if kind == "folders":
            return answer(self._folders(query["prefix"][0], at, ends).encode())
        stop = max(at, min(ends, at + min(_PAGE, int(query.get("max-keys", [_PAGE])[0]))))
        which = (kind, encoded, at, stop)
        found = self._made.get(which)
        if found is None:
            found = self._made[which] = answer(self._body(kind, encoded, at, stop, more=stop < ends).encode())
        return found

    def has(self, name: str) -> bool:
        """Whether there is such a key."""
        at = bisect_left(self._names, name)
        return at < len(self._names) and self._names[at] == name

    def _range(self, prefix: str) -> tuple[int, int]:
        """Of the keys that begin with that, the first and the one after the last."""
        begins = bisect_left(self._names, prefix)
        return begins, bisect_left(self._names, True, lo=begins, key=lambda name: not name.startswith(prefix))

    def _folders(self, prefix: str, at: int, ends: int) -> str:
        found = []
        while at < ends:
            name = self._names[at]
            cut = name.find("/", len(prefix))
            if cut < 0:
                at += 1
                continue
            found.append(name[: cut + 1])
            at = bisect_left(self._names, f"{name[:cut]}0", lo=at)
        rows = "".join(f"<CommonPrefixes><Prefix>{each}</Prefix></CommonPrefixes>" for each in found)
        return f"{_XML}<ListBucketResult{_SPACE}><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"

    def _body(self, kind: str, encoded: bool, at: int, stop: int, *, more: bool) -> str:
        names = self._names[at:stop]
        names = [quote(name, safe="") for name in names] if encoded else names
        root = "ListVersionsResult" if kind == "versions" else "ListBucketResult"
        parts = [_XML, f"<{root}{_SPACE}><Name>bench</Name><Prefix></Prefix><MaxKeys>1000</MaxKeys>"]
        parts += ["<EncodingType>url</EncodingType>"] if encoded else []
        parts += [f"<IsTruncated>{str(more).lower()}</IsTruncated>", self._next(kind, names, stop) if more else ""]
        form = self._version if kind == "versions" else self._object
        return "".join([*parts, *(form(name) for name in names), f"</{root}>"])

    @staticmethod
    def _next(kind: str, names: list[str], stop: int) -> str:
        if kind == "v2":
            return f"<KeyCount>{len(names)}</KeyCount><NextContinuationToken>{stop}</NextContinuationToken>"
        if kind == "v1":
            return f"<NextMarker>{names[-1]}</NextMarker>"
        return f"<NextKeyMarker>{names[-1]}</NextKeyMarker><NextVersionIdMarker>v</NextVersionIdMarker>"

    @staticmethod
    def _object(name: str) -> str:
        return (
            f"<Contents><Key>{name}</Key><LastModified>{_DATE}</LastModified><ETag>{_ETAG}</ETag><Size>1</Size>"
            "<StorageClass>STANDARD</StorageClass></Contents>"
        )

    @staticmethod
    def _version(name: str) -> str:
        return (
            f"<Version><Key>{name}</Key><VersionId>Te1Ff0X0rnl8SCc36w8JAeZdgPZ6RX7</VersionId><IsLatest>true</IsLatest>"
            f"<LastModified>{_DATE}</LastModified><ETag>{_ETAG}</ETag><Size>1</Size><StorageClass>STANDARD</StorageClass>"
            "<Owner><ID>75aa57f09aa0c8caeab4f8c24e99d10f8e7faeebf76c078efc7c6caea54ba06a</ID></Owner></Version>"
        )


@dataclass(slots=True)
class State:
    """What is remembered: how many requests of each kind have come, the keys that were put, and bodies of reports."""

    asked: dict[str, int] = field(default_factory=dict)
    put: set[str] = field(default_factory=set)
    bodies: dict[str, bytes] = field(default_factory=dict)

    def folders(self, prefix: str) -> str:
        """A listing of what lies below the prefix, by folders."""
        below = {key[len(prefix) :].partition("/")[0] for key in self.bodies if key.startswith(prefix)}
        rows = "".join(f"<CommonPrefixes><Prefix>{prefix}{each}/</Prefix></CommonPrefixes>" for each in sorted(below))
        return f"{_XML}<ListBucketResult{_SPACE}><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"

    def read(self, key: str, span: re.Match[bytes] | None) -> bytes:
        """The body, or a part of it."""
        body = self.bodies[key]
        if span is None:
            return answer(body)
        start, end = int(span[1]), min(int(span[2]), len(body) - 1)
        told = f"Content-Range: bytes {start}-{end}/{len(body)}\r\n"
        return answer(body[start : end + 1], "206 Partial Content", told)


class Server(asyncio.Protocol):
    """One connection."""

    def __init__(self, pages: Pages, state: State, delays: tuple[float, float]) -> None:
        self._pages, self._state, self._delays = pages, state, delays
        self._had = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._had += data
        while (end := self._had.find(b"\r\n\r\n")) >= 0:
            head = self._had[:end]
            length = _LENGTH.search(head)
            size = int(length.group(1)) if length else 0
            if b"100-continue" in head.lower() and len(self._had) == end + 4 and size:
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if len(self._had) < end + 4 + size:
                return
            body, self._had = self._had[end + 4 : end + 4 + size], self._had[end + 4 + size :]
            method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
            said = dated(self._answer(method, target, body, _RANGE.search(head)))
            delay = self._delays[method == "DELETE" or (method == "POST" and "delete" in target)]
            if delay:
                asyncio.get_running_loop().call_later(delay, self._transport.write, said)
            else:
                self._transport.write(said)

    def _answer(self, method: str, target: str, body: bytes, span: re.Match[bytes] | None) -> bytes:
        path, _, text = target.partition("?")
        query = parse_qs(text, keep_blank_values=True)
        key = unquote(path).removeprefix("/bench").removeprefix("/")
        if path == "/_asked":
            return answer(json.dumps(self._state.asked).encode())
        kind = self._kind(method, query)
        self._state.asked[kind] = self._state.asked.get(kind, 0) + 1
        if _expired(query):
            return _error("403 Forbidden", "AccessDenied", "Request has expired")
        if path == "/":
            bucket = f"<Bucket><Name>bench</Name><CreationDate>{_DATE}</CreationDate></Bucket>"
            buckets = f"<Buckets>{bucket}</Buckets>"
            return answer(f"{_XML}<ListAllMyBucketsResult{_SPACE}>{buckets}</ListAllMyBucketsResult>".encode())
        if kind in _EMPTY:
            return answer(f"{_XML}<{_EMPTY[kind]}{_SPACE}></{_EMPTY[kind]}>".encode())
        if kind == "object-lock":
            return _error("404 Not Found", "ObjectLockConfigurationNotFoundError", "There is none")
        if method == "PUT" and key.startswith(_REPORTS):
            self._state.bodies[key] = body
            return answer(b"")
        if method == "GET" and key:
            there = key in self._state.bodies
            return self._state.read(key, span) if there else _error("404 Not Found", "NoSuchKey", "There is none")
        if kind == "folders" and query["prefix"][0].startswith(_REPORTS):
            return answer(self._state.folders(query["prefix"][0]).encode())
        if method != "GET":
            return self._on_object(kind, key, body)
        return self._pages.page(kind, query)

    def _on_object(self, kind: str, key: str, body: bytes) -> bytes:
        state = self._state
        if kind == "delete many":
            return self._delete_many(body)
        if kind == "delete":
            state.put.discard(key)
            return answer(b"", "204 No Content")
        if kind == "put":
            state.put.add(key)
        elif key and key not in state.put and not self._pages.has(key):
            return answer(b"", "404 Not Found")
        written = f"Last-Modified: {formatdate(usegmt=True)}\r\n" if key in state.put else ""
        return answer(b"", extra=f'ETag: "{_ETAG_OF_ALL}"\r\n{written}')

    def _delete_many(self, body: bytes) -> bytes:
        faults = b""
        for key in [each for each in self._state.put if each.encode() in body]:
            if b"<ETag>" in body and _ETAG_OF_ALL.encode() not in body:
                faults += f"<Error><Key>{key}</Key><Code>PreconditionFailed</Code></Error>".encode()
            else:
                self._state.put.discard(key)
        quiet = b"<Quiet>true" in body
        gone = b"" if quiet else b"".join(b"<Deleted><Key>%s</Key></Deleted>" % key for key in _KEY.findall(body))
        return answer(f"{_XML}<DeleteResult{_SPACE}>".encode() + gone + faults + b"</DeleteResult>")

    @staticmethod
    def _kind(method: str, query: dict[str, list[str]]) -> str:
        if method == "POST":
            return "delete many"
        if method != "GET":
            return method.lower()
        if setting := next((each for each in (*_EMPTY, "object-lock") if each in query), None):
            return setting
        if "delimiter" in query:
            return "folders"
        return "versions" if "versions" in query else "v2" if "list-type" in query else "v1"


def _error(status: str, code: str, message: str) -> bytes:
    return answer(f"{_XML}<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode(), status)


def _expired(query: dict[str, list[str]]) -> bool:
    """Whether the request is signed by query string, and its time is over."""
    if "X-Amz-Expires" not in query:
        return False
    signed = datetime.strptime(query["X-Amz-Date"][0], "%Y%m%dT%H%M%S%z")
    return datetime.now(UTC) > signed + timedelta(seconds=int(query["X-Amz-Expires"][0]))


async def main(port: int, count: int, delays: tuple[float, float]) -> None:
    pages, state = Pages(keys(count)), State()
    server = await asyncio.get_running_loop().create_server(lambda: Server(pages, state, delays), "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    given = [float(each) for each in sys.argv[3:5]] or [0.0, 0.0]
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), (given[0], given[1])))
