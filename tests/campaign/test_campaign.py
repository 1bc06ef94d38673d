"""Short campaigns: the product keeps its promises, and a product that is broken is found out."""

import asyncio
import secrets
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.system
ROOT = Path(__file__).parents[2]


async def campaign(*args):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.campaign",
        *args,
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode()


async def test_a_short_campaign_of_a_seed_that_nobody_has_tried(tmp_path):
    code, output = await campaign("--seconds", "90", "--seed", str(secrets.randbelow(10**9)))
    assert code == 0, output
    assert "every promise was kept" in output


@pytest.mark.parametrize(("sabotage", "found"), [("holds", "held"), ("barrier", "held"), ("clock", "not due")])
async def test_a_product_that_breaks_a_promise_is_found_out(sabotage, found):
    code, output = await campaign("--seconds", "45", "--seed", "5", "--sabotage", sabotage)
    assert code == 1, output
    assert f"VIOLATION {found}" in output, output
