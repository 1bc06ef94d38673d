"""The clock set two years ahead, by libfaketime: nothing is erased."""

import pytest

from tests.acceptance.test_core import DUE, company, env  # noqa: F401 - fixtures
from tests.services.process import run_retentiond

pytestmark = pytest.mark.system


@pytest.mark.parametrize("offset", ["+2y", "-2y"])
async def test_a_host_clock_that_is_years_off_erases_nothing(env, company, offset):
    before = await company.fetchval("SELECT count(*) FROM request_logs")
    result = await run_retentiond("sweep", "--json", env=env, prefix=["faketime", "-f", offset])
    assert result.code == 3, result.stderr
    for target in result.json["targets"].values():
        assert target["outcome"] == "guarded"
        assert "clock" in target["error"]["message"]
    assert await company.fetchval("SELECT count(*) FROM request_logs") == before
    again = await run_retentiond("sweep", "--json", env=env)
    assert again.code == 0, again.stderr
    assert await company.fetchval(DUE) == 0


async def test_a_clock_that_jumped_on_its_own_machine_waits_for_an_approval(env, company):
    assert (await run_retentiond("sweep", env=env)).code == 0
    await company.execute("UPDATE retentiond.clock SET high_water = now() - interval '8 days'")
    await company.execute("INSERT INTO request_logs (account_id, created_at) VALUES (1, now() - interval '2 years')")
    assert (await run_retentiond("sweep", env=env)).code == 3
    assert await company.fetchval(DUE) == 1
    assert (await run_retentiond("approve", "--clock", env=env)).code == 0
    assert (await run_retentiond("sweep", env=env)).code == 0
    assert await company.fetchval(DUE) == 0
