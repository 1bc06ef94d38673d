"""What a guard asks an operator, and what becomes of the answer.

A guard that trips puts its question on the waiting list with a count, and `approve` grants exactly that: the kind, the
target, the policy's digest and the count as a bound. An approval is used once. When the guard no longer trips, the
question is withdrawn and an approval that nobody needed lapses. Each use and each lapse is in the ledger.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from retentiond.control import approvals
from retentiond.control.database import Tx
from retentiond.ledger import kinds
from retentiond.ledger.journal import Journal

DIRECTORY = "accounts"
"""What the question about a damaged directory is called: `retentiond approve --directory`."""

CLOCK = "clock"
"""The same for a clock that jumped: `retentiond approve --clock`."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked: may so many (`count`) go, under the policy of this digest? `slack` is what a bound allows on top.

    The count of a clock is the seconds by which it is ahead, which grow while the operator thinks.
    """

    kind: approvals.Kind
    target: str
    digest: str
    count: int
    slack: int = 0
    detail: Mapping[str, kinds.Json] = field(default_factory=dict)


async def allowed(tx: Tx, journal: Journal, question: Question, *, by: str) -> bool:
    """Whether an approval covers the question, which is used up then; else it is on the waiting list.

    The caller must let the transaction commit in either case.
    """
    approval = await approvals.find(tx, question.kind, question.target, question.digest)
    if approval is not None and (approval.bound is None or question.count <= approval.bound + question.slack):
        await approvals.use(tx, approval.id)
        await journal.append(tx, _entry("used", approval, by))
        return True
    await approvals.request(tx, question.kind, question.target, question.digest, question.count, dict(question.detail))
    return False


async def not_asked(tx: Tx, journal: Journal, kind: approvals.Kind, target: str, *, by: str) -> None:
    """Withdraw the question of a guard that does not trip, and void what was approved for it."""
    lapsed = await approvals.lapse(tx, kind, target)
    await journal.append(tx, *(_entry("lapsed", approval, by) for approval in lapsed))


def _entry(event: str, approval: approvals.Approval, by: str) -> kinds.Entry:
    return kinds.approval(
        event,
        subject=approval.kind,
        target=approval.target or None,
        digest=approval.digest or None,
        bound=approval.bound,
        by=by,
    )
