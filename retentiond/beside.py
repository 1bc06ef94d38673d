"""One piece of work beside another, both of them ended when the block is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, T]) -> AsyncIterator[asyncio.Task[T]]:
    """Run it beside the block, which awaits the task for its result; a task that is not done by then is cancelled."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        # Waited for: a connection that it uses must be free again.
        await asyncio.gather(task, return_exceptions=True)
