"""The contract, kept by log groups: the window of a signature is the fence."""

import pytest

from tests.contract.behaviours import Contract
from tests.services.log_groups import log_ground, prepared


class TestLogGroups(Contract):
    """At moto's server."""

    @pytest.fixture
    async def subject(self, apart, moto_server):
        async with log_ground(moto_server) as ground:
            yield await prepared(apart, ground)
