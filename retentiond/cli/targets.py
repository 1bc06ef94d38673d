"""What commands that look at targets share: which are meant, their plans, and what to say of one that can't be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import click

from retentiond.cli.output import note, told
from retentiond.daemon import App
from retentiond.domain.plan import TargetPlan
from retentiond.errors import Blind, NotFound, RetentiondError, Unreachable
from retentiond.stores.base import Store
from retentiond.sweep.spec import Target

targets_option = click.option(
    "--target", "targets", multiple=True, metavar="T", help="Only this target; repeatable. All of them by default."
)


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
        return cls(Blind(f"target {name}: unexpected {told(error)}", remedy=remedy))

    def document(self) -> dict[str, object]:
        """The error as JSON."""
        return {"kind": self.error.kind, "message": self.error.message, "remedy": self.error.remedy}


def chosen(app: App, names: Sequence[str]) -> list[Target]:
    """The named targets, or all; raises NotFound naming those that exist."""
    known = {target.name: target for target in app.spec.targets}
    for name in names:
        if name not in known:
            raise NotFound(f"there is no target {name!r}", remedy=f"the targets are: {', '.join(known) or 'none'}")
    return [known[name] for name in dict.fromkeys(names)] if names else list(known.values())


async def open_plan(app: App, target: Target) -> tuple[Store, TargetPlan]:
    """The target's store, open, and its plan at the earlier of the host's and the target's clock.

    Raises Blind or Unreachable.
    """
    return app.engine.stores[target.name], await app.engine.plan(target)


def show_broken(found: Mapping[str, Broken]) -> None:
    """Say on standard error which targets could not be looked at."""
    for name, broken in found.items():
        note(f"{name}: {broken.error.message}")
        if broken.error.remedy:
            note(f"  remedy: {broken.error.remedy}")


def exit_code(found: Iterable[Broken]) -> int:
    """4 when a target can't be reached, 1 when one can't be judged, 0 when all could be."""
    errors = [broken.error for broken in found]
    if any(isinstance(error, Unreachable) for error in errors):
        return Unreachable.exit_code
    return 1 if errors else 0
