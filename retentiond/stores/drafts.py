"""What `discover` makes of what it sees: drafts of targets, for somebody to look over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Draft:
    """One target: `name` is what it is about, `settings` its keys but for the class, `notes` what to look at.

    No secret is among the settings, and no value of a record among the notes.
    """

    name: str
    settings: Mapping[str, object]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Drafts:
    """All targets that were found, the account directory where there seems to be one, and notes about the whole."""

    targets: tuple[Draft, ...]
    accounts: Draft | None = None
    notes: tuple[str, ...] = ()
