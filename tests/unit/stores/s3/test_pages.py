"""List pages that are made up: servers that encode, order and end in ways of their own."""

from datetime import UTC, datetime

import pytest

from retentiond.errors import Blind
from retentiond.stores.s3 import listing
from retentiond.stores.s3.documents import Malformed
from retentiond.stores.s3.endpoint import Reply

NS = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'


class Scripted:
    """A bucket whose answers are written beforehand; `asked` has the queries."""

    def __init__(self, *bodies):
        self.bodies, self.asked, self.name = list(bodies), [], "b"
        self.plus_is_space, self.skips_one = {}, {}
        self.endpoint = self

    async def ask(self, method, key="", query=()):
        self.asked.append(dict(query))
        return Reply(200, {}, self.bodies.pop(0).encode())

    def require(self, reply, asked, right):
        assert reply.trouble is None
        return reply


def contents(*keys, more=False, encoding="<EncodingType>url</EncodingType>", prefix="", namespace=NS, row=None):
    rows = "".join(
        row
        or f"<Contents><Key>{key}</Key><LastModified>2024-05-06T07:08:09.000Z</LastModified><ETag>&quot;e&quot;</ETag>"
        f"<Size>1</Size></Contents>"
        for key in keys
    )
    return (
        f"<ListBucketResult {namespace}>{encoding}<Prefix>{prefix}</Prefix>"
        f"<IsTruncated>{str(more).lower()}</IsTruncated>{rows}</ListBucketResult>"
    )


@pytest.mark.parametrize(
    ("echo", "key"), [("retentiond+%2B", "a b/c"), ("retentiond%20%2B", "a+b/c"), ("retentiond%20+", "a+b/c")]
)
async def test_a_plus_means_what_the_server_means_by_it(echo, key):
    bucket = Scripted(contents("a+b%2Fc"), contents(prefix=echo), contents("a+b%2Fc"))
    assert (await listing.objects(bucket)).keys == [key]
    assert (await listing.objects(bucket)).keys == [key]
    assert len(bucket.asked) == 3


async def test_where_a_plus_can_not_be_told_from_a_space_nothing_is_listed():
    with pytest.raises(Blind, match="does not tell a space"):
        await listing.objects(Scripted(contents("a+b"), contents(prefix="retentiond +")))


async def test_a_page_that_is_not_encoded_is_taken_as_it_is():
    assert (await listing.objects(Scripted(contents("a%20b+", encoding="")))).keys == ["a%20b+"]


@pytest.mark.parametrize("namespace", ["", NS, 'xmlns="http://other/"'])
async def test_the_namespace_does_not_matter(namespace):
    page = await listing.objects(Scripted(contents("a", "b", namespace=namespace)))
    assert (page.keys, page.sizes, page.etags) == (["a", "b"], [1, 1], ["e", "e"])
    assert page.modified[0] == datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


async def test_a_row_that_lacks_a_field_does_not_lend_it_from_the_next():
    bare = "<Contents><Key>a</Key><LastModified>2024-05-06T07:08:09Z</LastModified><Size>7</Size></Contents>"
    body = contents("b").replace("<Contents>", bare + "<Contents>", 1)
    page = await listing.objects(Scripted(body))
    assert (page.keys, page.sizes, page.etags) == (["a", "b"], [7, 1], ["", "e"])


async def test_a_key_that_is_no_utf_8_keeps_its_bytes():
    [key] = (await listing.objects(Scripted(contents("a%FFb")))).keys
    assert key.encode(errors="surrogateescape") == b"a\xffb"


@pytest.mark.parametrize("body", [contents("b", "a"), contents("a", "c", "b")])
async def test_a_listing_in_no_order_is_refused(body):
    with pytest.raises(Blind, match="in no order"):
        await listing.objects(Scripted(body))


async def test_a_listing_that_never_ends_is_refused():
    with pytest.raises(Blind, match="again what it has listed"):
        await listing.objects(Scripted(contents("a", "b", more=True)), after=("a",))
    with pytest.raises(Blind, match="in no order"):
        await listing.objects(Scripted(contents("a", "b", more=True)), after=("b",))
    with pytest.raises(Blind, match="there is more, and lists nothing"):
        await listing.objects(Scripted(contents(more=True)))


@pytest.mark.parametrize("body", ["", "<ListBucketResult>", "<html/>", "no xml", contents("a")[:-30]])
async def test_what_is_no_list_is_refused(body):
    with pytest.raises(Malformed):
        await listing.objects(Scripted(body))


async def test_a_date_that_is_none_is_refused():
    with pytest.raises(Malformed, match="a date that is none"):
        await listing.objects(Scripted(contents("a").replace("2024-05-06T07:08:09.000Z", "lately")))


def version(key, id, kind="Version", date="2024-05-06T07:08:09.000Z"):
    size = "<Size>1</Size><ETag>&quot;e&quot;</ETag>" if kind == "Version" else ""
    return (
        f"<{kind}><Key>{key}</Key><VersionId>{id}</VersionId><IsLatest>false</IsLatest>"
        f"<LastModified>{date}</LastModified>{size}</{kind}>"
    )


def versions(*rows, more=False, last=""):
    marker = f"<NextVersionIdMarker>{last}</NextVersionIdMarker>" if last else ""
    return f"<ListVersionsResult {NS}><IsTruncated>{str(more).lower()}</IsTruncated>{marker}{''.join(rows)}</ListVersionsResult>"


async def test_markers_that_are_listed_after_all_versions_come_to_their_keys():
    body = versions(version("a", "1"), version("b", "1"), version("a", "2", "DeleteMarker"), more=True, last="1")
    page = await listing.versions(Scripted(body))
    assert list(zip(page.keys, page.is_marker, page.sizes, strict=True)) == [
        ("a", False, 1),
        ("a", True, 0),
        ("b", False, 1),
    ]
    assert page.after == ("b", "1")


async def test_a_listing_of_versions_goes_on_after_the_row_that_the_server_names():
    body = versions(version("a", "3"), version("a", "1"), version("a", "2", "DeleteMarker"), more=True, last="1")
    assert (await listing.versions(Scripted(body))).after == ("a", "1")


async def test_a_position_that_is_gone_does_not_end_the_listing():
    first = versions(version("aa", "1"))
    bucket = Scripted(versions(), first, first, versions(version("b", "1")))
    page = await listing.versions(bucket, after=("aa", "gone"))
    assert page.keys == ["b"]
    assert [each.get("key-marker") for each in bucket.asked] == ["aa", None, "a", "aa"]
    assert "version-id-marker" not in bucket.asked[3]


async def test_a_position_that_is_there_and_the_last_ends_the_listing():
    first = versions(version("aa", "1"))
    page = await listing.versions(Scripted(versions(), first, first, versions()), after=("aa", "1"))
    assert (page.keys, page.after) == ([], None)


PLACES = [
    (("ab",), ["b"]),
    (("aa",), ["b"]),
    (("a",), ["aa", "aa", "b"]),
    (("aa", "1"), ["aa", "b"]),
    (("aa", "0"), ["aa", "aa", "b"]),
]


@pytest.mark.parametrize(("after", "left"), PLACES)
async def test_where_a_server_leaves_one_out_after_what_is_not_there_all_is_listed(after, left):
    first, other = versions(version("aa", "1"), more=True, last="1"), versions(version("b", "1"))
    whole = versions(version("aa", "1"), version("aa", "2"), version("b", "1"))
    bucket = Scripted(*([versions()] if len(after) > 1 else []), first, other, first, whole)
    assert (await listing.versions(bucket, after=after)).keys == left
    assert bucket.skips_one == {"b": True}
