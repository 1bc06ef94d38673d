"""Single lines and files, and the lines of a hold: what `explain` and `hold place` ask for."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from typing import Final

from retentiond.domain.accounts import AccountFacts
from retentiond.domain.holds import TargetHold
from retentiond.domain.plan import TargetPlan
from retentiond.domain.verdict import Kind, RecordFacts, judge
from retentiond.errors import Blind, NotFound
from retentiond.stores.base import Matches
from retentiond.stores.files.folder import Changed, Entry
from retentiond.stores.files.formats import Columns
from retentiond.stores.files.ground import Ground, in_thread
from retentiond.stores.files.lines import Part, blocks
from retentiond.stores.files.packing import Damaged, packing_of, unpacked
from retentiond.stores.files.sieve import asked
from retentiond.stores.rulings import Account, Rulings, Untold

_ONE: Final = 1


class Reader:
    """The lines of a file, as columns of a block at a time, with the number of the first."""

    def __init__(self, ground: Ground, entry: Entry) -> None:
        self._ground, self._entry = ground, entry
        self._stack = ExitStack()
        self._blocks: Iterator[tuple[int, Columns]] | None = None

    async def next(self) -> tuple[int, Columns] | None:
        """The next block; None at the end. Raises Damaged, Changed, OSError."""
        return await in_thread(self._next)

    async def close(self) -> None:
        """Close the file."""
        await in_thread(self._stack.close)

    def _next(self) -> tuple[int, Columns] | None:
        if self._blocks is None:
            self._blocks = self._read()
        return next(self._blocks, None)

    def _read(self) -> Iterator[tuple[int, Columns]]:
        fd = self._stack.enter_context(self._ground.folder.opened(self._entry))
        read = self._stack.enter_context(unpacked(fd, packing_of(self._entry.name)))
        number = _ONE
        for item in blocks(read):
            if isinstance(item, Part):
                if item.last:
                    yield number, Columns([None], [Untold.LINE])
                    number += 1
                continue
            lines = item.lines()
            yield number, asked(self._ground.format.columns(item.content, lines))
            number += len(lines)


async def record(ground: Ground, plan: TargetPlan, text: str) -> tuple[RecordFacts, AccountFacts]:
    """A line by `FILE:NUMBER`, or of a file the line that keeps it longest, and what is known of its account.

    Raises NotFound, Blind.
    """
    name, number = await _named(ground, text)
    entry = ground.folder.entry(name)
    if entry is None or not ground.folder.fits(name):
        raise NotFound(
            f"target {ground.name} has no file {name!a}",
            remedy=f"give the name of a file of {ground.config.path}, without its folder; and :N for its line N",
        )
    try:
        found = await _found(ground, plan, entry, number)
    except (Damaged, Changed, OSError) as error:
        raise Blind(
            f"file {entry.shown} of target {ground.name} can't be read: {str(error) or 'it is being changed'}",
            remedy="see that it may be read, and is packed as its name says",
        ) from error
    if found is None:
        raise NotFound(f"file {entry.shown} of target {ground.name} has no line {number or _ONE}")
    return found


async def _named(ground: Ground, text: str) -> tuple[str, int | None]:
    name, colon, number = text.rpartition(":")
    if colon and number.isascii() and number.isdigit() and ground.folder.entry(text) is None:
        return name, int(number)
    return text, None


async def _found(
    ground: Ground, plan: TargetPlan, entry: Entry, number: int | None
) -> tuple[RecordFacts, AccountFacts] | None:
    best: tuple[RecordFacts, AccountFacts] | None = None
    reader, rulings = Reader(ground, entry), Rulings(plan)
    try:
        while (block := await reader.next()) is not None:
            first, columns = block
            if number is None:
                await rulings.ask(columns.accounts, ground.directory)
                best = _longest(plan, rulings, entry, first, columns, best)
            elif first <= number < first + len(columns.anchors):
                await rulings.ask([columns.accounts[number - first]], ground.directory)
                return _facts(plan, rulings, entry, number, columns, number - first)
    finally:
        await reader.close()
    return best


def _longest(
    plan: TargetPlan,
    rulings: Rulings,
    entry: Entry,
    first: int,
    columns: Columns,
    best: tuple[RecordFacts, AccountFacts] | None,
) -> tuple[RecordFacts, AccountFacts] | None:
    """Of the lines the one that is kept, else the newest: only when that goes, the whole file does."""
    for at in range(len(columns.anchors)):
        if best is not None and _kept(plan, best):
            return best
        one = _facts(plan, rulings, entry, first + at, columns, at)
        newer = best is None or (one[0].anchor is not None and (best[0].anchor or one[0].anchor) <= one[0].anchor)
        if newer or _kept(plan, one):
            best = one
    return best


def _kept(plan: TargetPlan, found: tuple[RecordFacts, AccountFacts]) -> bool:
    return judge(plan, *found).kind is not Kind.ERASE


def _facts(
    plan: TargetPlan, rulings: Rulings, entry: Entry, number: int, columns: Columns, at: int
) -> tuple[RecordFacts, AccountFacts]:
    account: Account = columns.accounts[at]
    text, facts = rulings.facts(account)
    fault = account.value if isinstance(account, Untold) else None
    tier = columns.tiers[at] if columns.tiers is not None else plan.tier
    return RecordFacts(f"{entry.name}:{number}", columns.anchors[at], text, tier, fault=fault), facts


async def matches(ground: Ground, hold: TargetHold, *, knows_account: bool, seconds: float) -> Matches:
    """How many lines the hold covers, whatever their verdict; those met by then where there is no time for all."""
    found, until = 0, time.monotonic() + seconds
    canonical: dict[str, str] = {}
    for entry in await ground.entries():
        reader = Reader(ground, entry)
        try:
            while (block := await reader.next()) is not None:
                columns = block[1]
                await _learn(ground, hold, columns.accounts, canonical)
                found += sum(
                    hold_covers(hold, account, canonical, knows_account)
                    and hold.matches(account=_any(hold), key="", anchor=anchor)
                    for account, anchor in zip(columns.accounts, columns.anchors, strict=True)
                )
                if time.monotonic() > until:
                    return Matches(found, exact=False)
        except (Damaged, Changed, OSError):
            continue  # what can't be read is kept anyhow
        finally:
            await reader.close()
    return Matches(found, exact=True)


async def _learn(ground: Ground, hold: TargetHold, accounts: Collection[Account], canonical: dict[str, str]) -> None:
    new = {each for each in accounts if isinstance(each, str)} - canonical.keys()
    if new and hold.accounts is not None and ground.directory is not None:
        told = await ground.directory.canonical(new)
        canonical.update({each: told.get(each, each) for each in new})


def hold_covers(hold: TargetHold, account: Account, canonical: dict[str, str], knows_account: bool) -> bool:
    """Whether the hold's accounts cover the line; one whose account can't be told is under any."""
    if hold.accounts is None or not knows_account or isinstance(account, Untold):
        return True
    return account is not None and canonical.get(account, account) in hold.accounts


def _any(hold: TargetHold) -> str | None:
    """An account that is among the hold's: whether the line's own is was told before."""
    return next(iter(hold.accounts), None) if hold.accounts else None
