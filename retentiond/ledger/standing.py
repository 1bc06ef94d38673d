"""Whether the holds are there that the ledger says are: who can write the control database could take one away.

A step of a hold and its entry are one transaction, so the last entry of each hold says what state it is in. Entries
that came after those which were verified are read with the table in one statement, as of one instant; the next
verification judges them. A hold that the table has and the ledger has not keeps more than it should, and is no break.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import orjson

from retentiond.control.hold_rows import standing
from retentiond.domain.holds import HoldState
from retentiond.ledger.chain import Break
from retentiond.ledger.kinds import Kind

if TYPE_CHECKING:
    from retentiond.control.database import Database

_MARK = b'"kind":"hold"'
_SHOWN = 3


class Standing:
    """The state of each hold by the entries seen so far."""

    def __init__(self) -> None:
        self._states: dict[str, str] = {}

    def see(self, leaves: Iterable[bytes]) -> None:
        """Take entries, in their order."""
        for leaf in leaves:
            if _MARK not in leaf:  # canonical JSON is written in one way only, and few entries are of holds
                continue
            entry = orjson.loads(leaf)
            if entry.get("kind") == Kind.HOLD:
                self._states[str(entry["hold"])] = str(entry["state"])

    async def compare(self, db: Database, size: int) -> Break | None:
        """What the table lacks, the entries up to `size` having been seen."""
        async with db.transaction(read_only=True) as tx:
            table, newer = await standing(tx, size)
        self.see(newer)
        wrong = [
            f"hold {hold}, which is {state} by the ledger, "
            + (f"is {table[hold]} in the table of holds" if hold in table else "is missing from the table of holds")
            for hold, state in sorted(self._states.items())
            if state != HoldState.RELEASED and table.get(hold) != state
        ]
        if not wrong:
            return None
        more = f"; and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        return Break(
            None, None, f"{'; '.join(wrong[:_SHOWN])}{more}: what it covers may be erased; pause, and restore it"
        )
