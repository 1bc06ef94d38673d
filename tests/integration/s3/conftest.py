"""The same tests against moto's server in `make test`, and against Ceph in `make test-system`."""

import pytest


@pytest.fixture(params=["moto", pytest.param("ceph", marks=pytest.mark.system)])
def s3(request):
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
async def ground(s3):
    """A bucket without versions."""
    async with s3.bucket() as made:
        yield made


@pytest.fixture
async def versioned(s3):
    """A bucket that keeps versions."""
    async with s3.bucket(versioned=True) as made:
        yield made


@pytest.fixture
async def locked(s3):
    """A bucket with Object Lock."""
    async with s3.bucket(lock=True) as made:
        yield made
