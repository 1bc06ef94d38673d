"""`hold …`: legal holds. `place` returns once the hold is active."""

from __future__ import annotations

import getpass
import math
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from retentiond.cli.matched import matches, show_matched, summed, warn_of_matched
from retentiond.cli.output import EXIT_CODES, Group, as_json, command, day, json_option, note, settings, table
from retentiond.cli.placing import until_active
from retentiond.cli.words import scope_in_words
from retentiond.control import holds
from retentiond.control.hold_rows import HoldDraft
from retentiond.daemon import App, open_app
from retentiond.domain.duration import instant, rfc3339
from retentiond.domain.holds import Hold, Scope
from retentiond.errors import InvalidScope, StillPending, UsageError
from retentiond.stores.s3.native import S3NativeHolds

_SHOWN = (
    "id",
    "state",
    "effective_at",
    "matter",
    "reason",
    "placed_by",
    "placed_at",
    "review_by",
    "notice",
    "released_by",
    "released_at",
    "release_reason",
    "erasable_at",
)


def by_whom() -> str:
    """The name of the user at this terminal: a name, not a proof."""
    return f"{getpass.getuser()} (command line)"


@click.group(name="hold", cls=Group, epilog=EXIT_CODES)
def hold() -> None:
    r"""Legal holds: records under one are never erased, whatever else applies.

    A hold is pending until no batch from before it can still take effect, then active; released, it still holds for
    the release grace. Backups, WAL and replicas don't know these holds; nor do other programs' deletes, unless a
    target's own store refuses them (native_holds, --native).

    \b
    Examples:
      retentiond hold place --matter 2026-17 --reason subpoena --account 4711
      retentiond hold list
    """


def _require_text(**given: str) -> None:
    for name, text in given.items():
        if not text.strip():
            raise UsageError(f"--{name} is empty", remedy="say it in words: it is what is known of the hold later")


def _warn_of_review(review: datetime | None) -> None:
    if review is not None and review <= datetime.now(UTC):
        note(f"warning: --review-by {rfc3339(review)} is past: the hold is reported as overdue from now on")


def _mapping(name: str, items: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = defaultdict(list)
    for item in items:
        target, mark, value = item.partition("=")
        if not mark or not target or not value:
            raise UsageError(f"--{name} {item!r} is not TARGET=VALUE", remedy=f"write --{name} request_logs=4711")
        found[target].append(value)
    return {target: tuple(values) for target, values in found.items()}


@hold.command(epilog=EXIT_CODES)
@click.option("--matter", required=True, help="The case reference.")
@click.option("--reason", required=True, help="Why.")
@click.option("--account", "accounts", multiple=True, metavar="ID", help="Records of this account; repeatable.")
@click.option("--class", "classes", multiple=True, metavar="CLASS", help="Records of this class; repeatable.")
@click.option("--target", "targets", multiple=True, metavar="T", help="Records of this target; repeatable.")
@click.option("--prefix", "prefixes", multiple=True, metavar="T=PREFIX", help="Keys with this prefix; repeatable.")
@click.option("--record", "records", multiple=True, metavar="T=ID", help="This record; repeatable.")
@click.option("--since", metavar="INSTANT", help="Anchors from this instant on (inclusive): RFC 3339, or a date.")
@click.option("--until", metavar="INSTANT", help="Anchors before this instant (exclusive).")
@click.option("--everything", is_flag=True, help="Hold all records of all targets.")
@click.option("--review-by", metavar="INSTANT", help="Reported when past; a hold never ends by itself.")
@click.option("--no-notice", "notice", metavar="TEXT", help="The prohibition to notify the account's owner.")
@click.option("--native", is_flag=True, help="Let buckets with Object Lock keep it too, by legal holds of their own.")
@click.option("--timeout", type=float, default=120.0, show_default=True, help="Seconds to wait until it is active.")
@json_option
@command
async def place(
    matter: str,
    reason: str,
    accounts: tuple[str, ...],
    classes: tuple[str, ...],
    targets: tuple[str, ...],
    prefixes: tuple[str, ...],
    records: tuple[str, ...],
    since: str | None,
    until: str | None,
    everything: bool,
    review_by: str | None,
    notice: str | None,
    native: bool,
    timeout: float,
    json_: bool,
) -> int:
    r"""Place a hold, and return once it is active: from `effective_at` on, no matching record is erased.

    What is given of different options must hold together, what is given by one option holds for each value:
    --account 1 --account 2 --class invoices holds the invoices of both accounts. Where a target can't tell (it does
    not know its records' accounts, a record has no anchor), the record is held. Then it says how many records match,
    due or not, and warns at none. With nothing to narrow it, say --everything.

    With --native a legal hold of Object Lock is written on every version that it covers, before it is active, in the
    targets' buckets; those that come later get one within minutes. A target with native_holds does that for each hold.

    \b
    Examples:
      retentiond hold place --matter 2026-17 --reason subpoena --account 4711
      retentiond hold place --matter audit --reason "tax audit" --class invoices --since 2024-01-01
      retentiond hold place --matter 2026-18 --reason claim --record request_logs=4711 --review-by 2027-01-01

    \b
    JSON: {"id", "state", "effective_at", "matter", "reason", "scope", "placed_by", "placed_at", "review_by",
      "notice", …, "records_matched", "records_matched_estimate", "matches": {T: {"records", "estimate"}},
      "targets_not_counted": [T]}
    Exit code 4: it was not active within --timeout. It is placed all the same, and keeps its records; the JSON is then
    that of `hold show`, with "state": "pending".
    """
    scope = Scope.from_document(
        {
            "accounts": accounts,
            "classes": classes,
            "targets": targets,
            "since": since,
            "until": until,
            "prefixes": _mapping("prefix", prefixes),
            "records": _mapping("record", records),
            "everything": everything,
        }
    )
    _require_text(matter=matter, reason=reason)
    if not math.isfinite(timeout) or timeout < 0:
        raise UsageError(f"--timeout {timeout} is no time to wait", remedy="give seconds, 0 or more, such as 120")
    review = instant(review_by) if review_by is not None else None
    draft = HoldDraft(matter=matter, reason=reason, scope=scope, review_by=review, notice=notice, native=native)
    async with open_app(settings(), create=False) as app:
        _check_names(app, scope)
        # First of all: no target that is slow to answer keeps it from being placed, nor from being active.
        placed = await holds.place(app.database, draft, by_whom(), record=app.hold_recorder(by_whom()))
        _warn_of_review(review)
        try:
            active = await until_active(app, placed, timeout, by=by_whom())
        except StillPending:
            if json_:
                as_json(placed.document())
            raise
        matched = summed(await matches(app, active))
    if json_:
        as_json({**active.document(), **matched})
    else:
        _show(active)
        show_matched(matched)
    warn_of_matched(matched)
    for name, each in app.native.items():
        if native and isinstance(each, S3NativeHolds) and not each.can:
            note(f"warning: the bucket of target {name} has no Object Lock, so that only our own sweeps mind the hold")
    keep = sorted(
        name
        for name, each in app.native.items()
        if each.always or (native and isinstance(each, S3NativeHolds) and each.concerned([active]))
    )
    but = f" (but on {', '.join(keep)}, whose store refuses them)" if keep else ""
    note(f"Other programs' deletes{but}, backups, WAL and replicas don't know this hold.")
    return 0


def _check_names(app: App, scope: Scope) -> None:
    known = {target.name for target in app.spec.targets}
    if not known:
        raise UsageError(
            "no target is configured here: the hold would keep nothing that is known",
            remedy="place it with the daemon's configuration (RETENTIOND_CONFIG_FILE, RETENTIOND_CONFIG)",
        )
    if unknown := sorted({*scope.targets, *scope.listed} - known):
        raise InvalidScope(
            f"there is no target {', '.join(unknown)}", remedy=f"the targets are: {', '.join(sorted(known)) or 'none'}"
        )
    if unknown := sorted(set(scope.classes) - set(app.spec.policy.classes)):
        raise InvalidScope(
            f"there is no class {', '.join(unknown)}", remedy=f"the classes are: {', '.join(app.spec.policy.classes)}"
        )


def _show(found: Hold) -> None:
    document = found.document()
    for name in _SHOWN:
        if document[name]:
            click.echo(f"{name:<16}{document[name]}")
    click.echo(f"{'scope':<16}{scope_in_words(found.scope, brief=False)}")


def _table(found: Sequence[Hold]) -> None:
    if not found:
        note("there are no holds")
    columns = ["id", "state", "matter", "placed", "effective", "review by", "covers"]
    rows = [
        [
            each.id,
            each.state,
            each.matter,
            day(rfc3339(each.placed_at)),
            day(rfc3339(each.effective_at)) if each.effective_at else None,
            day(rfc3339(each.review_by)) if each.review_by else None,
            scope_in_words(each.scope, brief=True),
        ]
        for each in found
    ]
    table("holds", columns, rows)


@hold.command(name="list", epilog=EXIT_CODES)
@json_option
@command
async def list_(json_: bool) -> int:
    r"""All holds, also the released ones, as they were placed.

    \b
    Examples:
      retentiond hold list
      retentiond hold list --json | jq '.holds[] | select(.state != "released") | .id'

    \b
    JSON: {"holds": [as of `hold show`]}
    """
    async with open_app(settings(), create=False) as app, app.database.transaction(read_only=True) as tx:
        found = await holds.list_all(tx)
    if json_:
        as_json({"holds": [each.document() for each in found]})
    else:
        _table(found)
    return 0


@hold.command(epilog=EXIT_CODES)
@click.argument("hold_id")
@json_option
@command
async def show(hold_id: str, json_: bool) -> int:
    r"""One hold, with the whole of its scope.

    \b
    Examples:
      retentiond hold show ae9f9c4c-0ddf-482c-a107-39d03b909d01

    \b
    JSON: {"id", "state", "effective_at", "matter", "reason", "scope", "placed_by", "placed_at", "review_by", "notice",
      "released_by", "released_at", "release_reason", "erasable_at"}
      "state" is pending, active, releasing (still holds, until "erasable_at") or released.
    """
    async with open_app(settings(), create=False) as app, app.database.transaction(read_only=True) as tx:
        found = await holds.get(tx, hold_id)
    as_json(found.document()) if json_ else _show(found)
    return 0


@hold.command(epilog=EXIT_CODES)
@click.argument("hold_id")
@click.option("--reason", required=True, help="Why it is released.")
@json_option
@command
async def release(hold_id: str, reason: str, json_: bool) -> int:
    r"""Release a hold; its records become erasable when the release grace is over (holds.release_grace, 7 days).

    Until then it still holds, and can be reinstated whole.

    \b
    Examples:
      retentiond hold release ae9f9c4c-0ddf-482c-a107-39d03b909d01 --reason "case closed"

    \b
    JSON: as of `hold show`
    """
    _require_text(reason=reason)
    async with open_app(settings(), create=False) as app:
        if app.settings.holds.two_person:
            raise UsageError(
                "releasing a hold takes two people with tokens (holds.two_person)",
                remedy="a name on the command line proves nothing: release it through the API",
            )
        found = await holds.release(
            app.database,
            hold_id,
            by_whom(),
            reason,
            grace_seconds=app.spec.release_grace.total_seconds(),
            record=app.hold_recorder(by_whom()),
        )
    as_json(found.document()) if json_ else _show(found)
    return 0


@hold.command(epilog=EXIT_CODES)
@click.argument("hold_id")
@click.option("--reason", required=True, help="Why it holds on.")
@json_option
@command
async def reinstate(hold_id: str, reason: str, json_: bool) -> int:
    r"""Let a hold in its release grace hold on, whole; a released one is placed anew.

    \b
    Examples:
      retentiond hold reinstate ae9f9c4c-0ddf-482c-a107-39d03b909d01 --reason appeal

    \b
    JSON: as of `hold show`
    """
    _require_text(reason=reason)
    async with open_app(settings(), create=False) as app:
        found = await holds.reinstate(app.database, hold_id, by_whom(), reason, record=app.hold_recorder(by_whom()))
    as_json(found.document()) if json_ else _show(found)
    return 0


COMMANDS = [hold]
