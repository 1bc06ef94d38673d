"""The documents of DeleteObjects."""

import hashlib
from base64 import b64decode
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from retentiond.stores.s3.bodies import body_of, checksum, fits, read_answer
from retentiond.stores.s3.documents import Malformed
from retentiond.stores.s3.items import Doomed

keys = st.text(min_size=1, max_size=40)
versions = st.none() | st.text(alphabet="abc&<.-_", min_size=1, max_size=5)


@given(st.lists(st.tuples(keys.filter(fits), versions, st.sampled_from(["", "e1", "e2-3"])), min_size=1), st.booleans())
def test_what_a_parser_reads_is_what_was_meant(rows, conditional):
    items = [Doomed(key, version, etag, 1, datetime(2026, 1, 1, tzinfo=UTC)) for key, version, etag in rows]
    root = etree.fromstring(body_of(items, conditional=conditional))
    found = [
        tuple(each.findtext(f"{{*}}{name}") for name in ("Key", "VersionId", "ETag"))
        for each in root.findall("{*}Object")
    ]
    assert [(key, version) for key, version, _ in found] == [(key, version) for key, version, _ in rows]
    for (_, _, etag), item in zip(found, items, strict=True):
        compared = conditional and item.etag and not item.fixed
        assert etag == (f'"{item.etag}"' if compared else None)
    assert root.findtext("{*}Quiet") == "true"


@pytest.mark.parametrize("key", ["a\x00b", "a\x01", "a\tb", "a\nb", "a\rb", "\x7f", "\x85", "\ufffe", "\udcff"])
def test_a_key_that_xml_would_change_or_refuse_does_not_fit(key):
    assert not fits(key)


@pytest.mark.parametrize("key", ["a b", "&<>'\"", "é", "\U0001f600", "]]>", "\xa0"])
def test_other_keys_fit(key):
    assert fits(key)


def test_the_checksums_are_of_the_whole_body():
    assert b64decode(checksum(b"body", "md5")["Content-MD5"]) == hashlib.md5(b"body").digest()
    assert checksum(b"123456789", "crc32")["x-amz-checksum-crc32"] == "y/Q5Jg=="


ITEMS = [Doomed("a", "v1"), Doomed("a", "v2"), Doomed("b", "v1"), Doomed("c")]


def answer(*rows):
    return f"<DeleteResult>{''.join(rows)}</DeleteResult>".encode()


def error(key, code, version=None):
    of = f"<VersionId>{version}</VersionId>" if version else ""
    return f"<Error><Key>{key}</Key>{of}<Code>{code}</Code></Error>"


def test_nothing_said_means_that_all_went():
    assert read_answer(answer(), ITEMS) == ({}, frozenset())


def test_an_error_is_of_the_version_that_it_names():
    assert read_answer(answer(error("a", "AccessDenied", "v2")), ITEMS) == ({1: "AccessDenied"}, frozenset())


def test_an_error_without_a_version_is_of_the_only_item_of_that_key():
    assert read_answer(answer(error("b", "AccessDenied")), ITEMS)[0] == {2: "AccessDenied"}


def test_an_error_without_a_version_is_of_every_version_that_is_not_told_to_be_gone():
    assert read_answer(answer(error("a", "AccessDenied")), ITEMS)[0] == {0: "AccessDenied", 1: "AccessDenied"}
    gone = "<Deleted><Key>a</Key><VersionId>v1</VersionId></Deleted>"
    faults, unsaid = read_answer(answer(gone, error("a", "AccessDenied")), ITEMS)
    assert (faults, unsaid) == ({1: "AccessDenied"}, frozenset({2, 3}))


def test_a_server_that_tells_what_went_must_tell_it_of_all():
    gone = "<Deleted><Key>c</Key></Deleted>"
    assert read_answer(answer(gone), ITEMS) == ({}, frozenset({0, 1, 2}))


@pytest.mark.parametrize(
    "body",
    [b"", b"<DeleteResult>", b"<Other/>", b"<DeleteResult><Error><Key>zz</Key><Code>X</Code></Error></DeleteResult>"],
)
def test_what_is_no_answer_to_the_question_is_none(body):
    with pytest.raises(Malformed):
        read_answer(body, ITEMS)


def test_an_answer_can_name_no_file_of_this_machine():
    body = b'<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]><DeleteResult><Error><Key>&e;</Key></Error></DeleteResult>'
    with pytest.raises(Malformed):
        read_answer(body, ITEMS)
