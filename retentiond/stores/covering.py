"""Which records of a page a hold is on, whatever their verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from retentiond.domain.holds import TargetHold
from retentiond.stores.base import AccountDirectory
from retentiond.stores.judging import Page
from retentiond.stores.rulings import Untold


async def covered(holds: Sequence[TargetHold], page: Page, directory: AccountDirectory | None) -> list[bool]:
    """Whether any of the holds is on each record of the page; raises Unreachable, Blind."""
    by_account = any(hold.accounts is not None for hold in holds)
    texts = {each for each in page.accounts if isinstance(each, str)} if by_account else set()
    canonical = await directory.canonical(texts) if directory is not None and texts else {}
    whoever = [replace(hold, accounts=None) for hold in holds]
    found = []
    for key, anchor, account in zip(page.keys, page.anchors, page.accounts, strict=True):
        if isinstance(account, Untold):
            found.append(any(hold.matches(account=None, key=key, anchor=anchor) for hold in whoever))
        else:
            text = None if account is None else canonical.get(account, account)
            found.append(any(hold.matches(account=text, key=key, anchor=anchor) for hold in holds))
    return found
