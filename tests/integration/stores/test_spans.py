"""A batch's stretch of time settles terms once an account; at a term's edge each record is still judged by itself."""

from datetime import UTC, datetime, timedelta

import pytest

from retentiond.stores.postgres.spans import Span
from tests.services.sweeping import ACCOUNTS, LOGS

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TICK = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("cutoff", "over"),
    [(NOW + 2 * TICK, True), (NOW + TICK, None), (NOW, False), (NOW - TICK, False), (None, False)],
    ids=["after all", "at the last", "at the first", "before all", "a term that never ends"],
)
def test_a_term_is_over_for_all_of_a_span_or_for_none_or_hangs_on_the_record(cutoff, over):
    assert Span(NOW, NOW + TICK).is_over(cutoff) is over


async def test_windows_on_either_side_of_each_terms_end_erase_what_is_due_and_nothing_else(apart):
    """Records of two tiers, of an account in its grace, of a deleted and of an unknown one, a day apart."""
    await apart.db.execute(ACCOUNTS + LOGS)
    await apart.db.execute(
        "ALTER TABLE accounts ADD changed_at timestamptz;"
        "INSERT INTO accounts (id, tier, changed_at) VALUES (5, 'free', now() - interval '1 day');"
        "INSERT INTO logs SELECT i * 10 + a, a, now() - i * interval '1 day' + interval '1 hour'"
        " FROM unnest(ARRAY[1, 50, 85, 86, 87, 88, 89, 90, 91, 92, 93, 300, 362, 363, 364, 365, 366, 367, 368, 400]) i,"
        " unnest(ARRAY[1, 2, 4, 5, 77]) a"
    )
    apart.accounts = {"tier_changed_at": "changed_at"}
    apart.target("logs", pace={"duty": 1.0, "max_batch": 7})
    outcome = await apart.only()
    assert outcome.outcome == "drained", outcome.error
    ids = await apart.ids()
    left = {account: {id_ // 10 for id_ in ids if id_ % 10 == account} for account in (1, 2, 4, 5)}
    # An hour after i days ago: the term of 90 days is over from the 91st day on.
    assert left[1] == {1, 50, 85, 86, 87, 88, 89, 90}
    assert left[2] == left[1] | {91, 92, 93, 300, 362, 363, 364, 365}
    assert left[4] == set()
    assert len(left[5]) == len([id_ for id_ in ids if id_ % 10 == 7]) == 20
    await apart.require_told(logs=12 + 4 + 20)
    await apart.require_settled()
