"""The account directory through time, from the log of its table: what it could have said to a batch."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from tests.campaign.rules import Account
from tests.campaign.stream import Row, Transaction

TABLE = "accounts"


@dataclass(frozen=True, slots=True)
class Version:
    """One version of an account's row: committed at `at`, surely there for all to see from `certain` on."""

    at: datetime
    certain: datetime | None
    tier: str
    deleted_at: datetime | None


class Directory:
    """All versions of all accounts."""

    def __init__(
        self,
        transactions: list[Transaction],
        confirmed: Mapping[tuple[str, int], datetime],
        known: set[str],
        *,
        grace: bool,
    ) -> None:
        self._versions: dict[str, list[Version]] = defaultdict(list)
        self._known, self._grace = known, grace
        for transaction in transactions:
            for change in transaction.changes:
                if change.table == TABLE and change.new is not None:
                    id_ = str(change.new["id"])
                    self._versions[id_].append(_version(transaction.at, change.new, confirmed))

    def possible(self, account: str | None, since: datetime, until: datetime) -> Iterator[Account | None]:
        """What a statement could have read that began after `since` and was committed at `until`.

        The last version that was certainly there at `since`, and all that were committed from then on. Where it was
        not certain that there was any, also none.
        """
        versions = self._versions.get(account or "", [])
        first = max((at for at, each in enumerate(versions) if each.certain and each.certain <= since), default=None)
        if first is None:
            yield None
        for at in range(first or 0, len(versions)):
            if at == first or versions[at].at <= until:
                yield self._account(account or "", versions, at)

    def now(self, account: str | None) -> Account | None:
        """What it says at the end; a tier that was ever another counts as changed of late where that has a grace.

        That is what may still be kept; `possible` is about what may go.
        """
        versions = self._versions.get(account or "", [])
        if not versions:
            return None
        last = versions[-1]
        changed = self._grace and any(each.tier != last.tier for each in versions)
        return Account(last.tier, last.deleted_at, in_grace=changed)

    def _account(self, account: str, versions: list[Version], at: int) -> Account:
        """Its tier counts as changed where a sweep before all this had seen another one.

        A change there and back again between two looks is none, so only one that lasts is insisted upon.
        """
        found = versions[at]
        changed = self._grace and account in self._known and found.tier != versions[0].tier
        return Account(found.tier, found.deleted_at, in_grace=changed)


def _version(at: datetime, row: Row, confirmed: Mapping[tuple[str, int], datetime]) -> Version:
    deleted = row["deleted_at"]
    key = (str(row["id"]), int(row["version"] or 0))
    return Version(at, confirmed.get(key), str(row["tier"]), datetime.fromisoformat(deleted) if deleted else None)
