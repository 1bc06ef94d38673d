"""The contract, kept by lines of log files: that its worker is there is the fence."""

import pytest

from tests.contract.behaviours import Contract
from tests.services.logs import prepared


class OfFiles(Contract):
    """What is another for files: of accounts that no line goes of nobody asks again under the permit."""

    async def test_a_damaged_directory_stops_a_sweep_whose_records_then_are_more_than_it_counted(self, subject):
        for key in range(1, 11):
            await subject.add(key, account=subject.pro if key > 2 else subject.free, days=200)
        subject.rig.guards = {"max_fraction": 0.5, "min_records": 0}

        async def damage():
            await subject.rig.db.execute("UPDATE accounts SET deleted_at = now() - interval '90 days' WHERE id = 2")

        with subject.meanwhile(damage):
            outcome = await subject.rig.only()
        assert outcome.changed == 2, "what became due by it is for the next sweep to count, and its guard"
        again = await subject.rig.only()
        assert (again.outcome, again.changed) == ("guarded", 0)
        assert len(await subject.left()) == 8


class TestLines(OfFiles):
    """A line a file: files go whole."""

    @pytest.fixture
    async def subject(self, apart, tmp_path):
        yield await prepared(apart, tmp_path)


class TestLinesTogether(OfFiles):
    """Lines that go and lines that stay in one packed file: it is rewritten."""

    @pytest.fixture(params=[".gz", ".zst"])
    async def subject(self, request, apart, tmp_path):
        yield await prepared(apart, tmp_path, suffix=request.param, each=4 if request.param == ".gz" else 10_000)
