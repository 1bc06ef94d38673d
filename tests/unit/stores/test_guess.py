"""Templates that are guessed from keys: such as they are really made by, and never one that can't be used."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retentiond.stores.rulings import Untold
from retentiond.stores.s3.guess import guess
from retentiond.stores.template import Template

TIERS = ("free", "pro", "enterprise")
UUIDS = ["3f2504e0-4f89-41d3-9a0c-0305e82c3301", "6F9619FF-8B86-D011-B42D-00C04FC964FF"]


@pytest.mark.parametrize(
    ("keys", "template"),
    [
        (["42/job-1/a.tar", "7/job-2/b/c.tar"], "{account}/{part2}/{file:path}"),
        ([f"{each}/x" for each in UUIDS], "{account}/{file:path}"),
        (["acct_01/x", "acct_02/y"], "{account}/{file:path}"),
        (["builds/42/x", "builds/7/y"], "builds/{account}/{file:path}"),
        (["free/42/x", "pro/7/y"], "{tier}/{account}/{file:path}"),
        (["42/2026/05/17/x", "7/2025/12/31/y"], "{account}/{date:%Y/%m/%d}/{file:path}"),
        (["2026/05/17/42/x", "2025/12/31/7/y"], "{date:%Y/%m/%d}/{account}/{file:path}"),
        (["year=2026/month=05/day=17/x"], "{date:year=%Y/month=%m/day=%d}/{file:path}"),
        (["2026-05-17/a/x", "2026-05-18/b/y"], "{date:%Y-%m-%d}/{part2}/{file:path}"),
        (["20260517/x", "20260518/y"], "{date:%Y%m%d}/{file:path}"),
        (["20260517/x", "20261399/y"], "{account}/{file:path}"),
        (["2026/05/x", "2026/06/y"], "{date:%Y/%m}/{file:path}"),
        (["a.txt", "b/c.txt"], "{file:path}"),
        (["index.html", *(f"{i}/x" for i in range(30))], "{account}/{file:path}"),
        (["a{b}/x", "a{b}/y"], "a{{b}}/{file:path}"),
        (["en/x", "de/y"], "{part1}/{file:path}"),
        (["free/x", "gold/y"], "{part1}/{file:path}"),
    ],
)
def test_keys_are_seen_through(keys, template):
    assert guess(keys, TIERS) == template


@settings(deadline=None)
@given(st.lists(st.text("ab0-/{}=%é", min_size=1, max_size=12), min_size=1, max_size=6))
def test_whatever_the_keys_the_template_can_be_used_and_fits_all_that_have_no_empty_part(keys):
    template = Template.parse(guess(keys, TIERS))
    found = template.columns(keys).accounts
    for key, account in zip(keys, found, strict=True):
        assert account is not Untold.KEY or "" in key.split("/")
