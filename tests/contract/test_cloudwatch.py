"""The contract, kept by log groups: the window of a signature is the fence."""

import pytest

from tests.contract.behaviours import Contract
from tests.services.log_groups import log_ground, prepared
from tests.services.strict_logs import strict


class TestLogGroups(Contract):
    """At moto's server, behind what AWS checks and moto does not: the signature, its age, the retention's values."""

    @pytest.fixture
    async def subject(self, apart, moto_server):
        async with log_ground(moto_server) as ground, strict(moto_server) as proxy:
            yield await prepared(apart, ground, endpoint_url=proxy.server.url, unfenced=False)
            assert {code for asked, code in proxy.refused if b"retentiond-probe" not in asked.body} == set()

    async def test_a_damaged_directory_stops_a_sweep_whose_records_then_are_more_than_it_counted(self, subject):
        """Where retention is not set here: the guard over that would stop the sweep before it counts anything."""
        subject.rig.targets["logs"]["retention"] = "leave"
        await super().test_a_damaged_directory_stops_a_sweep_whose_records_then_are_more_than_it_counted(subject)
