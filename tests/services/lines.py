"""Log files without a control database: a store over a folder, a plan with one term, and a sweep of one window."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime, timedelta

from retentiond.domain.permit import Lease, Permit, Unit
from retentiond.domain.plan import TargetPlan
from retentiond.domain.policy import parse_policy
from retentiond.stores.base import Window
from retentiond.stores.files.config import FilesTarget
from retentiond.stores.files.store import FilesStore

NOW = datetime.now(UTC)
POLICY = {"base": "none", "tiers": ["free"], "classes": {"logs": {"ttl": {"free": "P90D"}}}}


def plan(*, action="delete", **more):
    """All lines are of one tier, of 90 days."""
    policy, faults = parse_policy({key: POLICY[key] for key in ("tiers", "classes")}, used_classes=frozenset(["logs"]))
    assert policy is not None, faults
    usual = {"tier_source": "constant", "tier": "free", "knows_account": False, "has_directory": False}
    return TargetPlan("logs", policy.classes["logs"], policy, NOW, action=action, **{**usual, **more})


async def opened(folder, **more):
    """A store over `app*` of the folder."""
    usual = {"store": "files", "class": "logs", "path": f"{folder}/app*", "format": "jsonl", "anchor": "ts"}
    config = FilesTarget.model_validate({**usual, **more})
    store = FilesStore("logs", config, action=config.action or "delete", secret=b"s" * 32)
    await store.open(None)
    return store


def written(path, content, *, age=3600.0):
    """A file that was written to so long ago."""
    path.write_bytes(content)
    then = time.time() - age
    os.utime(path, (then, then))
    return path


def line(n=0, *, days=400.0, **more):
    """A line of so many days ago."""
    return json.dumps({"ts": (NOW - timedelta(days=days)).isoformat(), "n": n, **more}).encode() + b"\n"


OLD, YOUNG = line(1), line(2, days=1)


def permit(of):
    return Permit(1, Lease(Unit("logs"), "w", 1), of.epoch, "", "b", NOW, NOW + timedelta(seconds=30))


async def swept(store, of=None, *, before=None, size=100_000):
    """One window swept; `before` is awaited or called between what is intended and what is done. The tally."""
    of = of or plan(action=store.action)
    window = Window("files", None, size)
    async with store.batch(of) as batch:
        seen = await batch.looked(window)
        if not seen.selected:
            return seen
        await batch.attend()
        await batch.intended(permit(of), window)
        if before is not None:
            before()
        return await batch.erase(permit(of), window, salt="s")


def ours(folder):
    """What a sweep has left beside log files."""
    return sorted(each.name for each in folder.glob(".retentiond*") if each.suffix != ".lock")
