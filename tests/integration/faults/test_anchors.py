"""What dates a record: every type, every value, and the hours that a clock change repeats or leaves out."""

import json
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest

from tests.services.sweeping import ACCOUNTS, ago


async def make(rig, type_, values, **settings):
    """Rows of nobody (the tier free, 90 days), one for each value, with ids from 1 on."""
    await rig.db.execute(ACCOUNTS + f"CREATE TABLE logs (id int PRIMARY KEY, account_id bigint, created_at {type_})")
    for number, value in enumerate(values, 1):
        await rig.db.execute(f"INSERT INTO logs VALUES ($1, NULL, $2::text::{type_})", number, value)
    rig.target("logs", **settings)


def only_term(term):
    return {"classes": {"operational_logs": {"ttl": term, "override": {"enterprise": None}}}}


@pytest.mark.parametrize(
    "type_", ["text", "jsonb", "boolean", "time", "interval", "tstzrange", "uuid", "timestamptz[]"]
)
async def test_an_anchor_of_the_wrong_type_makes_that_target_blind_and_leaves_the_others_working(rig, type_):
    await rig.company()
    await rig.db.execute(
        f"CREATE TABLE odd (id int PRIMARY KEY, account_id bigint, created_at {type_});"
        "INSERT INTO odd VALUES (1, 1, NULL)"
    )
    rig.target("odd")
    found = await rig.sweep()
    assert found["odd"].outcome == "blind"
    assert "created_at" in found["odd"].error["message"]
    assert "timestamptz" in found["odd"].error["remedy"]
    assert await rig.ids("odd") == [1]
    assert (found["logs"].outcome, found["logs"].changed) == ("drained", 5)
    await rig.require_told(odd=0, logs=5)


async def test_a_number_without_a_unit_makes_the_target_blind(rig):
    await make(rig, "bigint", ["0"])
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("blind", 0)
    assert "targets.logs.unit" in outcome.error["remedy"]
    assert await rig.ids() == [1]


@pytest.mark.parametrize("type_", ["timestamptz", "timestamp", "date", "timestamp(0)"])
async def test_null_and_infinite_anchors_are_kept_and_counted(rig, type_):
    await make(rig, type_, [None, "infinity", "-infinity", "2001-01-01", "2999-01-01"])
    outcome = await rig.only()
    assert outcome.outcome == "drained"
    assert await rig.ids() == [1, 2, 3, 5]
    assert (outcome.changed, outcome.unresolved) == (1, 3)
    await rig.require_told(logs=1)


@pytest.mark.parametrize("type_", ["timestamptz", "timestamp", "date"])
async def test_an_accounts_erasure_takes_null_and_infinite_anchors_too(rig, type_):
    await make(rig, type_, [None, "infinity", "-infinity", "2001-01-01", "2999-01-01"])
    await rig.db.execute("INSERT INTO logs SELECT id + 10, 4, created_at FROM logs")
    outcome = await rig.only()
    assert await rig.ids() == [1, 2, 3, 5]
    assert (outcome.changed, outcome.unresolved) == (6, 3)
    await rig.require_told(logs=6)


async def test_an_anchor_before_the_common_era_is_taken_and_told(rig):
    await make(rig, "timestamptz", ["4713-01-01 00:00:00+00 BC", "0001-01-01 00:00:00+00 BC", "294276-12-31"])
    outcome = await rig.only()
    assert (outcome.outcome, await rig.ids()) == ("drained", [3]), outcome.error
    await rig.require_told(logs=2)


# Each has an hour (Lord Howe: half an hour) that happened twice, and one that never did; the later reading is the safe one.
@pytest.mark.parametrize(
    ("zone", "twice", "never"),
    [
        ("Europe/Berlin", "2025-10-26 02:30", "2025-03-30 02:30"),
        ("Europe/Dublin", "2025-10-26 01:30", "2025-03-30 01:30"),
        ("America/New_York", "2025-11-02 01:30", "2025-03-09 02:30"),
        ("Australia/Lord_Howe", "2025-04-06 01:45", "2025-10-05 02:15"),
    ],
)
@pytest.mark.parametrize("change", ["twice", "never"])
async def test_a_naive_time_of_a_clock_change_does_not_expire_by_its_earlier_reading(rig, zone, twice, never, change):
    local = datetime.fromisoformat({"twice": twice, "never": never}[change]).replace(tzinfo=ZoneInfo(zone))
    early, late = sorted(local.replace(fold=fold).astimezone(UTC) for fold in (0, 1))
    assert early < late
    hour_before = local.replace(tzinfo=None) - timedelta(hours=3)
    await make(rig, "timestamp", [local.replace(tzinfo=None).isoformat(), hour_before.isoformat()], timezone=zone)
    rig.policy = only_term(ago(early + timedelta(seconds=1)))
    assert (await rig.only()).outcome == "drained"
    assert await rig.ids() == [1]
    await rig.db.execute("INSERT INTO logs VALUES (3, NULL, $1)", local.replace(tzinfo=None))
    rig.policy = only_term(ago(late + timedelta(seconds=1)))
    await rig.approve_policy()
    assert (await rig.only()).outcome == "drained"
    assert await rig.ids() == []


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "Asia/Kathmandu", "Europe/Berlin"])
async def test_a_naive_time_is_read_in_the_zone_of_the_target(rig, zone):
    edge = datetime(2026, 2, 3, 12, tzinfo=UTC)
    near = [edge - timedelta(minutes=5), edge + timedelta(minutes=5)]
    await make(
        rig, "timestamp", [at.astimezone(ZoneInfo(zone)).replace(tzinfo=None).isoformat() for at in near], timezone=zone
    )
    rig.policy = only_term(ago(edge))
    assert (await rig.only()).changed == 1
    assert await rig.ids() == [2]


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "America/Sao_Paulo"])
@pytest.mark.parametrize("day", ["2025-10-26", "2024-02-29", "2018-11-03"])
async def test_a_date_lasts_until_its_end_in_the_zone_of_the_target(rig, zone, day):
    first = datetime.fromisoformat(day)
    end = (first + timedelta(days=1)).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    await make(rig, "date", [day, (first - timedelta(days=1)).date().isoformat()], timezone=zone)
    rig.policy = only_term(ago(end - timedelta(minutes=2)))
    assert (await rig.only()).changed == 1
    assert await rig.ids() == [1]


UNITS = {"s": 1, "ms": 1_000, "us": 1_000_000}


EPOCHS = [("int4", "s"), *((type_, unit) for type_ in ("int8", "numeric", "numeric(20,3)", "float8") for unit in UNITS)]


@pytest.mark.parametrize(("type_", "unit"), EPOCHS)
async def test_an_epoch_is_read_in_its_unit(rig, type_, unit):
    edge = datetime.now(UTC).replace(microsecond=0) - timedelta(days=90)
    values = [int((edge + timedelta(seconds=seconds)).timestamp()) * UNITS[unit] for seconds in (-2, 120, 86_400 * 90)]
    await make(rig, type_, [*map(str, values), "0", "-1", None], unit=unit)
    outcome = await rig.only()
    assert outcome.outcome == "drained"
    assert await rig.ids() == [2, 3, 6]
    assert (outcome.changed, outcome.unresolved) == (3, 1)
    await rig.require_told(logs=3)


ABSURD = {
    "int8": (["9223372036854775807", "-9223372036854775808", "0"], [3], 1),
    "numeric": (["1e40", "-1e40", "NaN", "Infinity", "-Infinity", "0"], [6], 4),
    "numeric(1000, 500)": (["1e400", "-1e400", "-1e499", "1e-400", "NaN"], [4], 3),
    "float8": (["1e308", "-1e308", "NaN", "Infinity", "-Infinity", "0"], [6], 4),
    "float4": (["3e38", "-3e38", "NaN", "Infinity", "-Infinity", "0"], [6], 4),
}


@pytest.mark.parametrize("type_", sorted(ABSURD))
@pytest.mark.parametrize("unit", ["s", "us"])
async def test_an_epoch_that_is_no_instant_never_expires_and_is_counted(rig, type_, unit):
    """`unresolved` is at least what can't be said to be younger than the terms; one far ahead may count or not."""
    values, gone, least = ABSURD[type_]
    await make(rig, type_, values, unit=unit)
    outcome = await rig.only()
    assert outcome.outcome == "drained", json.dumps(outcome.error)
    assert set(range(1, len(values) + 1)) - set(await rig.ids()) == set(gone)
    assert outcome.unresolved >= least
    await rig.require_told(logs=1)


async def test_an_accounts_erasure_takes_epochs_that_are_no_instant(rig):
    await make(rig, "numeric", ["1e40", "-1e40", "NaN", "Infinity", "-Infinity", None], unit="s")
    await rig.db.execute("UPDATE logs SET account_id = 4")
    outcome = await rig.only()
    assert (outcome.changed, await rig.ids()) == (6, [])
    await rig.require_told(logs=6)


async def test_a_number_beyond_all_floats_does_not_stop_its_target(rig):
    await make(rig, "numeric", ["-1e400", "1e400", "1e-400", "-1e-400", *["1500000000"] * 20], unit="s")
    await rig.db.execute("CREATE INDEX ON logs (created_at)")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 22), outcome.error
    assert await rig.ids() == [1, 2]
    await rig.require_told(logs=22)


async def test_a_float4_at_the_very_edge_of_the_term_is_reached(rig):
    """A float4 of today's seconds is one of a grid of 128; the edge of the term lies a little past one of them."""
    edge = int((datetime.now(UTC) - timedelta(days=90)).timestamp()) // 128 * 128
    await make(rig, "float4", [str(edge)], unit="s")
    rig.policy = only_term(ago(datetime.fromtimestamp(edge + 20, UTC)))
    assert (await rig.only()).changed == 1
    assert await rig.ids() == []


async def test_a_walk_by_floats_goes_on_where_the_database_shortens_them(rig):
    """Sixty anchors that are one when told by twelve digits: positions of a walk must be told in full."""
    await rig.db.execute(
        ACCOUNTS + "CREATE TABLE logs (id bigint PRIMARY KEY, account_id bigint, created_at float8);"
        "CREATE INDEX ON logs (created_at);"
        "INSERT INTO logs SELECT i, 1, 1500000000 + i * 0.0000011 FROM generate_series(1, 60) i"
    )
    await rig.db.execute(
        f"ALTER DATABASE {await rig.db.fetchval('SELECT current_database()')} SET extra_float_digits = -3"
    )
    rig.target("logs", unit="s")
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed, await rig.ids()) == ("drained", 60, [])
    await rig.require_told(logs=60)
