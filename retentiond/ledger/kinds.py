"""What the ledger's entries say: one constructor for each kind (4-safety.md, "Ledger").

No record id, no content and no account id is ever in an entry. Accounts appear as an HMAC under a key that dies with
their erasure's end; free text of holds as a keyed digest, since it may be personal data. Integers are used where a
float would do as well: their canonical form is beyond dispute.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from retentiond.domain.accounts import of_tier
from retentiond.domain.duration import rfc3339
from retentiond.domain.evidence import canonical, keyed_digest
from retentiond.domain.holds import Hold
from retentiond.domain.plan import TargetPlan
from retentiond.errors import LedgerError

Json: TypeAlias = "bool | int | float | str | list[Json] | Mapping[str, Json] | None"

ENVELOPE = frozenset({"seq", "at", "kind", "version", "prev"})
"""The fields that the journal adds to every entry."""


class Kind(StrEnum):
    """The kinds of entries."""

    POLICY = "policy"
    MODE = "mode"
    INTENT = "intent"
    OUTCOME = "outcome"
    IN_DOUBT = "in_doubt"
    REQUEST = "request"
    HOLD = "hold"
    ERASURE = "erasure"
    EXPORT = "export"
    APPROVAL = "approval"
    GUARD = "guard"
    HEARTBEAT = "heartbeat"
    STARTUP = "startup"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is to be appended; the journal adds the envelope."""

    kind: Kind
    body: Mapping[str, Json]

    def __post_init__(self) -> None:
        """Refuse a body that would hide the envelope; raises LedgerError."""
        if taken := sorted(ENVELOPE & set(self.body)):
            raise LedgerError(f"an entry of the ledger can't set {', '.join(taken)} itself")


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the records of a batch."""

    selected: int = 0
    erased: int = 0
    anonymised: int = 0
    archived: int = 0
    already_gone: int = 0
    held: int = 0
    minimum: int = 0
    failed: int = 0
    in_doubt: int = 0

    def document(self) -> dict[str, Json]:
        """The counts as JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Work:
    """Which batch an outcome is about, under which rule; `cutoff` None where none applies."""

    sweep: str
    batch: str
    permit: int
    target: str
    store: str
    class_name: str
    action: str
    policy_digest: str
    rule: str
    cutoff: datetime | None
    hold_epoch: int
    shard: str = ""

    def document(self) -> dict[str, Json]:
        """The work as JSON."""
        return {
            "sweep": self.sweep,
            "batch": self.batch,
            "permit": self.permit,
            "target": self.target,
            "shard": self.shard,
            "store": self.store,
            "class": self.class_name,
            "action": self.action,
            "policy": self.policy_digest,
            "rule": self.rule,
            "cutoff": _moment(self.cutoff),
            "hold_epoch": self.hold_epoch,
        }


@dataclass(frozen=True, slots=True)
class Result:
    """What a batch did: `oldest` and `newest` are anchors, `ids_digest` was made where the records are.

    `verified` says how it is known, such as `returning` (the deleting statement itself) or `looked` (seen afterwards).
    `partitions` has the bounds of partitions that were dropped whole: then there is no digest of ids (ADR 5).
    `archive` says which object has the records that went, and its checksums. `retention`: after how many days the store
    was told to erase by itself (or `never`), and in how many groups of records.
    """

    counts: Counts
    verified: str
    milliseconds: int
    tiers: Mapping[str, Counts] = field(default_factory=dict)
    bytes: int | None = None
    oldest: datetime | None = None
    newest: datetime | None = None
    ids_digest: str | None = None
    partitions: tuple[str, ...] = ()
    archive: Mapping[str, Json] | None = None
    retention: Mapping[str, int] = field(default_factory=dict)

    def document(self) -> dict[str, Json]:
        """The result as JSON; a tier has only the counts that are not 0."""
        return {
            "counts": self.counts.document(),
            "tiers": {
                tier: {name: n for name, n in counts.document().items() if n} for tier, counts in self.tiers.items()
            },
            "bytes": self.bytes,
            "oldest": _moment(self.oldest),
            "newest": _moment(self.newest),
            "ids_digest": self.ids_digest,
            **({"partitions": list(self.partitions)} if self.partitions else {}),
            **({"archive": self.archive} if self.archive is not None else {}),
            **({"retention": dict(self.retention)} if self.retention else {}),
            "verified": self.verified,
            "milliseconds": self.milliseconds,
        }


def policy(event: str, *, digest: str, previous: str | None, by: str) -> Entry:
    """A policy became the one in force (`enforced`), or was `approved` or `refused`; digests are of the document."""
    return Entry(Kind.POLICY, {"event": event, "digest": digest, "previous": previous, "by": by})


def mode(event: str, *, mode: str, by: str, key: bytes, reason: str | None = None) -> Entry:
    """`event` is `mode`, `pause` or `resume`; the reason is free text and enters as a keyed digest."""
    return Entry(Kind.MODE, {"event": event, "mode": mode, "by": by, "reason": _digest(key, reason)})


def sweep_requested(targets: Sequence[str], *, mode: str, by: str) -> Entry:
    """Somebody asked for a sweep of these targets, ahead of its time; the intents of the sweeps follow."""
    return Entry(Kind.MODE, {"event": "sweep", "mode": mode, "by": by, "reason": None, "targets": list(targets)})


def intent(plan: TargetPlan, *, sweep: str, store: str, shard: str, mode: str, due: int | None, by: str) -> Entry:
    """A sweep of a target is about to begin: under which rules, holds and cutoffs (`due`: how many, where counted).

    One for each sweep and target, in the ledger before its first batch, and none for each batch: the permit's row has
    the batch's intent, committed before the batch and in the same database, and its outcome or its doubt follows in
    the ledger in every case. A leaf for each would double the ledger, and hold its head's lock in the permit's
    transaction, where all workers and every hold would wait for one another.
    """
    terms = {tier: of_tier(plan.policy, plan.data_class, tier, plan.now) for tier in plan.policy.tiers}
    terms |= {"none": plan.of_nobody(), "unknown": plan.of_unknown()}
    return Entry(
        Kind.INTENT,
        {
            "sweep": sweep,
            "target": plan.target,
            "shard": shard,
            "store": store,
            "class": plan.data_class.name,
            "action": plan.action,
            "mode": mode,
            "policy": plan.digest,
            "rule": plan.data_class.after,
            "minimum": plan.data_class.minimum,
            "now": rfc3339(plan.now),
            "cutoffs": {tier: _moment(found.cutoff) for tier, found in terms.items()},
            "account_erasure_cutoff": _moment(plan.deletion_cutoff),
            "hold_epoch": plan.epoch,
            "holds": len(plan.holds),
            "due": due,
            "worker": by,
        },
    )


def outcome(work: Work, result: Result) -> Entry:
    """A batch was carried out."""
    return Entry(Kind.OUTCOME, {**work.document(), **result.document()})


def request(
    stage: str,
    *,
    request: str,
    target: str,
    store: str,
    permit: int,
    batch: str,
    digest: str,
    selected: int,
    by: str,
    detail: Mapping[str, Json] | None = None,
) -> Entry:
    """A deletion that a store carries out by itself came to another stage (`requested`, `hidden`, …).

    `request` is the store's own name for it, `digest` the keyed digest of what was asked for, `selected` how many
    records that was about. What went is in the outcome at its end.
    """
    return Entry(
        Kind.REQUEST,
        {
            "stage": stage,
            "request": request,
            "target": target,
            "store": store,
            "permit": permit,
            "batch": batch,
            "digest": digest,
            "selected": selected,
            "by": by,
            "detail": detail or {},
        },
    )


def in_doubt(*, permit: int, target: str, shard: str, batch: str, found: str, by: str) -> Entry:
    """A permit without an outcome was looked into; `found` says what is there now (`committed`, `nothing`, …)."""
    return Entry(
        Kind.IN_DOUBT,
        {"permit": permit, "target": target, "shard": shard, "batch": batch, "found": found, "by": by},
    )


def declared_gone(
    *, permit: int, target: str, shard: str, batch: str, worker: str, by: str, reason: str, key: bytes
) -> Entry:
    """An operator has said that the worker of a permit is gone, so nothing waits for it; the reason as a digest."""
    body = in_doubt(permit=permit, target=target, shard=shard, batch=batch, found="declared_gone", by=by).body
    return Entry(Kind.IN_DOUBT, {**body, "worker": worker, "reason": _digest(key, reason)})


def hold(event: str, subject: Hold, *, by: str, epoch: int, key: bytes) -> Entry:
    """A hold was placed, activated, released, reinstated or ended; its free text and scope enter as keyed digests."""
    return Entry(
        Kind.HOLD,
        {
            "event": event,
            "hold": subject.id,
            "state": str(subject.state),
            "epoch": epoch,
            "by": by,
            "effective_at": _moment(subject.effective_at),
            "review_by": _moment(subject.review_by),
            "erasable_at": _moment(subject.erasable_at),
            "matter": _digest(key, subject.matter),
            "reason": _digest(key, subject.reason),
            "scope": _digest(key, canonical(subject.scope.document()).decode()),
            "notice": _digest(key, subject.notice),
            "release_reason": _digest(key, subject.release_reason),
        },
    )


def erasure(event: str, *, request: str, account: str, by: str, detail: Mapping[str, Json] | None = None) -> Entry:
    """An account's erasure was requested, started, completed, …; `account` is its HMAC, `detail` counts per target."""
    return Entry(
        Kind.ERASURE, {"event": event, "request": request, "account": account, "by": by, "detail": detail or {}}
    )


def export(*, request: str, account: str, by: str, records: Mapping[str, int], manifest: str) -> Entry:
    """An account's data was handed out: `account` is its HMAC, `records` per target, `manifest` the SHA-256 of it."""
    return Entry(
        Kind.EXPORT,
        {"request": request, "account": account, "by": by, "records": dict(records), "manifest": manifest},
    )


def approval(event: str, *, subject: str, target: str | None, digest: str | None, bound: int | None, by: str) -> Entry:
    """An approval was granted or used; `subject` is what it lets pass (`sweep`, `policy`, `clock`, `directory`)."""
    return Entry(
        Kind.APPROVAL,
        {"event": event, "subject": subject, "target": target, "digest": digest, "bound": bound, "by": by},
    )


def guard(name: str, *, tripped: bool, target: str | None, detail: Mapping[str, Json] | None = None) -> Entry:
    """A guard tripped, or let go again."""
    return Entry(Kind.GUARD, {"guard": name, "tripped": tripped, "target": target, "detail": detail or {}})


def accepted(given_up: str | None, *, by: str, reason: str, key: bytes) -> Entry:
    """An operator took the control database as it is; `given_up` is the signed note that it does not continue."""
    return guard(
        "control_state",
        tripped=False,
        target=None,
        detail={"event": "accepted", "by": by, "reason": _digest(key, reason), "given_up": given_up},
    )


def heartbeat(*, mode: str, policy_digest: str | None, targets: Mapping[str, Json]) -> Entry:
    """All is well and this is how each target stands: a day without work is evidence too."""
    return Entry(Kind.HEARTBEAT, {"mode": mode, "policy": policy_digest, "targets": dict(targets)})


def startup(*, worker: str, mode: str, policy_digest: str | None, key: str, timeline: str | None = None) -> Entry:
    """A process began its work; `key` is the verifier key of the checkpoints that it signs."""
    return Entry(
        Kind.STARTUP,
        {"worker": worker, "mode": mode, "policy": policy_digest, "key": key, "timeline": timeline},
    )


def _moment(moment: datetime | None) -> str | None:
    return rfc3339(moment) if moment is not None else None


def _digest(key: bytes, text: str | None) -> str | None:
    return keyed_digest(key, text) if text is not None else None
