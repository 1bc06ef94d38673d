"""The documents of DeleteObjects: what we write, and what is read out of its answer."""

from __future__ import annotations

import re
import zlib
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import md5
from xml.sax.saxutils import escape

from retentiond.stores.s3.documents import XMLNS, Malformed, child, name_of, parse
from retentiond.stores.s3.errors import code_of
from retentiond.stores.s3.items import Checksum, Doomed

# XML 1.0 carries tab, line feed and carriage return as well, but parsers make spaces and line feeds of them.
_BEYOND_XML = re.compile("[^ -~\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NEEDS_CARE = re.compile("[&<>]")
_HEAD = f'<?xml version="1.0" encoding="UTF-8"?><Delete xmlns="{XMLNS}"><Quiet>true</Quiet>'


def fits(key: str) -> bool:
    """Whether XML carries the key, or several joined, as it is: no control character, nothing that is not UTF-8."""
    return _BEYOND_XML.search(key) is None


def body_of(items: Sequence[Doomed], *, conditional: bool) -> bytes:
    """The document that asks for these (whose keys fit); with their ETags where those are to be compared."""
    keys = [each.key for each in items]
    if _NEEDS_CARE.search("".join(keys)):
        keys = [escape(key) for key in keys]
    if any(each.version_id is not None for each in items):
        tails = [_tail(each, conditional) for each in items]
    elif conditional:
        etags = [each.etag for each in items]
        if _NEEDS_CARE.search("".join(etags)):
            etags = [escape(etag) for etag in etags]
        tails = [f"<ETag>&quot;{etag}&quot;</ETag>" if etag else "" for etag in etags]
    else:
        tails = [""] * len(keys)
    objects = [f"<Object><Key>{key}</Key>{tail}</Object>" for key, tail in zip(keys, tails, strict=True)]
    return "".join([_HEAD, *objects, "</Delete>"]).encode()


def _tail(item: Doomed, conditional: bool) -> str:
    version = "" if item.version_id is None else f"<VersionId>{escape(item.version_id)}</VersionId>"
    compared = conditional and item.etag and not item.fixed
    return version + (f"<ETag>&quot;{escape(item.etag)}&quot;</ETag>" if compared else "")


def checksum(body: bytes, kind: Checksum) -> dict[str, str]:
    """The headers by which the server sees that the body is whole, and is the one that was signed for."""
    if kind == "md5":
        return {"Content-MD5": b64encode(md5(body, usedforsecurity=False).digest()).decode()}
    crc = b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
    return {"x-amz-sdk-checksum-algorithm": "CRC32", "x-amz-checksum-crc32": crc}


def read_answer(body: bytes, items: Sequence[Doomed]) -> tuple[Mapping[int, str], frozenset[int]]:
    """The codes of items (by their place) that were not erased, and the items that the answer wrongly leaves out.

    We ask for errors alone. A server that tells also what it has erased, all the same, must tell it of every item.
    Malformed: it is no answer, or speaks of what was not asked for.
    """
    root = parse(body)
    if name_of(root) != "DeleteResult":
        raise Malformed(f"the answer to a deletion is a {name_of(root)}", remedy="check endpoint_url")
    if len(root) == 0:
        return {}, frozenset()
    places = {(item.key, item.version_id or ""): at for at, item in enumerate(items)}
    faults: dict[int, str] = {}
    vague: dict[int, str] = {}
    told: set[int] = set()
    tells_all = False
    for row in root:
        name = name_of(row)
        if name not in {"Error", "Deleted"}:
            continue
        key, version = child(row, "Key") or "", child(row, "VersionId") or ""
        exact = places.get((key, version))
        # Some servers leave the version's id out, or give one that nobody asked for.
        meant = [exact] if exact is not None else [at for at, item in enumerate(items) if item.key == key]
        if name == "Deleted":
            tells_all = True
            told.update(meant if len(meant) == 1 else ())
        elif not meant:
            raise Malformed(
                f"the answer to a deletion has {code_of(row)} for what was not asked for", remedy="check endpoint_url"
            )
        else:
            (faults if len(meant) == 1 else vague).update(dict.fromkeys(meant, code_of(row)))
    faults = {at: code for at, code in vague.items() if at not in told} | faults
    unsaid = frozenset(range(len(items))) - told - faults.keys() if tells_all else frozenset()
    return faults, unsaid
