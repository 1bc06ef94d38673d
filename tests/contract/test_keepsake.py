"""The contract of an expiry fence, kept by a store of a few lines: the sweeper's order of such a batch."""

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from uuid import uuid4

import pytest

from retentiond import daemon_spec
from retentiond.stores import registry
from tests.contract.behaviours import Contract, Subject
from tests.contract.keepsake import SERVERS, Keepsake, KeepsakeBatch, KeepsakeTarget, Server
from tests.services.sweeping import ACCOUNTS


class KeepsakeSubject(Subject):
    """Objects whose key is the number, padded so that texts sort as numbers do."""

    def __init__(self, rig, server, patch):
        super().__init__(rig)
        self.server, self._patch = server, patch

    async def add(self, key, *, account="1", days=400):
        self.server.put(f"{key:06}", account, datetime.now(UTC) - timedelta(days=days))

    async def left(self):
        return {int(key) for key in self.server.objects}

    @contextmanager
    def dying(self, at):
        import asyncio

        async def die():
            raise asyncio.CancelledError

        name = f"{at}_delete"
        setattr(self.server, name, die)
        yield
        setattr(self.server, name, None)

    @contextmanager
    def meanwhile(self, work):
        whole, done = KeepsakeBatch.intended, []

        async def intended(batch, permit, window):
            if not done:
                done.append(permit)
                await work()
            return await whole(batch, permit, window)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(KeepsakeBatch, "intended", intended)
            yield
        assert done

    async def let_time_pass(self, seconds=3600):
        async with self.rig.control_connection() as control:
            await control.execute(
                "UPDATE retentiond.permits SET issued_at = issued_at - make_interval(secs => $1),"
                " deadline = deadline - make_interval(secs => $1) WHERE ended_at IS NULL",
                seconds,
            )


@pytest.fixture
async def subject(apart, monkeypatch):
    kind = daemon_spec.Kind(
        lambda config: daemon_spec.Facts(has_account=True, has_tier=False),
        lambda config, target, shared: Keepsake(target.name, config, target.action),
    )
    monkeypatch.setattr(
        registry, "CONFIG_MODELS", MappingProxyType({**registry.CONFIG_MODELS, "keepsake": KeepsakeTarget})
    )
    monkeypatch.setattr(daemon_spec, "KINDS", MappingProxyType({**daemon_spec.KINDS, KeepsakeTarget: kind}))
    name = f"server-{uuid4().hex[:8]}"
    SERVERS[name] = Server()
    await apart.db.execute(ACCOUNTS)
    apart.targets["logs"] = {
        "store": "keepsake",
        "server": name,
        "class": "operational_logs",
        "pace": {"duty": 1.0, "max_batch": 10, "batch_seconds": 5.0},
    }
    yield KeepsakeSubject(apart, SERVERS[name], monkeypatch)
    del SERVERS[name]


class TestKeepsake(Contract):
    """All that every store does."""
