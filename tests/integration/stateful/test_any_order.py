"""No record under an active hold goes, and each deletion is told once: whatever stops, dies or comes at any point.

The examples are the same in each run, so that a failure is one of the change under test. To look further, let there be
more of them, and others each time: `RETENTIOND_EXAMPLES=2000 pytest tests/integration/stateful/test_any_order.py`
(one or two a second, of each kind); what is found is made smaller and printed as a test.
"""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from tests.services.anyorder import AnyOrder, World, profile


@pytest.mark.parametrize(
    ("kind", "examples"),
    [({}, 24), ({"joined": True}, 10), ({"native": True}, 12)],
    ids=["control state apart", "control state beside it", "native holds"],
)
def test_holds_leases_and_permits_in_any_order_lose_no_held_record_and_no_outcome(postgres_server, kind, examples):
    with World(postgres_server, **kind) as world:
        run_state_machine_as_test(type("AnyOrderHere", (AnyOrder,), {"world": world}), settings=profile(examples))
