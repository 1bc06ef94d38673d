"""Where no S3 can be reached: what is said, and that nothing goes a way that leads elsewhere."""

import pytest

from retentiond.errors import Blind, Unreachable
from retentiond.stores.s3 import buckets, listing
from retentiond.stores.s3.endpoint import Access, Endpoint
from tests.services.postgres import free_port


@pytest.fixture
async def looking():
    """Opens buckets, and closes them again."""
    opened = []

    async def look(access, name="bucket"):
        endpoint = await Endpoint.open(access)
        opened.append(endpoint)
        return await endpoint.locate(name)

    yield look
    for endpoint in opened:
        await endpoint.close()


def access(url, **more):
    return Access(url, "us-east-1", "key", "secret", **more)


async def test_a_profile_that_is_not_there_is_said(monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "nowhere")
    with pytest.raises(Unreachable, match="nowhere"):
        await Endpoint.open(Access())


@pytest.mark.parametrize("ask", [buckets.versioning, listing.objects], ids=["by botocore", "by us"])
async def test_an_endpoint_that_does_not_listen_is_named_with_its_port(looking, ask):
    port = free_port()
    bucket = await looking(access(f"http://127.0.0.1:{port}"))
    with pytest.raises(Unreachable, match=rf"^S3 at 127\.0\.0\.1:{port}: Connect") as caught:
        await ask(bucket)
    assert "endpoint_url" in caught.value.remedy


@pytest.mark.parametrize("ask", [buckets.versioning, listing.objects], ids=["by botocore", "by us"])
async def test_where_only_the_name_with_the_bucket_in_front_is_unknown_addressing_is_proposed(looking, ask):
    bucket = await looking(access("http://no-such-host.invalid:9000", addressing="virtual"))
    with pytest.raises(Unreachable) as caught:
        await ask(bucket)
    assert "bucket.no-such-host.invalid:9000" in caught.value.message
    assert "addressing to path" in caught.value.remedy


async def test_no_proxy_is_asked_for_a_server_on_this_machine(moto_server, looking, monkeypatch):
    async with moto_server.bucket() as made:
        await made.put("k")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
        bucket = await looking(moto_server.access(), made.name)
        assert (await listing.objects(bucket)).keys == ["k"]
        assert await buckets.versioning(bucket) == "off"


async def test_something_else_that_listens_is_no_s3(moto_server, looking):
    bucket = await looking(access(f"{moto_server.url}/moto-api/no/such/path", addressing="path"))
    with pytest.raises((Blind, Unreachable)) as caught:
        await listing.objects(bucket)
    assert "endpoint_url" in caught.value.remedy
