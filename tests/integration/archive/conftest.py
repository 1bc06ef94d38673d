"""A company whose logs are archived: against moto's server in `make test`, and Ceph in `make test-system`."""

import pytest

from services.archives import place


@pytest.fixture(params=["moto", pytest.param("ceph", marks=pytest.mark.system)])
def s3(request):
    return request.getfixturevalue(f"{request.param}_server")


@pytest.fixture
async def ground(s3):
    """A bucket without versions."""
    async with s3.bucket() as made:
        yield made


@pytest.fixture
async def company(apart, ground):
    """Logs 1 to 5 are due, and to be archived in the bucket."""
    await apart.company()
    into(apart, ground)
    return apart


def into(rig, ground, **more):
    rig.target("logs", action="archive", region_group="eu", archive=place(ground.server, ground.name), **more)
