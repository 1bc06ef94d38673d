"""Lists of objects, versions and uploads, from any position, of keys of every kind."""

import pytest

from retentiond.stores.s3 import listing
from retentiond.stores.s3.ahead import Ahead
from tests.services.s3_keys import KEYS, storable


async def every(fetch, size=3):
    """All pages of a listing, by the positions that it gives."""
    pages = [await fetch(after=None, size=size)]
    while pages[-1].after is not None:
        pages.append(await fetch(after=pages[-1].after, size=size))
        assert len(pages) < 200
    return pages


async def test_keys_of_every_kind_are_listed_as_they_are_on_whatever_page(ground):
    keys = storable(ground.server)
    await ground.put(*keys)
    for size in (1, 3, 1000):

        async def fetch(after, size):
            return await listing.objects(ground.bucket, after=after, size=size)

        assert sorted(key for page in await every(fetch, size) for key in page.keys) == sorted(keys)


async def test_versions_and_markers_of_every_kind_of_key_are_listed_once(versioned):
    keys = [key for key in storable(versioned.server) if key.isprintable()]
    await versioned.put(*keys)
    await versioned.put(*keys, body=b"second")
    for key in keys:
        await versioned.client.delete_object(Bucket=versioned.name, Key=key)

    async def fetch(after, size):
        return await listing.versions(versioned.bucket, after=after, size=size)

    pages = await every(fetch, 4)
    rows = [row for page in pages for row in zip(page.keys, page.version_ids, page.is_marker, page.sizes, strict=True)]
    assert len({(key, version) for key, version, _, _ in rows}) == len(rows) == 3 * len(keys)
    assert sorted(key for key, _, marker, _ in rows if marker) == sorted(keys)
    assert {size for *_, marker, size in rows if marker} == {0}
    assert sum(latest for page in pages for latest in page.is_latest) == len(keys)


async def test_an_object_from_before_versions_has_the_version_null(ground):
    await ground.put("old")
    await ground.client.put_bucket_versioning(Bucket=ground.name, VersioningConfiguration={"Status": "Enabled"})
    await ground.put("old", body=b"newer")
    page = await listing.versions(ground.bucket)
    assert page.keys == ["old", "old"]
    assert page.version_ids.count("null") == 1


async def test_columns_say_of_an_object_what_a_head_says(ground):
    await ground.put("one", body=b"12345")
    page = await listing.objects(ground.bucket)
    head = await ground.client.head_object(Bucket=ground.name, Key="one")
    assert (page.keys, page.sizes, page.etags) == (["one"], [5], [head["ETag"].strip('"')])
    assert page.modified[0].replace(microsecond=0) == head["LastModified"]


async def test_uploads_are_listed_with_keys_of_every_kind(ground):
    keys = [key for key in storable(ground.server) if key.isprintable() and len(key) < 100]
    begun = {}
    for key in keys:
        made = await ground.client.create_multipart_upload(Bucket=ground.name, Key=key)
        begun[key] = made["UploadId"]
    page = await listing.uploads(ground.bucket)
    assert dict(zip(page.keys, page.upload_ids, strict=True)) == begun


async def test_only_what_is_under_the_prefix_is_listed(ground):
    await ground.put("a/1", "a/2", "ab", "b")
    assert (await listing.objects(ground.bucket, "a/")).keys == ["a/1", "a/2"]
    assert (await listing.objects(ground.bucket, "none/")).keys == []


async def test_folders_are_what_lies_directly_below_a_prefix(ground):
    await ground.put("p/a b/1", "p/c/d/1", "p/x", "q")
    assert await listing.folders(ground.bucket, "p/") == ["p/a b/", "p/c/"]


async def test_pages_fetched_ahead_are_the_pages(ground):
    keys = [f"k{i:03}" for i in range(25)]
    await ground.put(*keys)
    reader = Ahead(lambda after: listing.objects(ground.bucket, after=after, size=4), depth=3)
    found, after = [], None
    while True:
        page = await reader.page(after)
        found += page.keys
        if (after := page.after) is None:
            break
    assert found == keys
    assert (await reader.page(("k010",))).keys == ["k011", "k012", "k013", "k014"]
    await reader.close()


@pytest.mark.parametrize("key", ["a b", "a+b", "a%20b", "//x"])
async def test_a_listing_goes_on_after_a_key_that_servers_encode_wrongly(ground, key):
    await ground.put(key, "~")
    first = await listing.objects(ground.bucket, size=1)
    assert first.keys == [key]
    assert (await listing.objects(ground.bucket, after=first.after, size=1)).keys == ["~"]
    assert KEYS
