"""An S3 endpoint that costs nothing: `python -m benchmarks.canned_s3 PORT KEYS`. For measuring clients, not servers.

It keeps no state: list pages are made once, and every deletion succeeds at once, with nothing deleted. A page is found
by the marker that a client sends, whichever of the three kinds of listing it uses. Prints `ready`; `GET /_asked` tells
how many requests of each kind have come. Two more arguments are the seconds that a GET and that all else take.
"""

from __future__ import annotations

import asyncio
import re
import sys
from email.utils import formatdate
from urllib.parse import parse_qs, quote

import uvloop

_XML = '<?xml version="1.0" encoding="UTF-8"?>'
_SPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_DATE = "2024-05-06T07:08:09.000Z"
_ETAG = "&quot;9dd4e461268c8034f5c8564e155c67a6&quot;"
_PAGE = 1000
_KEY = re.compile(rb"<Key>([^<]*)</Key>")
_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def keys(count: int) -> list[str]:
    """Keys as an application's logs have them, in order."""
    each = count // 12 + 1
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
        self._starts = {name: i // _PAGE + 1 for i, name in enumerate(names) if i % _PAGE == _PAGE - 1}
        self._made: dict[tuple[str, bool, int], bytes] = {}

    def page(self, kind: str, query: dict[str, list[str]]) -> bytes:
        """The answer to a listing."""
        encoded = query.get("encoding-type") == ["url"]
        marker = next((query[n][0] for n in ("start-after", "key-marker", "marker") if query.get(n, [""])[0]), "")
        token = query.get("continuation-token", [""])[0]
        at = int(token) if token else self._starts.get(marker, 0)
        found = self._made.get((kind, encoded, at))
        if found is None:
            found = self._made[kind, encoded, at] = answer(self._body(kind, encoded, at).encode())
        return found

    def _body(self, kind: str, encoded: bool, at: int) -> str:
        names = self._names[at * _PAGE : (at + 1) * _PAGE]
        names = [quote(name, safe="") for name in names] if encoded else names
        more = (at + 1) * _PAGE < len(self._names)
        root = "ListVersionsResult" if kind == "versions" else "ListBucketResult"
        parts = [_XML, f"<{root}{_SPACE}><Name>bench</Name><Prefix></Prefix><MaxKeys>1000</MaxKeys>"]
        parts += ["<EncodingType>url</EncodingType>"] if encoded else []
        parts += [f"<IsTruncated>{str(more).lower()}</IsTruncated>", self._next(kind, names, at) if more else ""]
        form = self._version if kind == "versions" else self._object
        return "".join([*parts, *(form(name) for name in names), f"</{root}>"])

    @staticmethod
    def _next(kind: str, names: list[str], at: int) -> str:
        if kind == "v2":
            return f"<KeyCount>{len(names)}</KeyCount><NextContinuationToken>{at + 1}</NextContinuationToken>"
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


class Server(asyncio.Protocol):
    """One connection."""

    def __init__(self, pages: Pages, asked: dict[str, int], delays: tuple[float, float]) -> None:
        self._pages, self._asked, self._delays = pages, asked, delays
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
            said = dated(self._answer(method, target, body))
            delay = self._delays[0] if method == "GET" else self._delays[1]
            if delay:
                asyncio.get_running_loop().call_later(delay, self._transport.write, said)
            else:
                self._transport.write(said)

    def _answer(self, method: str, target: str, body: bytes) -> bytes:
        path, _, text = target.partition("?")
        query = parse_qs(text, keep_blank_values=True)
        if path == "/_asked":
            return answer(repr(self._asked).encode())
        kind = self._kind(method, query)
        self._asked[kind] = self._asked.get(kind, 0) + 1
        if kind == "delete many":
            quiet = b"<Quiet>true" in body
            gone = b"" if quiet else b"".join(b"<Deleted><Key>%s</Key></Deleted>" % key for key in _KEY.findall(body))
            return answer(f"{_XML}<DeleteResult{_SPACE}>".encode() + gone + b"</DeleteResult>")
        if kind == "delete":
            return answer(b"", "204 No Content")
        if kind == "head":
            return answer(b"", extra='ETag: "9dd4e461268c8034f5c8564e155c67a6"\r\n')
        if kind == "location":
            return answer(f"{_XML}<LocationConstraint{_SPACE}></LocationConstraint>".encode())
        if path == "/":
            bucket = f"<Bucket><Name>bench</Name><CreationDate>{_DATE}</CreationDate></Bucket>"
            return answer(
                f"{_XML}<ListAllMyBucketsResult{_SPACE}><Buckets>{bucket}</Buckets></ListAllMyBucketsResult>".encode()
            )
        return self._pages.page(kind, query)

    @staticmethod
    def _kind(method: str, query: dict[str, list[str]]) -> str:
        if method == "POST":
            return "delete many"
        if method in {"DELETE", "HEAD"}:
            return method.lower()
        if "location" in query:
            return "location"
        return "versions" if "versions" in query else "v2" if "list-type" in query else "v1"


async def main(port: int, count: int, delays: tuple[float, float]) -> None:
    pages, asked = Pages(keys(count)), {}
    server = await asyncio.get_running_loop().create_server(lambda: Server(pages, asked, delays), "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    given = [float(each) for each in sys.argv[3:5]] or [0.0, 0.0]
    uvloop.run(main(int(sys.argv[1]), int(sys.argv[2]), (given[0], given[1])))
