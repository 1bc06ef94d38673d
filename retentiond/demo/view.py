"""What the demo shows: a table that is drawn anew on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol, Self

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from retentiond.demo.standing import Promise

_COLUMNS = ("class", "tier", "term", "overdue", "held", "promise")


class View(Protocol):
    """Where promises are shown, again and again."""

    def __enter__(self) -> Self:
        """Begin to show."""

    def __exit__(self, *_: object) -> None:
        """Leave the last state as it is."""

    def show(self, promises: Sequence[Promise]) -> None:
        """Show how they stand now."""

    def say(self, text: str) -> None:
        """Something that happened, on a line of its own."""


def make_view(console: Console) -> View:
    """The view that fits the console."""
    return LiveView(console) if console.is_terminal and not console.is_dumb_terminal else LineView(console)


class LiveView:
    """One table that changes in place; what happened scrolls by above it."""

    def __init__(self, console: Console) -> None:
        self._began = time.monotonic()
        # Drawn when there is something new, not by a thread of its own.
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        """Begin to draw."""
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the last table where it is."""
        self._live.stop()

    def show(self, promises: Sequence[Promise]) -> None:
        """Draw the table."""
        self._live.update(_table(promises, time.monotonic() - self._began), refresh=True)

    def say(self, text: str) -> None:
        """A line above the table."""
        self._live.console.print(text, markup=False)


class LineView:
    """A line whenever something has changed, and the whole table, with tabs, at the beginning and the end."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._began = time.monotonic()
        self._shown: dict[tuple[str, str], Promise] = {}
        self._line = ""

    def __enter__(self) -> Self:
        """Nothing to prepare."""
        return self

    def __exit__(self, *_: object) -> None:
        """The table as it stands."""
        if self._shown:
            self._whole()

    def show(self, promises: Sequence[Promise]) -> None:
        """Print what is new since the last time."""
        first, before = not self._shown, self._shown
        self._shown = {(each.class_name, each.tier): each for each in promises}
        if first:
            self._whole()
        for key, each in self._shown.items():
            if each.kept and key in before and not before[key].kept:
                self.say(f"kept: {each.class_name}, {each.tier} ({each.term})")
        line = f"overdue: {_overdue_by_class(promises)}"
        if line != self._line:
            self._line = line
            self.say(f"{time.monotonic() - self._began:.0f} s, {line}")

    def say(self, text: str) -> None:
        """A line."""
        self._console.print(text, markup=False, soft_wrap=True)

    def _whole(self) -> None:
        self.say("\t".join(_COLUMNS))
        for each in self._shown.values():
            cells = (each.class_name, each.tier, each.term, _number(each.overdue), each.held, _word(each))
            self.say("\t".join(str(cell) for cell in cells))


def _table(promises: Sequence[Promise], seconds: float) -> Table:
    kept = sum(each.kept for each in promises)
    left = sum(each.overdue or 0 for each in promises)
    caption = f"{seconds:.0f} s: {kept} of {len(promises)} promises kept, {left:,} records overdue"
    table = Table(box=None, header_style="bold", caption=caption, caption_justify="left", padding=(0, 2, 0, 0))
    for column in _COLUMNS:
        table.add_column(column, justify="right" if column in ("overdue", "held") else "left", no_wrap=True)
    last = ""
    for each in promises:
        style = "green" if each.kept else "red"
        name = "" if each.class_name == last else each.class_name
        last = each.class_name
        number = "-" if each.overdue is None else f"{each.overdue:,}"
        table.add_row(name, each.tier, each.term, number, f"{each.held:,}", Text(_word(each), style=style))
    return table


def _overdue_by_class(promises: Sequence[Promise]) -> str:
    found: dict[str, int] = {}
    for each in promises:
        if each.overdue:
            found[each.class_name] = found.get(each.class_name, 0) + each.overdue
    return ", ".join(f"{name} {count}" for name, count in found.items()) or "nothing"


def _number(overdue: int | None) -> object:
    return "-" if overdue is None else overdue


def _word(promise: Promise) -> str:
    if promise.kept:
        return "kept"
    return "counting" if promise.overdue is None else "overdue"
