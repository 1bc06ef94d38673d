"""Lists of objects, versions and uploads: a page at a time, as columns, from any position.

A position is the last row's own key (and version or upload id), never a token or the server's `NextKeyMarker`: it
can be kept for another day, and a server that encodes its markers wrongly (Ceph: `a%20b`) can't make a
listing begin again. A page that does not go on from its position, or is in no order, is an error: a cursor over it
would lie.

Keys come URL-encoded, since XML can't carry every character of a key. Whether `+` is a space then is the server's
choice; where a page has one, the server is asked to repeat a prefix with both.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, unquote_plus

from lxml import etree

from retentiond.errors import Blind
from retentiond.stores.s3.documents import Malformed, child, columns, name_of, parse, rows
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.items import NULL
from retentiond.stores.s3.pages import ListPage, UploadPage, VersionPage

MOST = 1000
"""Rows of a page, at most; servers give fewer where they like."""
_REPEATED = re.compile(rb"<(StartAfter|(?:Next)?(?:Key)?Marker|(?:Next)?ContinuationToken)>[^<]*</\1>")
_SPACE_AND_PLUS = "retentiond +"


async def objects(
    bucket: Bucket, prefix: str = "", *, after: Sequence[str] | None = None, size: int = MOST
) -> ListPage:
    """The next page of the current objects under the prefix; raises Blind, Unreachable."""
    query = [("encoding-type", "url"), ("list-type", "2"), ("max-keys", str(size)), ("prefix", prefix)]
    if after is not None:
        query.append(("start-after", after[0]))
    root = await _list(bucket, query, "listing objects", "s3:ListBucket", "ListBucketResult")
    keys, modified, sizes, etags = _columns(root, ("Contents",), ("Key", "LastModified", "Size", "ETag"))
    keys = await _as_said(bucket, root, keys)
    _require_progress(bucket, keys, keys, after and after[0])
    ends = _more(bucket, root, (keys[-1],) if keys else None)
    return ListPage(keys, _instants(modified), _sizes(sizes), _bare(etags), ends)


async def versions(
    bucket: Bucket, prefix: str = "", *, after: Sequence[str] | None = None, size: int = MOST
) -> VersionPage:
    """The next page of all versions and markers under the prefix, newest of a key first; raises Blind, Unreachable."""
    if after is not None and len(after) == 1:
        return await _past(bucket, prefix, after, size)
    page = await _versions_after(bucket, prefix, after, size)
    if page.keys or page.after is not None or after is None:
        return page
    # A version that is gone is no position for every server (moto): so is nothing after it, or does it not know where?
    return await _past(bucket, prefix, after, size)


async def _versions_after(bucket: Bucket, prefix: str, after: Sequence[str] | None, size: int) -> VersionPage:
    query = [("encoding-type", "url"), ("max-keys", str(size)), ("prefix", prefix), ("versions", "")]
    if after is not None:
        query += [("key-marker", after[0])]
        query += [("version-id-marker", after[1])] if len(after) > 1 else []
    root = await _list(bucket, query, "listing versions", "s3:ListBucketVersions", "ListVersionsResult")
    return await _versions(bucket, root, after)


async def _past(bucket: Bucket, prefix: str, after: Sequence[str], size: int) -> VersionPage:
    """What comes after a position that may be none: after the key, where its own other versions can't be had."""
    if not await _skips_one(bucket, prefix):
        return await _versions_after(bucket, prefix, after[:1], size)
    position = None
    while True:
        page = await _versions_after(bucket, prefix, position, size)
        at = _place(page, after)
        if at < len(page.keys) or page.after is None:
            return page.part(at)
        position = page.after


def _place(page: VersionPage, after: Sequence[str]) -> int:
    """The first row that comes after the position; of a version that is gone, the first of its key."""
    edge = _bytes(after[0])
    if len(after) == 1:
        return bisect_right(page.keys, edge, key=_bytes)
    pairs = list(zip(page.keys, page.version_ids, strict=True))
    there = (after[0], after[1])
    return pairs.index(there) + 1 if there in pairs else bisect_left(page.keys, edge, key=_bytes)


async def _skips_one(bucket: Bucket, prefix: str) -> bool:
    """Whether this server, asked for what comes after a key that is not there, leaves out the first; asked once.

    moto does. There a listing can begin at its beginning only.
    """
    known: dict[str, bool] = bucket.endpoint.skips_one
    if bucket.name not in known:
        first = await _versions_after(bucket, prefix, None, 1)
        if not first.keys or len(first.keys[0]) < 2:
            return False
        page = await _versions_after(bucket, prefix, (first.keys[0][:-1],), 1)
        # Not because others have erased it meanwhile.
        again = page if page.keys == first.keys else await _versions_after(bucket, prefix, None, 1)
        known[bucket.name] = page.keys != first.keys == again.keys
    return known[bucket.name]


async def _versions(bucket: Bucket, root: etree._Element, after: Sequence[str] | None) -> VersionPage:
    common = ("Key", "LastModified", "VersionId", "IsLatest")
    kinds = [name for each in root if (name := name_of(each)) in _VERSIONS]
    markers = [each == "DeleteMarker" for each in kinds]
    if any(markers):
        fields = _walked(root, _VERSIONS, (*common, "Size", "ETag"))
    else:
        fields = _columns(root, ("Version",), (*common, "Size", "ETag"))
    fields[0] = await _as_said(bucket, root, fields[0])
    if any(markers) and not _ordered(fields[0]):  # some list all versions and then all markers
        order = sorted(range(len(markers)), key=fields[0].__getitem__)
        fields = [[column[i] for i in order] for column in fields]
        markers = [markers[i] for i in order]
    keys, modified, ids, latest, sizes, etags = fields
    # A bucket that never had versions may name none for its objects.
    ids = [each or NULL for each in ids]
    positions = list(zip(keys, ids, strict=True))
    _require_progress(bucket, keys, positions, after and tuple(after))
    # The server says which of a key's versions comes last: within a key there need be no order in what it lists.
    last = child(root, "NextVersionIdMarker")
    ends = _more(bucket, root, next((each for each in reversed(positions) if each[1] == last), _last(positions)))
    newest = [each == "true" for each in latest]
    return VersionPage(keys, _instants(modified), _sizes(sizes), _bare(etags), ids, newest, markers, ends)


async def uploads(
    bucket: Bucket, prefix: str = "", *, after: Sequence[str] | None = None, size: int = MOST
) -> UploadPage:
    """The next page of unfinished multipart uploads under the prefix; raises Blind, Unreachable."""
    query = [("max-uploads", str(size)), ("prefix", prefix), ("uploads", "")]
    if after is not None:
        query += [("key-marker", after[0]), ("upload-id-marker", after[1])]
    asked = ("listing uploads", "s3:ListBucketMultipartUploads", "ListMultipartUploadsResult")
    try:
        root = await _list(bucket, query, *asked)
        encoded = False
    except Malformed:
        # Ceph encodes these and does not say so, so that is asked for only where a key can't be written otherwise.
        root = await _list(bucket, [("encoding-type", "url"), *query], *asked)
        encoded = True
    keys, begun, ids = _columns(root, ("Upload",), ("Key", "Initiated", "UploadId"))
    keys = await _decoded(bucket, keys) if encoded else keys
    positions = list(zip(keys, ids, strict=True))
    # Ceph orders them by what it calls them inside, so of their order nothing is asked.
    _require_progress(bucket, [], positions, after and tuple(after))
    return UploadPage(keys, _instants(begun), ids, _more(bucket, root, _last(positions)))


async def folders(bucket: Bucket, prefix: str = "", *, after: str | None = None, most: int = MOST) -> list[str]:
    """What lies directly below the prefix and has a `/` after it: the first `most` of them, each with its `/`.

    With `after` only those of which keys come after that text.
    """
    query = [
        ("delimiter", "/"),
        ("encoding-type", "url"),
        ("list-type", "2"),
        ("max-keys", str(most)),
        ("prefix", prefix),
    ]
    if after is not None:
        query.append(("start-after", after))
    root = await _list(bucket, query, "listing folders", "s3:ListBucket", "ListBucketResult")
    return await _as_said(bucket, root, [child(each, "Prefix") or "" for each in rows(root, "CommonPrefixes")])


async def page_size(bucket: Bucket, prefix: str = "") -> int:
    """How many rows the endpoint is ready to list in a page, at most `MOST`."""
    query = [("encoding-type", "url"), ("list-type", "2"), ("max-keys", str(MOST)), ("prefix", prefix)]
    root = await _list(bucket, query, "listing objects", "s3:ListBucket", "ListBucketResult")
    return min(MOST, int(child(root, "MaxKeys") or MOST)) or MOST


_VERSIONS = ("Version", "DeleteMarker")


async def _list(bucket: Bucket, query: list[tuple[str, str]], asked: str, right: str, expected: str) -> etree._Element:
    body = bucket.require(await bucket.ask("GET", query=query), asked, right).body
    try:
        root = parse(body)
    except Malformed:
        # Rows are encoded, but not everywhere what is repeated of the request, which may hold what XML can't carry.
        root = parse(_REPEATED.sub(b"", body))
    if name_of(root) != expected:
        raise Malformed(
            f"bucket {bucket.name}: {asked}: the answer is a {name_of(root)} and no {expected}",
            remedy="check endpoint_url: something answers there that is no S3",
        )
    return root


def _columns(root: etree._Element, names: tuple[str, ...], fields: tuple[str, ...]) -> list[list[str]]:
    return columns(root, names[0], fields) or _walked(root, names, fields)


def _walked(root: etree._Element, names: tuple[str, ...], fields: tuple[str, ...]) -> list[list[str]]:
    found: list[list[str]] = [[] for _ in fields]
    for row in rows(root, *names):
        texts = {name_of(each): each.text or "" for each in row}
        for column, field in zip(found, fields, strict=True):
            column.append(texts.get(field, ""))
    return found


async def _as_said(bucket: Bucket, root: etree._Element, keys: list[str]) -> list[str]:
    """The keys as they are: moto's listing of versions is not encoded, whatever was asked for."""
    return await _decoded(bucket, keys) if child(root, "EncodingType") == "url" else keys


async def _decoded(bucket: Bucket, keys: list[str]) -> list[str]:
    """The keys without their encoding; a page in one go, since no encoded key has a line break."""
    if not keys:
        return keys
    together = "\n".join(keys)
    spaces = "+" in together and await _plus_is_space(bucket)
    decode = unquote_plus if spaces else unquote
    if "%0A" in together or "%0a" in together:
        return [decode(key, errors="surrogateescape") for key in keys]
    # Nearly all that is encoded are slashes, and those are cheaper to replace.
    together = together.replace("%2F", "/")
    # What is no UTF-8 stays the bytes that it is; a replacement character would name another object.
    return (decode(together, errors="surrogateescape") if "%" in together or spaces else together).split("\n")


async def _plus_is_space(bucket: Bucket) -> bool:
    """Whether this server encodes a space as `+` (and `+` as `%2B`); asked once."""
    known: dict[str, bool] = bucket.endpoint.plus_is_space
    if bucket.name not in known:
        query = [("encoding-type", "url"), ("list-type", "2"), ("max-keys", "1"), ("prefix", _SPACE_AND_PLUS)]
        root = await _list(bucket, query, "listing objects", "s3:ListBucket", "ListBucketResult")
        said = (child(root, "Prefix") or "").replace("retentiond", "")
        meaning = {"+%2B": True, "%20%2B": False, "%20+": False}.get(said)
        if meaning is None:
            raise Blind(
                f"bucket {bucket.name}: the endpoint does not tell a space in a key from a plus sign",
                remedy="objects whose keys have either can't be swept here; keep them under another prefix",
            )
        known[bucket.name] = meaning
    return known[bucket.name]


def _require_progress(bucket: Bucket, keys: list[str], positions: Sequence[Any], after: Any) -> None:
    """Raise Blind where keys are in no order, or the page has the very position that it was to begin after."""
    if not _ordered(keys) or (keys and after and keys[0] < (after if isinstance(after, str) else after[0])):
        raise Blind(
            f"bucket {bucket.name}: the endpoint lists keys in no order, so no position in it can be kept",
            remedy="only stores that list in the order of the keys' bytes can be swept",
        )
    if after and after in positions:
        raise Blind(
            f"bucket {bucket.name}: the endpoint lists again what it has listed before",
            remedy="see whether a proxy in front of it drops parts of the address",
        )


def _more(bucket: Bucket, root: etree._Element, last: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """Where the listing goes on: after the last position, or nowhere."""
    if child(root, "IsTruncated") != "true":
        return None
    if last is None:
        raise Blind(
            f"bucket {bucket.name}: the endpoint says that there is more, and lists nothing",
            remedy="it is tried again; if it stays, the bucket's index is damaged (Ceph: radosgw-admin bucket check)",
        )
    return last


def _last(positions: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    return positions[-1] if positions else None


def _ordered(keys: list[str]) -> bool:
    """Whether they are in the order of their bytes, which is that of code points where they are UTF-8."""
    return sorted(keys) == keys or sorted(keys, key=_bytes) == keys


def _bytes(key: str) -> bytes:
    return key.encode(errors="surrogateescape")


def _instants(texts: list[str]) -> list[datetime]:
    """Aware instants; a text that is none fails the page, for nobody could say when its record is due."""
    try:
        found = list(map(datetime.fromisoformat, texts))
    except ValueError as error:
        raise Malformed(f"the S3 endpoint listed a date that is none: {error}", remedy="check endpoint_url") from error
    return [each if each.tzinfo is not None else each.replace(tzinfo=UTC) for each in found]


def _sizes(texts: list[str]) -> list[int]:
    return [int(each or 0) for each in texts]


def _bare(etags: list[str]) -> list[str]:
    return [each.strip('"') for each in etags]
