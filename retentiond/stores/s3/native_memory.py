"""What legal holds in a bucket need remembered: which are ours, how a place stands, and who is at it.

The control database has it (`control.legal_holds`), which stores know nothing of: this is what they ask of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from retentiond.domain.holds import Hold

Version = tuple[bytes, str]
"""The bytes of a key, and a version id."""


class Standing(Protocol):
    """How a place stands; see `control.legal_holds`."""

    @property
    def holds(self) -> Mapping[str, str]:
        """The holds that are written, with the digest of each."""

    @property
    def looked(self) -> float | None:
        """How many seconds ago all was last brought in step."""

    @property
    def verified(self) -> float | None:
        """How many seconds ago each that is ours was last asked about."""

    @property
    def any_left(self) -> bool:
        """Whether a legal hold there is ours."""

    @property
    def free(self) -> bool:
        """Whether nobody else is at it."""


class Memory(Protocol):
    """What the control database remembers of the place; see `control.legal_holds`."""

    async def standing(self) -> Standing:
        """How it stands."""

    async def take(self, seconds: float) -> Sequence[Hold] | None:
        """Have the lease for so long, and all holds as they are then; None: somebody else has it."""

    async def ours(self, keys: Collection[bytes]) -> Mapping[Version, bool]:
        """The versions of these keys that are ours, and whether the legal hold is known to be written."""

    async def all_ours(self, most: int, *, written: bool = False) -> Sequence[Version]:
        """The first of all that are ours; with `written` of those that are known to be written."""

    async def intend(self, versions: Collection[Version]) -> None:
        """These are ours from now on, and whether they are written is not known."""

    async def wrote(self, versions: Collection[Version]) -> None:
        """These are written."""

    async def forget(self, versions: Collection[Version]) -> None:
        """These are not ours any more."""

    async def done(self, holds: Mapping[str, str], *, verified: bool) -> None:
        """All is in step with these; the lease ends."""

    async def leave(self) -> None:
        """The lease ends, and nothing is done."""
