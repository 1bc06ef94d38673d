"""What the loop reads of the control database in one statement."""

from datetime import UTC, datetime, timedelta

from retentiond.control import approvals, flags, overview
from retentiond.control.database import Database
from retentiond.domain.permit import Unit


async def look(control, after=None):
    async with control.db.transaction(read_only=True) as tx:
        return await overview.read(tx, after)


async def test_a_fresh_control_database_has_nothing_to_tell(control):
    seen = await look(control)
    assert (seen.mode, seen.digest, seen.paused) == ("enforce", "sha256:policy", False)
    assert (seen.holds, seen.pending, seen.activations, seen.waiting) == ({}, (), (), {})
    assert (seen.ledger_entries, seen.heartbeat_at, seen.approved_at, seen.release_due) == (0, None, None, False)


async def test_instants_are_the_same_whatever_zone_the_database_speaks(control):
    lease = await control.lease()
    name = control.dsn.rsplit("/", 1)[1]
    await control.sql(f"ALTER DATABASE \"{name}\" SET timezone = 'Asia/Kathmandu'")
    other = await Database.connect(control.dsn)
    try:
        async with other.transaction(read_only=True) as tx:
            seen = await overview.read(tx)
        (expected,) = await control.sql("SELECT next_due_at, clock_timestamp() AS now FROM retentiond.units")
    finally:
        await other.close()
    assert seen.now.utcoffset() == timedelta(hours=5, minutes=45)
    assert seen.units["request_logs"].next_due_at == expected["next_due_at"]
    assert abs(seen.now - expected["now"]) < timedelta(minutes=1)
    assert seen.units["request_logs"].owner == lease.owner


async def test_a_lease_that_is_over_has_no_owner(control):
    await control.lease(Unit("audit"), seconds=0)
    assert (await look(control)).units["audit"].owner is None


async def test_holds_are_seen_pending_then_activated_once_then_due_for_their_end(control):
    hold = await control.place()
    seen = await look(control)
    assert [each.id for each in seen.pending] == [hold.id]
    assert seen.holds == {"pending": 1}
    await control.activate()
    later = await look(control, seen.now)
    assert (later.pending, later.holds) == ((), {"active": 1})
    (activation,) = later.activations
    assert activation.seconds >= 0
    assert (await look(control, activation.effective_at)).activations == ()
    assert later.allowed != seen.allowed
    await control.sql("UPDATE retentiond.holds SET state = 'releasing', erasable_at = now(), review_by = '2000-01-01Z'")
    ended = await look(control)
    assert (ended.release_due, ended.reviews_overdue) == (True, 1)


async def test_approvals_pauses_and_what_waits_are_seen(control):
    before = await look(control)
    async with control.db.transaction() as tx:
        await approvals.request(tx, "sweep", "request_logs", "d", 7)
        await approvals.grant(tx, "sweep", "audit", "d", None, "operator")
    approved = await look(control)
    assert approved.waiting == {"request_logs": 7}
    assert approved.approved_at > datetime(2020, 1, 1, tzinfo=UTC)
    async with control.db.transaction() as tx:
        await flags.pause(tx, "operator")
    paused = await look(control)
    assert paused.paused
    assert len({before.allowed, approved.allowed, paused.allowed}) == 3
