"""A hold's scope as it bears on a target whose records name themselves and their accounts as texts: keys of objects."""

from __future__ import annotations

from retentiond.domain.holds import Hold, TargetHold
from retentiond.stores.base import AccountDirectory


async def target_hold(
    hold: Hold, *, target: str, knows_account: bool, directory: AccountDirectory | None
) -> TargetHold:
    """The hold for the target; accounts in the canonical text of the directory's type, as `Rulings` compares them.

    An id that can't be of that type, or that there is no directory for, is compared to the letter. Raises Unreachable,
    Blind.
    """
    scope = hold.scope
    accounts = None
    if scope.accounts and knows_account:
        texts = await directory.canonical(scope.accounts) if directory is not None else {}
        accounts = frozenset(texts.get(each, each) for each in scope.accounts)
    records = scope.records.get(target)
    return TargetHold(
        hold.id,
        accounts,
        frozenset(records) if records else None,
        scope.prefixes.get(target, ()),
        scope.since,
        scope.until,
    )
