"""Progress on standard error: a line that moves on a terminal, a line when a target begins and ends elsewhere.

With `--json` and no terminal there is none, since nobody looks, but why a sweep yields. Standard output never carries
any of it.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bars
from rich.progress import ProgressColumn, SpinnerColumn, Task, TextColumn, TimeElapsedColumn
from rich.text import Text

from retentiond.cli.lasting import lasting
from retentiond.cli.output import note
from retentiond.sweep.events import BatchDone, Counted, Event, Yielding

_AGAIN_SECONDS = 60.0


class _Count(ProgressColumn):
    """How many records, and how many a second."""

    def render(self, task: Task) -> Text:
        if not task.fields["what"]:
            return Text()
        count = task.fields["read"]()
        seconds = task.finished_time if task.finished else task.elapsed
        rate = f", {count / seconds:,.0f}/s" if seconds and count else ""
        left = task.fields["left"]() if not task.finished else None
        return Text(f"{count:,} {task.fields['what']}{rate}{f', {left} left' if left else ''}")


class Progress:
    """A context: `begin` names the target at work, `end` says what came of it; as an observer it counts batches."""

    def __init__(self, *, json: bool) -> None:
        console = Console(stderr=True, highlight=False)
        bars = Bars(SpinnerColumn(), TextColumn("{task.description}"), _Count(), TimeElapsedColumn(), console=console)
        self._bars = bars if console.is_terminal else None
        self._quiet = json
        self._changed: dict[str, int] = {}
        self._counted: dict[str, Counted] = {}
        self._yields: tuple[str, float] | None = None

    def __enter__(self) -> Self:
        if self._bars is not None:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def __call__(self, event: Event) -> None:
        """Count what a sweep tells."""
        if isinstance(event, BatchDone):
            name = event.target.name
            self._changed[name] = self._changed.get(name, 0) + event.changed
        elif isinstance(event, Yielding):
            self._yielding(event)
        elif isinstance(event, Counted):
            self._counted[event.target.name] = event
            if self._bars is None and not self._quiet and (left := self._left(event.target.name)):
                note(f"{event.target.name}: {event.due:,} are due, which takes {left}")

    def _yielding(self, event: Yielding) -> None:
        """Say why nothing moves, also where nobody asked: when it begins or changes, each minute, and when it ends."""
        name = event.target.name
        if event.reason is None:
            self._yields = None
            self._say(f"{name}: goes on after {event.seconds:.0f} s")
            return
        if self._yields is None or self._yields[0] != event.reason or event.seconds - self._yields[1] >= _AGAIN_SECONDS:
            self._yields = (event.reason, event.seconds)
            self._say(f"{name}: yields: {event.told}")

    def _say(self, text: str) -> None:
        note(text) if self._bars is None else self._bars.console.print(escape(text))

    def begin(self, name: str, doing: str, what: str, read: Callable[[], int] | None = None) -> None:
        """`doing` (sweeping, counting) target `name`; `read` gives the number of records that are `what` so far.

        Without `read` it is the number that the batches told; without `what` none is shown.
        """
        if self._bars is None:
            if not self._quiet:
                note(f"{doing} {name}")
            return
        self._bars.add_task(
            f"{doing} {escape(name)}",
            total=None,
            what=what,
            read=read or self._changed_of(name),
            left=lambda: self._left(name),
        )

    def end(self, name: str, told: str) -> None:
        """The target is done, and what came of it."""
        if self._bars is None:
            if not self._quiet:
                note(f"{name}: {told}")
            return
        for task in self._bars.tasks:
            if not task.finished:
                self._bars.update(task.id, description=f"{escape(name)}: {escape(told)}", total=1, completed=1)

    def _left(self, name: str) -> str | None:
        """How long the rest of what was counted takes, where the pace of the target is bounded."""
        counted = self._counted.get(name)
        return lasting(counted.due - self._changed.get(name, 0), counted.target.pace) if counted is not None else None

    def _changed_of(self, name: str) -> Callable[[], int]:
        return lambda: self._changed.get(name, 0)
