"""`token new`: a token for the API. It is printed once; the configuration has only its SHA-256."""

from __future__ import annotations

import hashlib
import secrets
from typing import get_args

import click
import orjson

from retentiond.cli.output import EXIT_CODES, Group, as_json, command, json_option, note
from retentiond.errors import UsageError
from retentiond.settings.models import Role, is_principal

_BYTES = 32


@click.group(name="token", cls=Group, epilog=EXIT_CODES)
def token() -> None:
    r"""Tokens for the API.

    \b
    Examples:
      retentiond token new alice --role counsel
    """


@token.command(epilog=EXIT_CODES)
@click.argument("name")
@click.option("--role", required=True, type=click.Choice(get_args(Role)), help="What it may do.")
@json_option
@command
async def new(name: str, role: str, json_: bool) -> int:
    r"""Make a token for NAME. It is printed once and kept nowhere; configure the hash, and restart the daemon.

    viewer reads; operator also sweeps, pauses and approves; counsel places and releases holds; privacy is for erasures
    and exports; admin may do all. Every change is in the ledger under NAME. It needs no configuration and changes none.

    \b
    Examples:
      retentiond token new alice --role counsel
      retentiond token new ci --role operator --json | jq -r .token

    \b
    JSON: {"name", "role", "token", "sha256"}
    """
    if not is_principal(name):
        raise UsageError(
            f"{name!r} can't be the name of a token",
            remedy="use letters, digits and . _ @ + -, at most 64 of them, and no name of the daemon's own",
        )
    made = f"rtd_{secrets.token_urlsafe(_BYTES)}"
    digest = hashlib.sha256(made.encode()).hexdigest()
    if json_:
        as_json({"name": name, "role": role, "token": made, "sha256": digest})
        return 0
    click.echo(f"token   {made}")
    click.echo(f"sha256  {digest}")
    configured = orjson.dumps({name: {"role": role, "sha256": digest}}).decode()
    note("The token is not shown again. Configure its hash beside those that there are, and restart the daemon:")
    note(f"  RETENTIOND_HTTP__TOKENS='{configured}'")
    return 0


COMMANDS = [token]
