"""A configuration that renames what a hold names: nothing of it goes until the hold is there under the new name."""

import pytest

from retentiond.control import approvals, holds
from retentiond.domain.holds import HoldState
from retentiond.errors import Guarded
from tests.services.process import run_retentiond


async def held(rig, **scope):
    """Five due records under a hold, that a sweep of the configuration in force keeps."""
    await rig.company()
    async with rig.app() as app:
        hold = await rig.hold(app, **scope)
    assert (await rig.only()).held == 5
    return hold


async def approved(rig):
    """As `policy approve` does: the operator saw that a target is new, and let it pass."""
    async with rig.app(enter=False) as app, app.database.transaction() as tx:
        await approvals.grant(tx, "policy", "", app.spec.digest, None, "test")


def renamed(rig):
    rig.targets = {"requests": rig.targets["logs"]}


def reclassed(rig):
    rig.targets["logs"]["class"] = "security_events"


CHANGES = [
    ({"targets": ("logs",)}, renamed, {"targets": ("requests",)}),
    ({"records": {"logs": ("1", "2", "3", "4", "5")}}, renamed, {"targets": ("requests",)}),
    ({"classes": ("operational_logs",)}, reclassed, {"targets": ("logs",)}),
]


@pytest.mark.parametrize(("scope", "change", "anew"), CHANGES)
async def test_an_approved_configuration_does_not_get_records_from_under_a_hold(rig, scope, change, anew):
    hold = await held(rig, **scope)
    change(rig)
    rig.policy = {"classes": {"security_events": {"ttl": "P30D"}}}
    await approved(rig)
    with pytest.raises(Guarded, match=hold.id) as refused:
        await rig.sweep()
    assert refused.value.guard == "holds"
    assert "place each hold anew" in refused.value.remedy
    assert len(await rig.ids()) == 8
    await rig.require_told(logs=0, requests=0)

    async with rig.app(enter=False) as app:
        await rig.hold(app, **anew)
        with pytest.raises(Guarded, match=hold.id):
            await rig.sweep()
        await holds.release(app.database, hold.id, "test", "renamed", record=app.hold_recorder("test"))
    for _ in range(2):
        (outcome,) = (await rig.sweep()).values()
        assert (outcome.outcome, outcome.changed, outcome.held) == ("drained", 0, 5)
    assert len(await rig.ids()) == 8


async def test_commands_say_which_hold_is_in_the_way(rig):
    hold = await held(rig, targets=("logs",))
    renamed(rig)
    env = rig.environment()
    assert (await run_retentiond("policy", "approve", env=env)).code == 0
    for command in (("sweep",), ("policy", "diff")):
        result = await run_retentiond(*command, env=env)
        assert result.code == 3
        assert hold.id in result.stdout + result.stderr
        assert "no target logs any more" in result.stdout + result.stderr
    found = await run_retentiond("check", "--json", env=env)
    assert found.code == 1
    assert [f["severity"] for f in found.json["findings"] if hold.id in f["message"]] == ["error"]
    assert len(await rig.ids()) == 8


async def test_keeping_the_name_goes_on_as_before(rig):
    hold = await held(rig, targets=("logs",))
    renamed(rig)
    with pytest.raises(Guarded, match=hold.id):
        await rig.sweep()
    rig.targets = {"logs": rig.targets["requests"]}
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed, outcome.held) == ("drained", 0, 5)
    async with rig.app() as app, app.database.transaction(read_only=True) as tx:
        assert (await holds.get(tx, hold.id)).state is HoldState.ACTIVE
