"""When a shard that failed for what passes is tried again."""

from datetime import timedelta

import pytest

from retentiond.errors import Blind, Late, Locked, Refused, StateMissing, Unreachable
from retentiond.sweep.retries import MOST, next_try, passes

MINUTE = timedelta(minutes=1)


def tries(longest=MINUTE, batches=0):
    found, kept = [], None
    while (retry := next_try(kept, batches=batches, longest=longest)) is not None:
        found.append(retry)
        kept = retry.document()
    return found


def test_each_try_waits_twice_as_long_and_there_is_an_end():
    assert [retry.seconds for retry in tries()] == [1, 2, 4, 8, 16, 32]


def test_none_waits_longer_than_a_target_does():
    assert [retry.seconds for retry in tries(timedelta(seconds=5))] == [1, 2, 4, 5, 5, 5]


def test_a_try_that_got_on_counts_as_the_first_again():
    last = tries(batches=3)[-1].document()
    assert next_try(last, batches=3, longest=MINUTE) is None
    again = next_try(last, batches=4, longest=MINUTE)
    assert (again.number, again.batches, again.seconds) == (1, 4, 1)


def test_it_says_when_and_how_often():
    assert tries()[2].told() == f"nothing to do: the shard is tried again in 4 s (3 of {MOST} tries)"


@pytest.mark.parametrize(
    ("error", "found"),
    [
        (Unreachable("gone"), True),
        (Late("lock timeout"), True),
        (Refused("a trigger"), False),
        (Locked("rows"), False),
        (Blind("schema"), False),
        (StateMissing("state"), False),
        (ValueError("defect"), False),
    ],
)
def test_only_what_passes_is_tried_again(error, found):
    assert passes(error) is found
