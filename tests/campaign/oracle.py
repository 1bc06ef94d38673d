"""Judges a campaign by what was seen from outside. Pure: a history comes in, the broken promises come out.

- No record went that was held at the instant of the commit, or that was not due by any reading of the directory which
  the batch could have had. The instant is the server's, so is a hold's `effective_at`: one machine's clock.
- Every transaction that took records was allowed by a permit, and the ledger has exactly one outcome for it, with
  exactly its records; or says that it is in doubt.
- No record is left that was due before the last sweep began; the log accounts for every record that is not there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from tests.campaign.accounts import Directory
from tests.campaign.history import History, Permit, Violation
from tests.campaign.rules import TARGETS, Record, Target, is_due
from tests.campaign.stream import Change, Transaction

_SHOWN = 20


def judge(history: History) -> list[Violation]:
    """All that was broken; nothing where all promises were kept."""
    directory = Directory(history.transactions, history.confirmed, history.known, grace=history.grace)
    taken = _Taken(history)
    found = [
        *_without_permit(history, taken),
        *_held_or_young(history, taken, directory),
        *_while_paused(history),
        *_miscounted(history, taken),
        *_left_due(history, directory),
        *_unaccounted(history),
        *_holds_lost(history),
        *_unsettled(history),
        *(Violation("fault", fault) for fault in history.faults),
    ]
    return _shortened(found)


class _Taken:
    """What the product took: its transactions, and the permits under which they were."""

    def __init__(self, history: History) -> None:
        by_xid: dict[tuple[str, int], list[Permit]] = defaultdict(list)
        for permit in history.permits:
            if permit.xid is not None:
                by_xid[TARGETS[permit.target].database, permit.xid].append(permit)
        self.transactions = [each for each in history.transactions if each.own is None and _of_records(each)]
        self.permits: dict[int, Permit | None] = {}
        self.by_permit: dict[int, list[Transaction]] = defaultdict(list)
        for transaction in self.transactions:
            # After a crash a server may give a number again that nobody has committed: the last permit's it is.
            issued = [
                each for each in by_xid[transaction.database, transaction.xid] if each.issued_at <= transaction.at
            ]
            permit = max(issued, key=lambda each: each.issued_at, default=None)
            self.permits[id(transaction)] = permit
            if permit is not None:
                self.by_permit[permit.number].append(transaction)

    def permit(self, transaction: Transaction) -> Permit | None:
        return self.permits[id(transaction)]

    def count(self, permit: int) -> int:
        return sum(len(_of_records(each)) for each in self.by_permit.get(permit, ()))


def _of_records(transaction: Transaction) -> list[Change]:
    return [each for each in transaction.changes if each.table in TARGETS]


def _without_permit(history: History, taken: _Taken) -> Iterator[Violation]:
    for transaction in taken.transactions:
        permit = taken.permit(transaction)
        for change in _of_records(transaction):
            if permit is None or permit.target != change.table:
                yield Violation("no permit", f"{_told(transaction)} took {change.old} of {change.table} under {permit}")


def _held_or_young(history: History, taken: _Taken, directory: Directory) -> Iterator[Violation]:
    for transaction in taken.transactions:
        permit = taken.permit(transaction)
        for change in _of_records(transaction):
            target = TARGETS[change.table]
            yield from _misdone(target, change, transaction)
            if change.old is None:
                continue
            record = target.record(change.old)
            told = f"{_told(transaction)} took {record} under {permit}"
            yield from (
                Violation("held", f"{told}, which was held by {hold}")
                for hold in history.holds
                if hold.binds(transaction.at) and hold.covers(record)
            )
            since = permit.issued_at if permit else transaction.at
            accounts = list(directory.possible(record.account, since, transaction.at))
            if not any(is_due(record, account, transaction.at) for account in accounts):
                yield Violation("not due", f"{told}, and its account could be {accounts}")


def _misdone(target: Target, change: Change, transaction: Transaction) -> Iterator[Violation]:
    """The right thing was done to it: it went, or all that tells of a person did."""
    if target.action == "delete":
        right = change.old is not None and change.new is None
    else:
        kept = set(change.old or ()) - {"account_id", "ip"}
        right = (
            change.old is not None
            and change.new is not None
            and target.record(change.new).done
            and not target.record(change.old).done
            and all(change.old[name] == change.new[name] for name in kept)
        )
    if not right:
        yield Violation("misdone", f"{_told(transaction)} did to {target.name}: {change.old} → {change.new}")


def _while_paused(history: History) -> Iterator[Violation]:
    for pause in history.pauses:
        for permit in history.permits:
            if pause.since < permit.issued_at < pause.until:
                yield Violation("paused", f"{permit} was issued in {pause}")


def _miscounted(history: History, taken: _Taken) -> Iterator[Violation]:
    told: dict[int, list[int]] = defaultdict(list)
    doubts: dict[int, list[str]] = defaultdict(list)
    for entry in history.ledger:
        if entry["kind"] == "outcome":
            told[entry["permit"]].append(_acted(entry))
        elif entry["kind"] == "in_doubt":
            doubts[entry["permit"]].append(entry["found"])
    for number in sorted({*told, *doubts, *taken.by_permit}):
        counted, gone, found = told.get(number, []), taken.count(number), doubts.get(number, [])
        where = f"permit {number}: {gone} records went, the ledger tells of {counted}, in doubt: {found}"
        if len(taken.by_permit.get(number, ())) > 1:
            yield Violation("permit used twice", where)
        if len(counted) > 1 or len(found) > 1:
            yield Violation("counted twice", where)
        elif "unknown" in found and not counted:
            if not _may_be_in_doubt(history, number):
                yield Violation("doubt without a reason", where)
        elif sum(counted) != gone:
            yield Violation("miscounted", where)
        elif ("nothing" in found and gone) or ("committed" in found and not gone):
            yield Violation("false doubt", where)


def _may_be_in_doubt(history: History, number: int) -> bool:
    """Only a server that has crashed since the permit was issued may leave it open for good what became of a batch."""
    permit = next(each for each in history.permits if each.number == number)
    database = TARGETS[permit.target].database
    return any(crashed == database and at > permit.issued_at for crashed, at in history.crashes)


def in_doubt(history: History) -> list[Mapping[str, Any]]:
    """The entries by which the ledger says that it does not know."""
    return [each for each in history.ledger if each["kind"] == "in_doubt" and each["found"] == "unknown"]


def _acted(entry: Mapping[str, Any]) -> int:
    return int(entry["counts"]["erased"]) + int(entry["counts"]["anonymised"])


def _left_due(history: History, directory: Directory) -> Iterator[Violation]:
    for record in due_now(history, directory):
        yield Violation("left", f"{record} was due and is still there; account {directory.now(record.account)}")


def due_now(history: History, directory: Directory | None = None) -> Iterator[Record]:
    """The records left that were due at `judged_at`, and that no hold covers."""
    if directory is None:
        directory = Directory(history.transactions, history.confirmed, history.known, grace=history.grace)
    at = history.judged_at
    if at is None:
        return
    holds = [hold for hold in history.holds if hold.state != "released"]
    for records in history.left.values():
        for record in records:
            if is_due(record, directory.now(record.account), at) and not any(hold.covers(record) for hold in holds):
                yield record


def _unaccounted(history: History) -> Iterator[Violation]:
    """What the log says is left and what is there are the same: the oracle has missed nothing."""
    there: dict[str, dict[str, Record]] = {name: {} for name in history.left}
    for transaction in history.transactions:
        for change in _of_records(transaction):
            if change.table not in there:
                continue
            target = TARGETS[change.table]
            if change.old is not None:
                there[change.table].pop(target.record(change.old).key, None)
            if change.new is not None:
                record = target.record(change.new)
                there[change.table][record.key] = record
    for name, records in history.left.items():
        for record in set(there[name].values()) ^ set(records):
            yield Violation("unaccounted", f"{record}: in the table {record in records}, by the log the contrary")
    if history.observed is not None:
        changes = (change for each in history.transactions for change in _of_records(each))
        went = Counter(str(each.old["id"]) for each in changes if each.table == "watched" and each.old and not each.new)
        for key, count in ((went - Counter(history.observed)) + (Counter(history.observed) - went)).items():
            yield Violation("unaccounted", f"record {key} of watched: log and trigger differ by {count}")


def _holds_lost(history: History) -> Iterator[Violation]:
    known = {hold.id: hold for hold in history.holds}
    for answer in history.answers:
        found = known.get(answer.id)
        if found is None or found.effective_at != answer.effective_at:
            yield Violation("hold lost", f"{answer} was given, and at the end there is {found}")
    for hold in history.holds:
        if hold.state == "pending":
            yield Violation("hold pending", f"{hold} has never become active")


def _unsettled(history: History) -> Iterator[Violation]:
    if history.open_permits:
        yield Violation("unsettled", f"{history.open_permits} permits have no outcome")


def _told(transaction: Transaction) -> str:
    return f"transaction {transaction.xid} of {transaction.database} at {transaction.at.isoformat()}"


def _shortened(found: list[Violation]) -> list[Violation]:
    """At most so many of a kind, and how many more there are."""
    counts = Counter(each.kind for each in found)
    shown: Counter[str] = Counter()
    short = []
    for each in found:
        shown[each.kind] += 1
        if shown[each.kind] <= _SHOWN:
            short.append(each)
    short += [Violation(kind, f"… and {n - _SHOWN} more") for kind, n in counts.items() if n > _SHOWN]
    return short
