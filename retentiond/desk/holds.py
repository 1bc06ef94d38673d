"""Placing, releasing and reinstating a hold: what is asked of the request first, and who may end one.

With `holds.two_person` a release takes two principals: the first one's is written down with the hold, which holds on,
and the second one's carries it out. Both are in the ledger. Reinstating takes a request back.
"""

from __future__ import annotations

from collections.abc import Mapping

from retentiond.control import holds
from retentiond.control.hold_rows import HoldDraft
from retentiond.desk.base import Also, Desk
from retentiond.domain.duration import instant
from retentiond.domain.holds import Hold, Scope
from retentiond.errors import InvalidScope, UsageError


def draft(
    scope: Mapping[str, object],
    *,
    matter: str,
    reason: str,
    review_by: str | None = None,
    notice: str | None = None,
    native: bool = False,
    id: str | None = None,
) -> HoldDraft:
    """The hold to be placed; `review_by` is RFC 3339 or a date. Raises InvalidScope, UsageError."""
    found = Scope.from_document(scope)
    require_text(matter=matter, reason=reason)
    return HoldDraft(
        matter=matter,
        reason=reason,
        scope=found,
        review_by=instant(review_by) if review_by is not None else None,
        notice=notice,
        id=id,
        native=native,
    )


def require_text(**given: str) -> None:
    """Raise UsageError for a text without a word in it."""
    for name, text in given.items():
        if not text.strip():
            raise UsageError(f"{name} is empty", remedy="say it in words: it is what is known of the hold later")


def require_names(desk: Desk, scope: Scope) -> None:
    """Raise InvalidScope for a target or class that is not configured: the hold would not cover what is meant."""
    known = {target.name for target in desk.spec.targets}
    if not known:
        raise UsageError(
            "no target is configured here: the hold would keep nothing that is known",
            remedy="place it with the daemon's configuration (RETENTIOND_CONFIG_FILE, RETENTIOND_CONFIG)",
        )
    if unknown := sorted({*scope.targets, *scope.listed} - known):
        raise InvalidScope(
            f"there is no target {', '.join(unknown)}", remedy=f"the targets are: {', '.join(sorted(known)) or 'none'}"
        )
    if unknown := sorted(set(scope.classes) - set(desk.spec.policy.classes)):
        raise InvalidScope(
            f"there is no class {', '.join(unknown)}", remedy=f"the classes are: {', '.join(desk.spec.policy.classes)}"
        )


async def place(desk: Desk, drafted: HoldDraft, by: str, also: Also | None = None) -> Hold:
    """Place it; it is pending, which already keeps new batches off. Raises InvalidScope, UsageError, Unreachable."""
    require_names(desk, drafted.scope)
    return await holds.place(desk.database, drafted, by, record=desk.hold_recorder(by, also))


async def release(desk: Desk, hold_id: str, by: str, reason: str, also: Also | None = None) -> Hold:
    """Release it, or ask for the release where that takes two: `by` is then the name of a token.

    Raises UsageError, NotFound, Otherwise, Unreachable.
    """
    require_text(reason=reason)
    return await holds.release(
        desk.database,
        hold_id,
        by,
        reason,
        grace_seconds=desk.spec.release_grace.total_seconds(),
        two_person=desk.rules.two_person,
        record=desk.hold_recorder(by, also),
    )


async def reinstate(desk: Desk, hold_id: str, by: str, reason: str, also: Also | None = None) -> Hold:
    """Let a hold in its release grace hold on, or take back that somebody asked for its release."""
    require_text(reason=reason)
    return await holds.reinstate(desk.database, hold_id, by, reason, record=desk.hold_recorder(by, also))
