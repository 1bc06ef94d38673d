"""`discover`: looks at a database or a bucket and prints a draft configuration."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping

import click
import yaml
from pydantic import SecretStr, TypeAdapter, ValidationError

from retentiond.cli.output import EXIT_CODES, as_json, command, json_option
from retentiond.errors import UsageError
from retentiond.settings import default_policy
from retentiond.stores.drafts import Draft, Drafts
from retentiond.stores.postgres.config import Dsn

_CHOOSE = "CHOOSE"
_WORDS: Mapping[str, str] = {
    "log": "operational_logs", "request": "operational_logs", "access": "operational_logs", "build": "build_logs",
    "artifact": "generated_artifacts", "artefact": "generated_artifacts", "bundle": "generated_artifacts",
    "account": "account_data", "user": "account_data", "profile": "account_data", "session": "account_data",
    "prompt": "prompts", "message": "prompts", "conversation": "prompts", "usage": "usage_metrics",
    "metric": "usage_metrics", "event": "usage_metrics", "audit": "audit_log", "invoice": "invoices", "tax": "invoices",
    "payment": "invoices", "receipt": "invoices",
}  # fmt: skip


@click.command(epilog=EXIT_CODES)
@click.option("--dsn", help="A Postgres database: postgresql://user@host/database.")
@click.option("--bucket", help="A bucket of S3, or of anything that speaks its API.")
@click.option("--prefix", default="", help="Only keys that begin with it.")
@click.option("--endpoint-url", help="Where the bucket is, if not at AWS.")
@click.option("--region", help="The region that requests are signed for.")
@click.option("--addressing", type=click.Choice(["auto", "path", "virtual"]), default="auto", show_default=True)
@json_option
@command
async def discover(
    dsn: str | None,
    bucket: str | None,
    prefix: str,
    endpoint_url: str | None,
    region: str | None,
    addressing: str,
    json_: bool,
) -> int:
    r"""Draft a configuration from what a database or a bucket looks like; writes nothing there.

    Of a database the catalogue is read, and no row; of a bucket its first keys and its settings, and no object. What
    can only be guessed is said in comments: look each target over before `retentiond check`. A password may come from
    PGPASSWORD or ~/.pgpass, credentials for a bucket from the ordinary AWS chain. None is printed: give each dsn as a
    variable or a file.

    \b
    Examples:
      retentiond discover --dsn postgresql://app@db/app > retentiond.yaml
      retentiond discover --bucket artifacts --endpoint-url http://127.0.0.1:9000 --addressing path

    \b
    JSON: {"accounts": {…} or null, "targets": {NAME: {…}}, "notes": {NAME or "": [text]}}
      A target without a class is one that somebody has to choose for.
    """
    if (dsn is None) == (bucket is None):
        raise UsageError("give either --dsn or --bucket", remedy="retentiond discover --help")
    if bucket is None:
        found = await _database(dsn or "")
    else:
        found = await _bucket(bucket, prefix, endpoint_url, region, addressing)
    named = _named(found)
    if json_:
        as_json(_document(found, named))
    else:
        click.echo("\n".join(_lines(found, named)))
    return 0


async def _database(dsn: str) -> Drafts:
    from retentiond.stores.postgres.discover import discover as look

    try:
        TypeAdapter(Dsn).validate_python(SecretStr(dsn))
    except ValidationError:
        remedy = "write postgresql://user@host:port/database"
        raise UsageError("--dsn is not the address of a Postgres database", remedy=remedy) from None
    return await look(dsn)


async def _bucket(name: str, prefix: str, endpoint_url: str | None, region: str | None, addressing: str) -> Drafts:
    from retentiond.stores.s3.config import S3Target
    from retentiond.stores.s3.discover import discover as look
    from retentiond.stores.s3.endpoint import Access, Endpoint

    given = {"store": "s3", "class": "x", "bucket": name, "prefix": prefix, "endpoint_url": endpoint_url}
    try:
        config = S3Target.model_validate(given | {"region": region, "addressing": addressing})
    except ValidationError as error:
        first = error.errors()[0]
        fault = first.get("ctx", {}).get("error")
        remedy = getattr(fault, "remedy", None) or "retentiond discover --help"
        raise UsageError(
            f"--{str(first['loc'][0]).replace('_', '-')}: {fault or first['msg']}", remedy=remedy
        ) from None
    access = Access(endpoint_url=config.endpoint_url, region=region, addressing=config.addressing)
    endpoint = await Endpoint.open(access)
    try:
        return await look(await endpoint.locate(name), access, prefix=prefix, tiers=_policy()["tiers"])
    finally:
        await endpoint.close()


def _policy() -> Mapping[str, Collection[str]]:
    policy: Mapping[str, Collection[str]] = yaml.safe_load(default_policy())["policy"]
    return policy


def class_for(name: str, classes: Collection[str]) -> str | None:
    """The class that a table's or a prefix's name speaks of; None: somebody has to say."""
    words = [each.removesuffix("s") for each in re.split(r"[^a-z]+", name.lower()) if each]
    for each in classes:
        if all(word.removesuffix("s") in words for word in each.split("_")):
            return each
    # The last word says what it is, those before it of what: build_artifacts are artifacts.
    return next((_WORDS[word] for word in reversed(words) if _WORDS.get(word) in classes), None)


def _named(found: Drafts) -> dict[str, Draft]:
    """The drafts by names that targets can have, each once."""
    named: dict[str, Draft] = {}
    for draft in found.targets:
        bare = re.sub(r"[^a-z0-9]+", "_", draft.name.lower()).strip("_")[:50] or "target"
        bare = bare if bare[0].isalpha() else f"t_{bare}"
        name, number = bare, 2
        while name in named:
            name, number = f"{bare}_{number}", number + 1
        named[name] = draft
    return named


def _document(found: Drafts, named: Mapping[str, Draft]) -> dict[str, object]:
    classes = _policy()["classes"]
    targets = {}
    for name, draft in named.items():
        chosen = class_for(draft.name, classes)
        targets[name] = dict(draft.settings) | ({"class": chosen} if chosen else {})
    notes = {"": list(found.notes)} | {name: list(draft.notes) for name, draft in named.items()}
    if found.accounts is not None:
        notes["accounts"] = list(found.accounts.notes)
    return {
        "accounts": dict(found.accounts.settings) if found.accounts is not None else None,
        "targets": targets,
        "notes": notes,
    }


def _lines(found: Drafts, named: Mapping[str, Draft]) -> Iterator[str]:
    classes = _policy()["classes"]
    yield "# A draft: look over what is a guess, then run `retentiond check`. In mode plan nothing is erased."
    yield "mode: plan"
    yield from (f"# {_plain(note)}" for note in found.notes)
    if found.accounts is not None:
        yield "accounts:  # and RETENTIOND_ACCOUNTS__DSN"
        yield from _section(found.accounts.settings, "  ")
        yield from (f"  # {_plain(note)}" for note in found.accounts.notes)
    yield "targets:"
    listed = ", ".join(classes)
    for name, draft in named.items():
        chosen = class_for(draft.name, classes)
        lead = "  " if chosen else "  # "
        wants = f"  # and RETENTIOND_TARGETS__{name.upper()}__DSN" if draft.settings["store"] == "postgres" else ""
        yield f"{lead}{name}:{wants}"
        yield f"{lead}  class: {chosen or f'{_CHOOSE}  # one of {listed}'}"
        yield from _section(draft.settings, f"{lead}  ")
        yield from (f"{lead}  # {_plain(note)}" for note in draft.notes)
    if all(class_for(draft.name, classes) is None for draft in named.values()):
        yield "  {}"


def _section(settings: Mapping[str, object], lead: str) -> Iterator[str]:
    for line in yaml.safe_dump(dict(settings), sort_keys=False, allow_unicode=True, width=1000).splitlines():
        yield f"{lead}{line}"


def _plain(text: str) -> str:
    """One line, whatever somebody has called a table or a rule."""
    return " ".join(text.split())


COMMANDS = [discover]
