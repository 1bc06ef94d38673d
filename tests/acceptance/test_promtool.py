"""`/metrics` by the rules of Prometheus' own tool."""

import asyncio
import os
import shutil

import pytest

from tests.acceptance.test_core import company, env  # noqa: F401 - fixtures
from tests.services.daemon import running

pytestmark = pytest.mark.system


async def test_promtool_has_nothing_to_say_against_the_metrics(env, company):
    tool = os.environ.get("PROMTOOL") or shutil.which("promtool")
    assert tool, "promtool is missing; remedy: install the package prometheus, or name it by PROMTOOL"
    async with running(env) as daemon:
        await daemon.until_ready()
        text = await daemon.text()
    process = await asyncio.create_subprocess_exec(
        *(tool, "check", "metrics"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate(text.encode())
    assert (process.returncode, said.decode()) == (0, "")
