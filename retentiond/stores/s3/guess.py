"""From keys that were seen to the template that they seem to be made by."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final

from retentiond.stores.dates import DateForm

# Forms over several parts of a key come first: a year alone is likelier to begin a date than to be one.
_FORMS: Final = tuple(
    (form.count("/") + 1, form, DateForm.parse(form, 0))
    for form in (
        "year=%Y/month=%m/day=%d", "%Y/%m/%d", "%Y/%m", "dt=%Y-%m-%d", "date=%Y-%m-%d", "%Y-%m-%d", "%Y%m%d", "%Y-%m",
    )
)  # fmt: skip
_FEW: Final = 20
_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
_ID: Final = re.compile(r"[0-9]+|[0-9a-fA-F]{16,}|[A-Za-z]{1,16}[-_:]?(?=[A-Za-z]*[0-9])[0-9A-Za-z]+", re.ASCII)


def guess(keys: Sequence[str], tiers: Collection[str]) -> str:
    """The template of keys, of which there is at least one; what it can't tell is a part without a meaning.

    The first part that looks like ids in every key is taken for the account. One key in twenty may lie higher up than
    the others: it then fits no template that tells anything of those.
    """
    parts_of = [key.split("/") for key in keys]
    depth = sorted(len(row) for row in parts_of)[len(parts_of) // _FEW] - 1
    rows = [row for row in parts_of if len(row) > depth]
    columns = [[row[at] for row in rows] for at in range(depth)]
    out: list[str] = []
    used: set[str] = set()
    at = 0
    while at < depth:
        dated = None if "date" in used else _dated(columns, at)
        if dated is not None:
            parts, form = dated
            out.append(f"{{date:{form}}}")
            used.add("date")
            at += parts
            continue
        out.append(_part(columns[at], at, tiers, used))
        at += 1
    return "/".join([*out, "{file:path}"])


def _part(column: Sequence[str], at: int, tiers: Collection[str], used: set[str]) -> str:
    distinct = set(column)
    if "tier" not in used and distinct <= set(tiers):
        used.add("tier")
        return "{tier}"
    if "account" not in used and all(_UUID.fullmatch(each) or _ID.fullmatch(each) for each in distinct):
        used.add("account")
        return "{account}"
    if len(distinct) == 1:
        return column[0].replace("{", "{{").replace("}", "}}")
    return f"{{part{at + 1}}}"


def _dated(columns: Sequence[Sequence[str]], at: int) -> tuple[int, str] | None:
    """How many parts from there on are a date in every key, and its form."""
    for parts, form, reading in _FORMS:
        if at + parts > len(columns):
            continue
        texts = {"/".join(row) for row in zip(*columns[at : at + parts], strict=True)}
        ends = [reading.end(text) for text in texts]
        if all(end is not None and 1990 <= end.year <= 2100 for end in ends):
            return parts, form
    return None
