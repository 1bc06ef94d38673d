"""One definition of the rules: lines sorted by columns go exactly where `judge_page` says that they are due."""

import asyncio
from collections import Counter

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from retentiond.domain.duration import rfc3339
from retentiond.stores.files.formats import Columns
from retentiond.stores.files.sieve import Sieve, Sums, asked
from retentiond.stores.judging import Page, judge_page
from retentiond.stores.rulings import Rulings, Untold
from services.rules import SCOPES, accounts_of, policies
from unit.stores.test_judging import SOURCES, Directory, page_of, planned


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(st.randoms(use_true_random=False), policies(), st.lists(SCOPES, max_size=2), st.booleans())
def test_the_quick_way_and_the_exact_one_agree(chance, document, scopes, tiered):
    scopes = [{key: value for key, value in scope.items() if key not in ("records", "prefixes")} for scope in scopes]
    scopes = [scope for scope in scopes if scope]
    directory = Directory(accounts_of(chance), dated=chance.random() < 0.5)
    source = chance.choice(SOURCES)
    plan = planned(chance, document, scopes, directory, source)
    page = page_of(chance, document)
    columns = asked(Columns(page.anchors, page.accounts, page.tiers if tiered else None))
    rulings = Rulings(plan)
    asyncio.run(rulings.ask(columns.accounts, directory))
    page = Page(page.keys, columns.anchors, page.sizes, columns.accounts, columns.tiers)
    wanted = judge_page(rulings, page)
    sieve, sums = Sieve(rulings, tiered=tiered), Sums()
    flags, exactly, judged = sieve.due(columns)
    sieve.add(sums, columns, flags, exactly, judged)
    assert tuple(i for i, flag in enumerate(flags) if flag) == wanted.due
    found = sums.tally()
    assert Counter(found.by_tier) == Counter(wanted.labels)
    assert (found.held, found.minimum, found.unresolved) == (
        wanted.tally.held,
        wanted.tally.minimum,
        wanted.tally.unresolved,
    )
    assert (found.oldest, found.newest) == (wanted.tally.oldest, wanted.tally.newest)
    if wanted.next_due is not None:
        # It may be sooner, where the first line of all is another's: then a file is looked at once for nothing.
        assert found.next_due is not None
        assert found.next_due <= rfc3339(wanted.next_due)


def test_accounts_that_no_database_could_be_asked_about_are_lines_that_can_not_be_read():
    found = asked(Columns([None] * 4, ["1", "a\0b", "\udcff", None]))
    assert list(found.accounts) == ["1", Untold.LINE, Untold.LINE, None]
