"""What happens in a campaign and when: all of it drawn from the seed, before anything has started.

An action carries a random number of its own; what it stands for (which worker, which of the holds that live then) is
settled when it is carried out. So the same seed gives the same actions at the same times with the same choices; how the
processes interleave with them can't be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

RATES = {
    # The application's life
    "insert": 0.60,
    "refresh": 0.15,
    "application_delete": 0.06,
    "move": 0.05,
    "lock_rows": 0.08,
    "new_accounts": 0.05,
    "change_tier": 0.12,
    "delete_account": 0.04,
    "undelete_account": 0.02,
    "alter_table": 0.015,
    # The operators'
    "place_hold": 0.10,
    "release_hold": 0.06,
    "reinstate_hold": 0.03,
    "pause": 0.008,
    "sweep": 0.015,
    # What goes wrong
    "kill": 0.06,
    "stop": 0.05,
    "terminate": 0.02,
    "cut": 0.08,
    "partition": 0.02,
    "freeze": 0.02,
    "unplug": 0.01,
    "lose_commit": 0.15,
    "late_commit": 0.12,
    "drop_commit": 0.05,
    "hold_in_a_batch": 0.04,
    "crash_target": 0.015,
    "crash_control": 0.012,
}
"""Kind of action → how many a second, on average; each comes at least once."""

ROLES = ((), (), (), ("--worker-only",), ("--scheduler-only",))
"""Arguments of `retentiond run`: most processes do both."""

CLOCKS = ("", "", "", "-40s", "+40s", "-10m", "+10m", "+400d")
"""How far a worker's clock is off; more than a minute is beyond what the guard lets pass."""


@dataclass(frozen=True, slots=True)
class Action:
    """Something to do at so many seconds from the start; `seed` is for what it has to choose then."""

    at: float
    kind: str
    seed: int

    def random(self) -> Random:
        """Its own random numbers."""
        return Random(self.seed)


@dataclass(frozen=True, slots=True)
class Schedule:
    """A campaign. `grace`: whether a change of tier has a downgrade grace."""

    seed: int
    seconds: float
    workers: int
    grace: bool
    actions: tuple[Action, ...]

    def counts(self) -> dict[str, int]:
        """How many actions of each kind."""
        return {kind: sum(action.kind == kind for action in self.actions) for kind in RATES}


def draw(seed: int, seconds: float) -> Schedule:
    """The campaign of that seed."""
    random = Random(seed)
    actions = [
        Action(random.uniform(0, seconds), kind, random.getrandbits(64))
        for kind, rate in RATES.items()
        for _ in range(max(1, round(rate * seconds)))
    ]
    actions.sort(key=lambda action: action.at)
    return Schedule(seed, seconds, random.randint(2, 4), random.random() < 0.5, tuple(actions))
