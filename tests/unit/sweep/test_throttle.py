"""Batches fit their budget; what a batch takes however small it is does not shrink them."""

import pytest

from retentiond.sweep.spec import Pace
from retentiond.sweep.throttle import Pacer


def played(seconds_of, *, batches=40, **pace):
    """The sizes of so many batches that take as long as `seconds_of(size)`."""
    pacer, sizes = Pacer(Pace(**pace)), []
    for _ in range(batches):
        sizes.append(pacer.size)
        pacer.after(seconds_of(pacer.size))
    return pacer, sizes


def test_without_overhead_a_batch_comes_to_its_budget():
    pacer, sizes = played(lambda size: 0.002 + size * 1e-4)
    assert sizes[-1] == pytest.approx(2480, rel=0.05)
    assert pacer.overhead == 0


@pytest.mark.parametrize("fixed", [0.3, 1.8, 3.0])
def test_a_slow_network_leaves_the_records_their_budget(fixed):
    pacer, sizes = played(lambda size: fixed + size * 1e-4)
    assert sizes[-1] == pytest.approx(2500, rel=0.1)
    assert pacer.overhead == pytest.approx(fixed, rel=0.1)
    assert min(sizes) >= 50


def test_batches_that_are_slow_for_their_records_shrink_all_the_same():
    pacer, sizes = played(lambda size: 0.01 + size * 0.1)
    assert sizes[-1] <= 3
    assert pacer.overhead == 0


def test_a_network_that_is_quick_again_is_no_excuse_any_more():
    pacer, _ = played(lambda size: 1.8 + size * 1e-4)
    for _ in range(10):
        pacer.after(0.002 + pacer.size * 1e-4)
    assert 0.002 + pacer.size * 1e-4 < 0.3


def test_a_server_that_becomes_slow_for_each_record_is_spared():
    pacer, _ = played(lambda size: 0.002 + size * 1e-4)
    for _ in range(10):
        pacer.after(0.002 + pacer.size * 1e-2)
    assert pacer.size <= 40
