"""`permit list|end`: batches without an outcome, and an operator's word that the worker of one is gone."""

from __future__ import annotations

import click

from retentiond.cli.holds import by_whom
from retentiond.cli.output import EXIT_CODES, Group, as_json, command, json_option, settings, table
from retentiond.control import due, permits
from retentiond.control.outstanding import OpenPermit
from retentiond.daemon import open_app
from retentiond.domain.duration import rfc3339
from retentiond.errors import UsageError
from retentiond.ledger import kinds

_SHOWN = ("number", "target", "shard", "worker", "fence", "issued_at", "declared_gone")


@click.group(name="permit", cls=Group, epilog=EXIT_CODES)
def permit() -> None:
    r"""Permits without an outcome: batches under way, or left by a worker that is gone.

    A hold is pending as long as a batch from before it may still take effect. Of most stores the server or the clock
    tells when it can't; where nobody does (files), the worker's own presence counts, and an operator's word.

    \b
    Examples:
      retentiond permit list
    """


def _document(found: OpenPermit) -> dict[str, object]:
    return {
        "number": found.number,
        "target": found.target,
        "shard": found.shard,
        "worker": found.owner,
        "fence": found.fenced_by,
        "issued_at": rfc3339(found.issued_at),
        "declared_gone": found.outstanding.declared_gone,
    }


@permit.command(name="list", epilog=EXIT_CODES)
@json_option
@command
async def list_(json_: bool) -> int:
    r"""The permits without an outcome.

    \b
    Examples:
      retentiond permit list

    \b
    JSON: {"permits": [{"number", "target", "shard", "worker", "fence", "issued_at", "declared_gone"}]}
    """
    async with open_app(settings(), create=False) as app, app.database.transaction(read_only=True) as tx:
        found = [_document(each) for each in await permits.open_permits(tx)]
    if json_:
        as_json({"permits": found})
    elif found:
        table("permits without an outcome", _SHOWN, [[str(each[name]) for name in _SHOWN] for each in found])
    else:
        click.echo("no permit is without an outcome")
    return 0


@permit.command(epilog=EXIT_CODES)
@click.argument("number", type=int)
@click.option("--worker-is-gone", is_flag=True, help="Say that its process has ended, or its machine is off for good.")
@click.option("--reason", required=True, help="How that is known.")
@json_option
@command
async def end(number: int, worker_is_gone: bool, reason: str, json_: bool) -> int:
    r"""Say that the worker of a permit is gone, where nothing else can tell: holds wait for it no more.

    See first that its process has ended: one that is only stopped would go on where it was, under a hold. The next
    sweep looks what its batch has done and writes that; your word and the reason are in the ledger.

    \b
    Examples:
      retentiond permit end 4294967297 --worker-is-gone --reason "host web-3 was terminated on 3 May"

    \b
    JSON: {"number", "target", "shard", "worker", "fence", "issued_at", "declared_gone"}
    """
    if not worker_is_gone:
        raise UsageError(
            f"permit {number} can only be ended where its worker is gone",
            remedy="see that its process has ended, then say so by --worker-is-gone",
        )
    if not reason.strip():
        raise UsageError("--reason is empty", remedy="say how it is known that the worker is gone")
    async with open_app(settings(), create=False) as app, app.database.transaction() as tx:
        found = await permits.declare_gone(tx, number, by=by_whom())
        await due.make_due(tx, [found.target])
        told = kinds.declared_gone(
            permit=number,
            target=found.target,
            shard=found.shard,
            batch=found.batch,
            worker=found.owner,
            by=by_whom(),
            reason=reason,
            key=app.texts_key,
        )
        await app.journal.append(tx, told)
    shown = {**_document(found), "declared_gone": True}
    as_json(shown) if json_ else click.echo(f"the worker of permit {number} counts as gone")
    return 0


COMMANDS = [permit]
