"""By what records were told apart when a deletion was asked for: kept with it, and compared when a hold comes.

Clauses name accounts and anchors as the configuration of that day read them. Where that has changed since, what they
say does not tell which records they reach, and they count as reaching all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from retentiond.domain.holds import TargetHold
from retentiond.stores.base import AccountDirectory
from retentiond.stores.deferred.backend import Backend
from retentiond.stores.deferred.clauses import Clause

BASIS: Final = "basis"
# What types of ids write in ways of their own, or can't hold: numbers, sizes, upper case, blanks, UUIDs, lengths.
_PROBES: Final = (
    *("007", "1.0", "1e3", "40000", "3000000000", "10000000000000000000", "A", "a", " a", "a "),
    *(
        "AAAAAAAA-AAAA-4AAA-8AAA-AAAAAAAAAAAA",
        "aaaaaaaaaaaa4aaa8aaaaaaaaaaaaaaa",
        *("x" * n for n in (16, 36, 64, 255)),
    ),
)


@dataclass(frozen=True, slots=True)
class Basis:
    """The names of the anchor and the account (None: not known), and a digest of how the directory writes ids."""

    anchor: str
    account: str | None
    directory: str

    @classmethod
    async def today(cls, backend: Backend, directory: AccountDirectory | None) -> Basis:
        """That of the target as it is configured now; raises Blind, Unreachable."""
        anchor, account = backend.told_by
        texts = await directory.canonical(_PROBES) if directory is not None else {}
        shown = "" if directory is None else repr([texts.get(each) for each in _PROBES])
        return cls(anchor, account, hashlib.sha256(shown.encode()).hexdigest()[:16])

    def document(self) -> dict[str, Any]:
        """As it is kept with a request."""
        return asdict(self)

    def may_hold(self, asked: Mapping[str, Any], hold: TargetHold) -> bool:
        """Whether a record of what was asked for can be under a hold that is told by this basis."""
        kept = asked.get(BASIS, {})
        accounts = self.account is not None and (kept.get("account"), kept.get("directory")) == (
            self.account,
            self.directory,
        )
        anchors = kept.get("anchor") == self.anchor
        return any(Clause.of(each).may_be_held(hold, accounts=accounts, anchors=anchors) for each in asked["clauses"])


def countable(backend: Backend, asked: Mapping[str, Any]) -> bool:
    """Whether queries of today are of the records that it was asked for."""
    kept = asked.get(BASIS, {})
    return (kept.get("anchor"), kept.get("account")) == tuple(backend.told_by)
