"""What all who look at targets share: which are meant, their plans, and why one could not be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retentiond.desk.base import Desk
from retentiond.domain.plan import TargetPlan
from retentiond.errors import Blind, NotFound, RetentiondError, quoted
from retentiond.stores.base import Store
from retentiond.sweep.spec import Target


@dataclass(frozen=True, slots=True)
class Broken:
    """Why a target could not be looked at."""

    error: RetentiondError

    @classmethod
    def by(cls, name: str, error: Exception) -> Broken:
        """By an error of any kind: what nobody foresaw in one target must not hide the others."""
        if isinstance(error, RetentiondError):
            return cls(error)
        remedy = "run `retentiond check`; if it finds nothing, this is a defect"
        told = " ".join(quoted(error).split())
        return cls(Blind(f"target {name}: unexpected {told}", remedy=remedy))

    def document(self) -> dict[str, object]:
        """The error as JSON."""
        return {"kind": self.error.kind, "message": self.error.message, "remedy": self.error.remedy}


def chosen(desk: Desk, names: Sequence[str]) -> list[Target]:
    """The named targets, or all; raises NotFound naming those that exist."""
    known = {target.name: target for target in desk.spec.targets}
    for name in names:
        if name not in known:
            raise NotFound(f"there is no target {name!r}", remedy=f"the targets are: {', '.join(known) or 'none'}")
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())


async def open_plan(desk: Desk, target: Target) -> tuple[Store, TargetPlan]:
    """The target's store, open, and its plan at the earlier of the host's and the target's clock.

    Raises Blind or Unreachable.
    """
    return desk.engine.stores[target.name], await desk.engine.plan(target)
