"""`permit`: what waits for what, and an operator's word."""

from retentiond.control import permits, units
from retentiond.domain.permit import Unit
from tests.services.process import run_retentiond


async def abandoned(rig):
    """A permit that rests on the presence of a worker that is gone."""
    async with rig.app() as app:
        async with app.database.transaction() as tx:
            await units.ensure(tx, [Unit("logs")])
        lease = await units.acquire(app.database, Unit("logs"), "worker-1")
        number = await permits.reserve(app.database)
        intent = {"batch": "b", "fence": "presence", "presence": {}}
        epoch = 1
        await permits.issue(
            app.database, number=number, lease=lease, expected_epoch=epoch, digest=app.spec.digest, intent=intent
        )
        return number


async def test_an_operator_says_that_a_worker_is_gone_and_it_is_in_the_ledger(apart):
    await apart.company()
    number = await abandoned(apart)
    env = apart.environment()
    listed = await run_retentiond("permit", "list", "--json", env=env)
    assert [each["number"] for each in listed.json["permits"]] == [number]
    refused = await run_retentiond("permit", "end", str(number), "--reason", "x", env=env)
    assert (refused.code, "--worker-is-gone" in refused.stderr) == (2, True)
    empty = await run_retentiond("permit", "end", str(number), "--worker-is-gone", "--reason", " ", env=env)
    assert (empty.code, "--reason is empty" in empty.stderr) == (2, True)
    done = await run_retentiond(
        "permit", "end", str(number), "--worker-is-gone", "--reason", "the host is off", "--json", env=env
    )
    assert (done.code, done.json["declared_gone"]) == (0, True), done.stderr
    (told,) = [entry for entry in await apart.ledger() if entry["kind"] == "in_doubt"]
    assert (told["found"], told["permit"], told["worker"]) == ("declared_gone", number, "worker-1")
    assert "the host is off" not in str(told)
    unknown = await run_retentiond("permit", "end", "5", "--worker-is-gone", "--reason", "x", env=env)
    assert (unknown.code, "there is no permit 5" in unknown.stderr) == (2, True)
    lines = await run_retentiond("permit", "list", env=env)
    assert f"{number}\tlogs\t\tworker-1\tpresence" in lines.stdout
