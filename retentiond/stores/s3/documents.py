"""The XML that S3 answers with: parsed by lxml, whole or as columns, with no regard to its namespace.

Some servers name a namespace and some none. Columns are read by one XPath each, which is the quickest; where a row
lacks an element the columns would shift, so their lengths are compared, and such a page is walked element by element.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import cast

from lxml import etree

from retentiond.errors import Unreachable

XMLNS = "http://s3.amazonaws.com/doc/2006-03-01/"
"""The namespace of what we write."""


class Malformed(Unreachable):
    """What the S3 endpoint answered is no document that it should answer with."""


def parse(body: bytes) -> etree._Element:
    """The root of a document; Malformed where it is none, or only the beginning of one."""
    try:
        # S3 may send spaces while it works, so that the connection is not taken for dead.
        return etree.fromstring(body.lstrip(), etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=True))
    except etree.XMLSyntaxError as error:
        raise Malformed(
            f"the S3 endpoint answered with {len(body)} bytes that are no whole XML document",
            remedy="it is tried again; if it stays, look whether a proxy in front of the endpoint cuts answers",
        ) from error


def name_of(element: etree._Element) -> str:
    """The element's name without its namespace; empty for a comment or an instruction."""
    tag: object = element.tag  # a function, of a comment
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def child(element: etree._Element, name: str) -> str | None:
    """The text of the first child of that name, None where there is none."""
    for each in element:
        if name_of(each) == name:
            return each.text or ""
    return None


def rows(root: etree._Element, *names: str) -> list[etree._Element]:
    """The children of those names, in the order of the document."""
    return [each for each in root if name_of(each) in names]


def columns(root: etree._Element, row: str, fields: Sequence[str]) -> list[list[str]] | None:
    """The texts of these fields of all children named `row`, a list each; None where some row lacks one of them."""
    space = etree.QName(root).namespace or ""
    count, paths = _paths(space, row, tuple(fields))
    expected = cast("float", count(root))
    found = [cast("list[str]", path(root)) for path in paths]
    return found if all(len(each) == expected for each in found) else None


@lru_cache(maxsize=64)
def _paths(space: str, row: str, fields: tuple[str, ...]) -> tuple[etree.XPath, tuple[etree.XPath, ...]]:
    prefix, namespaces = ("s:", {"s": space}) if space else ("", {})
    each = f"{prefix}{row}"
    return (
        etree.XPath(f"count({each})", namespaces=namespaces),
        tuple(
            etree.XPath(f"{each}/{prefix}{field}/text()", namespaces=namespaces, smart_strings=False)
            for field in fields
        ),
    )
