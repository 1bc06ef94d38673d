"""What is the same for all records of an account: its term, whether its erasure is due, and the holds that bear on it.

A ruling is made once for each account (and tier, where records name theirs) and then looked up. Rulings are of one
plan and of what the directory said when it was asked: a batch makes new ones under its permit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Final

from retentiond.domain.accounts import UNKNOWN, AccountFacts, Resolution
from retentiond.domain.duration import Term, expires_at
from retentiond.domain.holds import TargetHold
from retentiond.domain.plan import Group, TargetPlan
from retentiond.stores.base import AccountDirectory, Known

_NEVER: Final = datetime.min.replace(tzinfo=UTC)
_NOT_ASKED: Final = "the account directory has not been asked about the account"


class Untold(Enum):
    """Stands for the account of a record that can't be read: such a record is unresolved, and any hold may be on it."""

    KEY = "the key does not fit the template"
    TAG = "it lacks a tag that the target reads the account or the tier from"
    LINE = "the line can't be read in the target's format"
    FIELD = "the line lacks the field that the target reads the account from"
    OWNER = "no record of the target that it is paired with owns it"
    CLASS = "its log group is of a class whose events can't be read, so that nothing tells how new they are"


Account = str | None | Untold
"""As the record names it; None: nobody's, or the target's records name none."""
Subject = Account | tuple[Account, str | None]


class State(Enum):
    """What becomes of a record as far as is counted, holds aside."""

    KEEP = 0
    DUE = 1
    MINIMUM = 2
    UNRESOLVED = 3


@dataclass(frozen=True, slots=True)
class Ruling:
    """What decides over the records of a subject.

    `plain`: a record with an anchor is due before `edge`, and is just kept after. `account` is in canonical text;
    `deleted_at` is when it was deleted or counts as such; `erasing`: its erasure is due. `holds` are those that may
    cover records of it. `slot` is the number of what it shares with other subjects (`Rulings.next_due`).
    """

    label: str
    edge: datetime
    plain: bool
    slot: int
    fault: str | None = None
    account: str | None = None
    deleted_at: datetime | None = None
    erasing: bool = False
    holds: tuple[TargetHold, ...] = ()

    def held(self, key: str, anchor: datetime | None) -> bool:
        """Whether any hold covers a record of it."""
        return any(hold.matches(account=self.account, key=key, anchor=anchor) for hold in self.holds)


@dataclass(frozen=True, slots=True)
class _Slot:
    """A tier's label, and the terms that may come to apply to its records without any change in the directory."""

    label: str
    terms: tuple[Term, ...]


class Rulings:
    """The rulings of a plan; `ask` tells them of accounts before records of those are judged."""

    def __init__(self, plan: TargetPlan) -> None:
        self.plan = plan
        self._asks = plan.knows_account and plan.has_directory
        self._grace = plan.grace_cutoff if plan.tier_source == "directory" else None
        self._horizon = plan.horizon()
        self._deletion = plan.deletion_cutoff
        self._known: dict[str, Known | None] = {}
        self._canonical: dict[str, str] = {}
        self._rulings: dict[Subject, Ruling] = {}
        self._shared: dict[tuple[object, ...], Ruling] = {}
        self._slots: dict[_Slot, int] = {}

    async def ask(self, accounts: Iterable[Account], directory: AccountDirectory | None) -> None:
        """Ask the directory about these accounts, as records name them, unless it was; raises Unreachable, Blind."""
        new = {each for each in accounts if isinstance(each, str)} - self._known.keys()
        if not new or not self._asks or directory is None:
            return
        known = await directory.known(self.plan.data_class.name, new)
        absent = new - known.keys()
        # Only holds and what is remembered of missing accounts compare ids that the directory does not have.
        wanted = absent if self.plan.holds or self.plan.surveyed.missing else set()
        canonical = await directory.canonical(wanted) if wanted else {}
        self.learn(new, known, canonical)

    def learn(self, asked: Collection[str], known: Mapping[str, Known], canonical: Mapping[str, str]) -> None:
        """Take what the directory said of these accounts; `canonical` has the texts of ids that it does not have."""
        self._known.update((each, known.get(each)) for each in asked)
        self._canonical.update(canonical)

    def forget(self) -> None:
        """Whatever the directory said is to be asked about anew."""
        self._known.clear()
        self._canonical.clear()
        self._rulings.clear()
        self._shared.clear()

    def knows_the_same(self, other: Rulings, accounts: Collection[Account]) -> bool:
        """Whether the directory said the same of these accounts both times, under the same plan."""
        if self.plan is not other.plan:
            return False
        asked = [each for each in accounts if isinstance(each, str)]
        return all(
            self._known.get(each) == other._known.get(each) and self._canonical.get(each) == other._canonical.get(each)
            for each in asked
        )

    @property
    def accounts(self) -> int:
        """How many accounts were asked about."""
        return len(self._known)

    @property
    def slots(self) -> int:
        """How many slots there are."""
        return len(self._slots)

    def of(self, subjects: Iterable[Subject]) -> Mapping[Subject, Ruling]:
        """The rulings, with those of these subjects among them."""
        found = self._rulings
        for subject in subjects:
            if subject not in found:
                found[subject] = self._make(subject)
        return found

    def facts(self, account: Account) -> tuple[str | None, AccountFacts]:
        """An account's canonical text, and what is known of it: by the directory, and by what a survey remembers."""
        if not isinstance(account, str) or not self.plan.knows_account:
            return None, AccountFacts()
        if not self._asks:
            return account, AccountFacts()
        surveyed = self.plan.surveyed
        known = self._known.get(account)
        if known is None:
            text = self._canonical.get(account, account)
            return text, AccountFacts(deleted_at=surveyed.missing_since(text)) if surveyed.missing else AccountFacts()
        facts = known.facts
        if self._grace is None:
            return known.id, facts
        dated = known.changed_at is not None and known.changed_at > self._grace
        if not facts.in_grace and (dated or surveyed.in_grace(known.written or known.id, facts.tier)):
            facts = replace(facts, in_grace=True)
        return known.id, facts

    def state(self, ruling: Ruling, anchor: datetime | None) -> State:
        """What becomes of a record of the subject, holds aside."""
        plan = self.plan
        base = ruling.deleted_at if plan.counts_from_deletion else anchor
        if base is not None and base < ruling.edge:
            return State.DUE
        if ruling.erasing:
            return State.MINIMUM if plan.data_class.minimum else State.DUE
        if plan.counts_from_deletion:
            return State.KEEP if ruling.fault is None else State.UNRESOLVED
        if anchor is None:
            return State.UNRESOLVED
        # Of what can't be told, that counts which would be due by the shortest of all terms.
        old = self._horizon is not None and anchor < self._horizon
        return State.UNRESOLVED if old and ruling.fault is not None else State.KEEP

    def past_term(self, ruling: Ruling, anchor: datetime | None) -> float:
        """How many seconds a due record is past its term, or its account past its grace: the larger."""
        base = ruling.deleted_at if self.plan.counts_from_deletion else anchor
        past = 0.0 if base is None or ruling.edge is _NEVER else (ruling.edge - base).total_seconds()
        if ruling.deleted_at is not None and not self.plan.data_class.minimum:
            past = max(past, (self._deletion - ruling.deleted_at).total_seconds())
        return past

    def label_of(self, slot: int) -> str:
        """The label of a slot's tier."""
        return list(self._slots)[slot].label

    def next_due(self, slot: int, anchor: datetime) -> datetime | None:
        """The earliest instant at which a record of the slot, kept now, can become due; None: never by itself."""
        moments = [expires_at(anchor, term) for term in list(self._slots)[slot].terms]
        return self._not_past(moments)

    def next_due_of(self, ruling: Ruling, anchor: datetime | None) -> datetime | None:
        """As `next_due`, for a record of a subject that is not plain."""
        plan = self.plan
        base = ruling.deleted_at if plan.counts_from_deletion else anchor
        moments = [] if base is None else [self.next_due(ruling.slot, base)]
        if ruling.deleted_at is not None and not plan.data_class.minimum:
            moments.append(expires_at(ruling.deleted_at, plan.policy.deletion_grace))
        return self._not_past(moments)

    def _not_past(self, moments: Iterable[datetime | None]) -> datetime | None:
        # What lasts months can end days before it does by the calendar: then it is due any moment.
        return min((max(moment, self.plan.now) for moment in moments if moment is not None), default=None)

    # --- Making one ---

    def _make(self, subject: Subject) -> Ruling:
        account, tier = subject if isinstance(subject, tuple) else (subject, None)
        if isinstance(account, Untold):
            return self._untold(account.value)
        if isinstance(account, str) and self._asks and account not in self._known:
            return self._untold(_NOT_ASKED)
        text, facts = self.facts(account)
        holds = tuple(hold for hold in self.plan.holds if hold.accounts is None or text in hold.accounts)
        if holds:
            return self._ruled(text, tier, facts, holds)
        # Accounts by the hundred thousand come to few rulings. (A dataclass is slow to hash.)
        like = (account is None, tier, facts.found, facts.tier, facts.override, facts.deleted_at, facts.in_grace)
        if like not in self._shared:
            self._shared[like] = self._ruled(text, tier, facts, ())
        return self._shared[like]

    def _untold(self, fault: str) -> Ruling:
        """Nothing tells whose the record is: any hold on an account may be on it."""
        holds = tuple(replace(hold, accounts=None) for hold in self.plan.holds)
        slot = self._slot(_Slot(UNKNOWN, ()))
        return Ruling(UNKNOWN, _NEVER, plain=False, slot=slot, fault=fault, holds=holds)

    def _ruled(
        self, account: str | None, tier: str | None, facts: AccountFacts, holds: tuple[TargetHold, ...]
    ) -> Ruling:
        plan = self.plan
        found = plan.resolution(account=account, raw_tier=tier, facts=facts)
        deleted = facts.deleted_at if account is not None and self._asks else None
        label = UNKNOWN if found.fault is not None else found.tier
        return Ruling(
            label=label,
            edge=_NEVER if found.fault is not None or found.cutoff is None else found.cutoff,
            plain=found.fault is None and deleted is None and not plan.counts_from_deletion,
            slot=self._slot(_Slot(label, self._terms(found, facts))),
            fault=found.fault,
            account=account,
            deleted_at=deleted,
            erasing=deleted is not None and deleted < self._deletion,
            holds=holds,
        )

    def _terms(self, found: Resolution, facts: AccountFacts) -> tuple[Term, ...]:
        """The term, and where that is for a downgrade grace also the one that comes after it."""
        if found.fault is not None:
            return ()
        after = self.plan.resolve(Group(facts.tier, facts.override)) if found.rule == "downgrade_grace" else found
        return tuple(dict.fromkeys(each.term for each in (found, after) if each.term is not None))

    def _slot(self, slot: _Slot) -> int:
        return self._slots.setdefault(slot, len(self._slots))
