"""What `check` says of the holds that a target's own database keeps: rights that are missing, and every drift."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from retentiond.domain.holds import Hold
from retentiond.stores.base import Finding
from retentiond.stores.postgres.native import NativeHolds, drift, forget, missing_rights, unreadable
from retentiond.stores.postgres.native_sql import Held
from retentiond.stores.postgres.native_state import State

_MENDS = "retentiond run   # mends it within a minute; where it can't, its log and /readyz say why"


async def findings(native: NativeHolds, known: Sequence[Hold]) -> list[Finding]:
    """All findings of one target, by all holds that the control database has."""
    shape = await native.opened()
    async with native.store.transaction() as connection:
        state = await native.read(connection, shape)
    if not native.store.config.native_holds:
        return _left_over(native, state)
    bearing = await native.held(shape, known)
    return [
        *_rights(native, state),
        *_drift(native, state),
        *_unreadable(native, state, bearing, {hold.id for hold in known if not hold.holds}),
        *_absent(native, state, bearing),
        *_surplus(native, state, {hold.id: hold for hold in known}),
    ]


def _rights(native: NativeHolds, state: State) -> list[Finding]:
    message = "the role of the dsn may not {}: with native_holds no hold that covers the target becomes active"
    return [Finding("error", native.store.name, message.format(what), sql) for what, sql in missing_rights(state)]


def _drift(native: NativeHolds, state: State) -> list[Finding]:
    message = "native holds are not in force as they were made: {}"
    return [Finding("error", native.store.name, message.format(each), _MENDS) for each in drift(state, native.names)]


def _unreadable(
    native: NativeHolds, state: State, bearing: Mapping[str, Held], ended: Collection[str]
) -> list[Finding]:
    """Rows that say nothing: those of known holds are written anew, others keep all as it is until somebody decides."""
    found = []
    for hold_id, (message, sql) in unreadable(native, state).items():
        if hold_id in bearing or hold_id in ended:
            text, mend = f"{message}; only our own sweeps mind the hold surely", f"{sql}   -- and: {_MENDS}"
        else:
            text = (
                f"{message}; the control database does not know the hold, so that native holds of the target stay as"
                " they are and no new one becomes active"
            )
            mend = f"place the hold anew where it is still due; then {sql}"
        found.append(Finding("error", native.store.name, text, mend))
    return found


def _absent(native: NativeHolds, state: State, bearing: Mapping[str, Held]) -> list[Finding]:
    found = []
    for hold_id, held in bearing.items():
        there = state.holds.get(hold_id)
        if there != held and hold_id not in state.unreadable:
            what = "is not in force in the database itself" if there is None else "covers other records there"
            text = f"hold {hold_id} of matter {held.matter!r} {what}: only our own sweeps mind it"
            found.append(Finding("error", native.store.name, text, _MENDS))
    return found


def _surplus(native: NativeHolds, state: State, known: Mapping[str, Hold]) -> list[Finding]:
    """What is in force there and nowhere else."""
    found = []
    for hold_id, held in state.holds.items():
        hold = known.get(hold_id)
        if hold is None:
            text = (
                f"hold {hold_id} of matter {held.matter!r} is in force in the database itself, and the control database"
                " does not know it: was it restored from an older backup?"
            )
            remedy = f"place the hold anew where it is still due; else {forget(native, hold_id)}"
            found.append(Finding("error", native.store.name, text, remedy))
        elif not hold.holds:
            text = f"hold {hold_id} of matter {held.matter!r} is released, and still in force in the database itself"
            found.append(Finding("warning", native.store.name, text, _MENDS))
    return found


def _left_over(native: NativeHolds, state: State) -> list[Finding]:
    if not state.marked:
        return []
    text = "native_holds is off, and holds are still in force in the database itself; nobody keeps them in step"
    remedy = f"DROP FUNCTION {native.names.function_sql} CASCADE; {forget(native)}   -- or set native_holds: true"
    return [Finding("warning", native.store.name, text, remedy)]
