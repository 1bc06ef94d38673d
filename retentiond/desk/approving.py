"""What waits for an operator's word, and giving it: bound to the policy, and to the count that was asked for."""

from __future__ import annotations

from collections.abc import Sequence

from retentiond.control import approvals, due
from retentiond.control.approvals import Approval, Awaited, Kind
from retentiond.control.database import Tx
from retentiond.desk.base import Also, Desk, Did
from retentiond.domain.duration import rfc3339
from retentiond.errors import Otherwise
from retentiond.ledger import kinds
from retentiond.sweep.questions import CLOCK, DIRECTORY


def subject(kind: Kind, target: str | None) -> str:
    """What the question of that kind is called; `target` is of a sweep."""
    return {"directory": DIRECTORY, "clock": CLOCK, "policy": ""}.get(kind, target or "")


async def approve(
    desk: Desk,
    kind: Kind,
    target: str | None,
    by: str,
    *,
    bound: int | None = None,
    digest: str | None = None,
    also: Also | None = None,
) -> Approval:
    """Answer the question that waits.

    Raises Otherwise where nobody asks it, or by now for more than `bound`, or under another policy than `digest`.
    """
    async with desk.database.transaction() as tx:
        # Units first, as who asks locks them; then the question, so that of two who answer it one finds it answered.
        await due.make_due(tx)
        await approvals.lock(tx, kind, subject(kind, target))
        asked = _awaited(await approvals.waiting(tx), kind, subject(kind, target), desk.spec.digest)
        if bound is not None and asked.count is not None and asked.count > bound:
            raise Otherwise(
                f"it asks for {asked.count} by now, and {bound} were to be approved",
                remedy="look at what waits again, and approve that count if it is right",
            )
        policy = approvals.policy_of(asked.digest)
        if digest is not None and policy != digest:
            raise Otherwise(
                f"what waits by now is the policy {policy or 'of no digest'}, not {digest}",
                remedy="look at what waits again, and approve that if it is right",
            )
        granted = await approvals.grant(tx, asked.kind, asked.target, asked.digest, asked.count, by)
        if also is not None:
            await also(tx, Did(answer=granted_document(granted)))
        await enter(desk, tx, granted)
    return granted


async def enter(desk: Desk, tx: Tx, granted: Approval) -> None:
    """The approval's entry in the ledger."""
    entry = kinds.approval(
        "granted",
        subject=granted.kind,
        target=granted.target or None,
        digest=granted.digest,
        bound=granted.bound,
        by=granted.granted_by,
    )
    await desk.journal.append(tx, entry)


def awaited_document(asked: Awaited) -> dict[str, object]:
    """What waits, as JSON."""
    return {
        "kind": asked.kind,
        "target": asked.target or None,
        "digest": approvals.policy_of(asked.digest) or None,
        "count": asked.count,
        "detail": asked.detail,
        "since": rfc3339(asked.since),
    }


def granted_document(granted: Approval) -> dict[str, object]:
    """What was approved, as `approve --json` shows it."""
    digest = approvals.policy_of(granted.digest)
    return {"kind": granted.kind, "target": granted.target, "bound": granted.bound, "digest": digest}


def _awaited(waiting: Sequence[Awaited], kind: Kind, target: str, digest: str) -> Awaited:
    for asked in waiting:
        # A policy that waits is another process's, which has not been let in yet.
        if (asked.kind, asked.target) == (kind, target) and (
            kind == "policy" or approvals.policy_of(asked.digest) in ("", digest)
        ):
            return asked
    listed = ", ".join(
        f"--{asked.kind}" if asked.kind != "sweep" else asked.target for asked in waiting if asked.kind != "policy"
    )
    raise Otherwise(
        f"{target if kind == 'sweep' else f'the {kind}'} waits for no approval under this configuration",
        remedy=f"what waits: {listed or 'nothing'}; a guard that stops a sweep asks for one",
    )
