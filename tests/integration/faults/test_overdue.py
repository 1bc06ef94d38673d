"""What must go and stays since others refer to it: it is overdue, and whoever asks is told what keeps it."""

import pytest

from retentiond.metrics import Metrics
from tests.services.process import run_retentiond
from tests.services.sweeping import ACCOUNTS

DAY = 86_400
JOBS = (
    ACCOUNTS
    + """
CREATE TABLE jobs (id bigint PRIMARY KEY, account_id bigint, created_at timestamptz);
CREATE TABLE steps (id bigserial PRIMARY KEY, job_id bigint REFERENCES jobs);
CREATE INDEX ON steps (job_id);
INSERT INTO jobs SELECT i, 1, now() - interval '400 days' FROM generate_series(1, 5) i;
INSERT INTO jobs SELECT i, 1, now() - interval '100 days' FROM generate_series(11, 12) i;
INSERT INTO steps (job_id) VALUES (11), (12);
"""
)


@pytest.fixture
async def jobs(rig):
    await rig.db.execute(JOBS)
    rig.target("jobs")
    return rig


@pytest.mark.parametrize("counts_first", [True, False])
async def test_a_blocked_record_is_as_overdue_as_it_is_past_its_term(jobs, counts_first):
    if counts_first:
        jobs.guards = {"max_fraction": 0.9}
    metrics = None

    def watch(event):
        if metrics is not None:
            metrics(event)

    async with jobs.app(observer=watch) as app:
        metrics = Metrics(app.spec.targets, app.spec.policy.tiers, version="1", mode="enforce")
        for changed in (5, 0):
            outcome = await app.engine.sweep(app.spec.target("jobs"))
            assert (outcome.outcome, outcome.changed, outcome.blocked) == ("drained", changed, 2), outcome.error
            # Ten days past a term of 90; the erased ones were 310 days past it.
            assert outcome.document(plan_mode=False)["overdue_seconds"] == pytest.approx(10 * DAY, abs=60)
            seconds = metrics.registry.get_sample_value("retentiond_overdue_seconds", {"target": "jobs"})
            assert seconds == pytest.approx(10 * DAY, abs=60)
            assert metrics.registry.get_sample_value("retentiond_overdue_records", {"target": "jobs"}) == 2
    assert await jobs.ids("jobs") == [11, 12]
    await jobs.db.execute("DELETE FROM steps")
    outcome = await jobs.only("jobs")
    assert (outcome.changed, outcome.overdue) == (2, 0.0)
    await jobs.require_told(jobs=7)


async def test_a_plan_counts_blocked_records_into_how_overdue_it_is_and_not_into_what_goes(jobs):
    await jobs.db.execute("DELETE FROM jobs WHERE id < 11")
    outcome = await jobs.only("jobs", mode="plan")
    assert (outcome.would, outcome.blocked) == (0, 2)
    assert outcome.overdue == pytest.approx(10 * DAY, abs=60)
    assert outcome.tiers["free"].overdue_seconds == pytest.approx(10 * DAY, abs=60)


async def test_explain_tells_which_tables_keep_a_record_that_is_due(jobs):
    await jobs.db.execute("CREATE TABLE notes (id int PRIMARY KEY, job bigint REFERENCES jobs)")
    async with jobs.app() as app:
        target = app.spec.target("jobs")
        kept, free = await app.engine.explain(target, "11"), await app.engine.explain(target, "1")
    assert (str(kept.kind), kept.reason, str(free.kind)) == ("erase", "expired", "erase")
    told = [line for line in kept.considered if line.startswith("blocked")]
    assert len(told) == 1
    assert "steps" in told[0]
    assert not [line for line in free.considered if line.startswith("blocked")]


async def test_the_table_of_a_sweep_shows_what_was_blocked_and_what_was_locked(jobs):
    result = await run_retentiond("sweep", env=jobs.environment())
    assert result.code == 0, result.stderr
    head, row = (line.split("\t") for line in result.stdout.splitlines()[:2])
    shown = dict(zip(head, row, strict=True))
    assert (shown["erased"], shown["blocked"], shown["locked"]) == ("5", "2", "0")
