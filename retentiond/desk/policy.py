"""The policy that is configured here, the one in force, and what the first would newly erase."""

from __future__ import annotations

from dataclasses import dataclass

from retentiond.control import approvals, holds, policies
from retentiond.control.database import Tx
from retentiond.desk.base import Desk
from retentiond.domain.change import Evaded, evaded, newly_erases

EVADED_REMEDY = (
    "with this configuration set, place each hold anew under the new name (`retentiond hold place`, the same matter), "
    "then release the old one (`retentiond hold release`); or keep the name"
)


@dataclass(frozen=True, slots=True)
class PolicyView:
    """The configuration of here beside what is in force; `newly_erases` and `evaded` say what it would change."""

    digest: str
    in_force: str | None
    document: dict[str, object]
    newly_erases: tuple[str, ...]
    evaded: tuple[str, ...]
    approved: bool

    def shown(self) -> dict[str, object]:
        """As `policy show --json` has it."""
        return {"digest": self.digest, "in_force": self.in_force, "document": self.document}

    def difference(self) -> dict[str, object]:
        """As `policy diff --json` has it."""
        return {
            "digest": self.digest,
            "in_force": self.in_force,
            "newly_erases": list(self.newly_erases),
            "holds_evaded": list(self.evaded),
            "approved": self.approved,
        }


async def look(desk: Desk, tx: Tx) -> PolicyView:
    """What is configured and in force."""
    active = await policies.active(tx)
    lost = tuple(str(each) for each in await evaded_holds(desk, tx))
    digest = desk.spec.digest
    granted = await approvals.find(tx, "policy", "", digest)
    return PolicyView(
        digest=digest,
        in_force=active.digest if active else None,
        document=desk.document,
        newly_erases=tuple(newly_erases(active.document, desk.document)) if active else (),
        evaded=lost,
        approved=granted is not None or desk.rules.policy_approved == digest,
    )


async def evaded_holds(desk: Desk, tx: Tx) -> tuple[Evaded, ...]:
    """The holds that this configuration would get records from under, compared with the one in force."""
    active = await policies.active(tx)
    return evaded((await holds.current(tx)).holds, active.document if active else None, desk.document)
