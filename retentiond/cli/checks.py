"""`check`: configuration, clocks, connections, the account directory, and each target's table."""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import click
from rich.console import Console
from rich.markup import escape

from retentiond.cli import fresh, http_checks
from retentiond.cli.looking import open_check
from retentiond.cli.output import EXIT_CODES, as_json, command, json_option, note, settings
from retentiond.control import detached, holds, permits, requests
from retentiond.control.database import Database
from retentiond.daemon import App
from retentiond.desk.policy import EVADED_REMEDY, evaded_holds
from retentiond.desk.targets import Broken
from retentiond.domain.clock import ClockReading, skew
from retentiond.errors import RetentiondError, Unreachable
from retentiond.settings import Settings
from retentiond.stores.accounts import Rules
from retentiond.stores.base import Finding, Severity, Store
from retentiond.stores.cloudwatch.native import LogRetentionHolds
from retentiond.stores.postgres import native_check, pooler
from retentiond.stores.postgres.config import database_of
from retentiond.stores.postgres.store import PostgresStore
from retentiond.stores.s3 import native_check as legal_holds
from retentiond.stores.s3.native import S3NativeHolds
from retentiond.sweep import native_expiry, promql
from retentiond.sweep.parts import left_behind

_ORDER: dict[Severity, int] = {"error": 0, "warning": 1, "info": 2}
_NOTHING = "no target is configured: nothing is judged, and nothing is ever erased"
_DRAFT = "RETENTIOND_TARGETS__NAME__STORE=postgres   # and __CLASS, __DSN, __TABLE, __ANCHOR, __ACCOUNT"
_COLOURS = {"error": "bold red", "warning": "yellow", "info": "cyan"}


@dataclass(slots=True)
class _Found:
    """What has been found so far: findings, and each clock's distance from this host's in seconds."""

    findings: list[Finding] = field(default_factory=list)
    clocks: dict[str, float] = field(default_factory=dict)

    def broken(self, subject: str, error: Exception) -> None:
        """A subject could not be looked at. What is said twice of it is listed once."""
        ours = Broken.by(subject, error).error
        finding = Finding("error", subject, ours.message, ours.remedy or "")
        if finding not in self.findings:
            self.findings.append(finding)

    def explains(self, target: str, error: RetentiondError) -> bool:
        """Whether an error of the target has been found that this one only repeats."""
        errors = {each.message for each in self.findings if (each.subject, each.severity) == (target, "error")}
        return error.message in errors or (bool(errors) and isinstance(error, Unreachable))


@click.command(epilog=EXIT_CODES)
@json_option
@command
async def check(json_: bool) -> int:
    r"""Can every promise be kept as it is configured? Looks at everything and changes nothing.

    Clocks, connections and poolers, grants, row level security, indexes, foreign keys, triggers, inheritance, columns
    to be anonymised, partitions that can't be dropped whole or were left detached, signals of pace by health that
    can't be read, PromQL expressions (each is asked once), holds that the targets' own databases keep, and whatever
    somebody changed of those, rules by which a bucket erases by itself, against the holds and the terms, the
    account directory (its columns, ids, tiers and overrides), and how HTTP is served and to whom. Each finding has a
    severity and a remedy to paste: `error` stops a sweep, `warning` makes it slow or keep too much, `info` is to be
    known. The exit code is 1 where there is an error or a warning. Where there is no control state yet it looks at all
    that needs none, so that a configuration can be checked before anything erases.

    \b
    Examples:
      retentiond check
      retentiond check --json | jq -r '.findings[] | select(.severity == "error") | .remedy'

    \b
    JSON: {"findings": [{"severity", "subject", "message", "remedy"}], "clocks": {NAME: seconds ahead of this host}}
      The subject is a target, or `control`, `accounts`, `clocks`, `http` or `targets`.
    """
    found, configured = _Found(), settings()
    async with open_check(configured) as (app, has_state):
        if has_state:
            await _control(app, app.database, found)
        else:
            await _fresh(configured, app, found)
        await _holds(app, found)
        await _forgotten(app, found)
        if configured.control.dsn is not None:
            await _pooler(configured.control.dsn.get_secret_value(), "control", found)
        known = await _directory(app, found)
        await _natives(app, found)
        queries = {target.name: target.health.query for target in app.spec.targets if target.health.query is not None}
        found.findings += await promql.findings(queries)
        opened = [store for store in app.engine.stores.values() if await _target(app, store, found, directory=known)]
        await _native_expiry(app, found)
        found.findings += _order([store for store in opened if isinstance(store, PostgresStore)])
    found.findings += http_checks.findings(configured)
    if not configured.targets:
        found.findings.append(Finding("error", "targets", _NOTHING, _DRAFT))
    listed = sorted(found.findings, key=lambda each: (_ORDER[each.severity], each.subject))
    if json_:
        as_json({"findings": [_document(each) for each in listed], "clocks": found.clocks})
    else:
        _show(listed)
    return 1 if any(each.severity != "info" for each in listed) else 0


async def _fresh(configured: Settings, app: App, found: _Found) -> None:
    """What can be told where nothing of ours is in the control database."""
    async with fresh.configured_database(configured, app) as database:
        await _control(app, database, found)
        if configured.mode == "enforce":
            found.findings += await fresh.findings(configured, database)


async def _control(app: App, database: Database, found: _Found) -> None:
    """The clocks of all."""
    control = await database.clock()
    readings = {"control": ClockReading(control.now, datetime.now(UTC), control.same_machine)}
    for name, store in app.engine.stores.items():
        try:
            readings[name] = await store.clock()
        except Exception as error:
            found.broken(name, error)
    found.clocks = {name: round(reading.offset.total_seconds(), 3) for name, reading in readings.items()}
    limit = app.spec.limits.max_clock_skew
    if (apart := skew(readings)) > limit:
        told = ", ".join(f"{name} {ahead:+.3f} s" for name, ahead in found.clocks.items())
        message = f"clocks differ by {apart.total_seconds():.3f} s, more than guards.max_clock_skew: nothing is erased"
        found.findings.append(Finding("error", "clocks", f"{message} (against this host: {told})", "chronyc makestep"))


async def _holds(app: App, found: _Found) -> None:
    """Holds that this configuration would get records from under."""
    try:
        async with app.database.transaction(read_only=True) as tx:
            lost = await evaded_holds(app, tx)
    except Exception as error:
        found.broken("control", error)
        return
    found.findings += [
        Finding("error", "control", f"{each}; with it this configuration is not put in force", EVADED_REMEDY)
        for each in lost
    ]


async def _natives(app: App, found: _Found) -> None:
    """Whether each target's own store keeps what it is to keep, and nothing that it is not to."""
    try:
        async with app.database.transaction(read_only=True) as tx:
            known = await holds.list_all(tx)
    except Exception as error:
        found.broken("control", error)
        return
    for name, native in app.native.items():
        try:
            if isinstance(native, LogRetentionHolds):
                found.findings += await native.findings(known)
            elif isinstance(native, S3NativeHolds):
                found.findings += await legal_holds.findings(native, known)
            else:
                found.findings += await native_check.findings(native, known)
        except Exception as error:
            found.broken(name, error)


async def _native_expiry(app: App, found: _Found) -> None:
    """Whether a store erases by itself what a hold covers, or otherwise than was promised."""
    try:
        async with app.database.transaction(read_only=True) as tx:
            known = (await holds.current(tx)).holds
    except Exception as error:
        found.broken("control", error)
        return
    for each in await native_expiry.look(app.spec.targets, app.engine.stores, known, app.spec.rules):
        if each.error is None or not found.explains(each.target, each.error):
            found.findings += each.findings()


async def _forgotten(app: App, found: _Found) -> None:
    """What targets that are configured no more have left: detached partitions, batches that nobody can ask about."""
    try:
        async with app.database.transaction(read_only=True) as tx:
            lost = [each for each in await detached.noted(tx) if each.target not in app.engine.stores]
            under_way = requests.stranded(await requests.unfinished(tx), app.engine.stores.keys())
            unasked = {each.target for each in await permits.open_permits(tx)} - app.engine.stores.keys()
    except Exception as error:
        found.broken("control", error)
        return
    for each in lost:
        message = (
            f"{each.name} may have been detached by a sweep of target {each.target}, which is configured no more: "
            "queries of the whole table don't see its records then, and no sweep brings it back"
        )
        remedy = f"configure the target again; or ALTER TABLE … ATTACH PARTITION {each.name} {each.bounds};"
        found.findings.append(Finding("error", "control", message, remedy))
    for target in sorted(under_way):
        message = (
            f"target {target}, which is configured no more, has deletions under way in its store: nobody follows them, "
            "and a hold that may cover it stays pending, since nobody can cancel them"
        )
        remedy = "configure the target again until they are over (`request_age_seconds`)"
        found.findings.append(Finding("error", "control", message, remedy))
    for target in sorted(unasked):
        message = (
            f"a batch of target {target}, which is configured no more, has no outcome: what it erased is in no ledger, "
            "and a hold that is placed stays pending, since nobody can ask whether it may still take effect"
        )
        found.findings.append(
            Finding("error", "control", message, "configure the target again until it was swept once")
        )


async def _pooler(dsn: str, subject: str, found: _Found) -> None:
    try:
        finding = pooler.finding(subject, await pooler.look(dsn, subject))
    except Exception as error:
        found.broken(subject, error)
        return
    if finding is not None:
        found.findings.append(finding)


async def _directory(app: App, found: _Found) -> bool:
    """Whether there is none, or it could be looked at."""
    directory = app.engine.directory
    if directory is None:
        return True

    def hashed(account: str) -> str:
        return hmac.digest(app.engine.account_key, account.encode(), hashlib.sha256)[:16].hex()

    spec = app.spec
    classes = {target.data_class.name: target.data_class for target in spec.targets if target.knows_account}
    rules = Rules(spec.policy, spec.rules, tuple(classes.values()), datetime.now(UTC), hashed)
    try:
        found.findings += await directory.check(rules)
    except Exception as error:
        found.broken("accounts", error)
        return False
    return True


async def _target(app: App, store: Store, found: _Found, *, directory: bool) -> bool:
    """Whether its records could be looked at; without the directory where that is broken, which is said once."""
    try:
        await (app.engine.open(app.spec.target(store.name)) if directory else store.open(None))
        found.findings += await store.check()
        if (left := await left_behind(app.database, store)) is not None:
            found.broken(store.name, left)
    except Exception as error:
        found.broken(store.name, error)
        return False
    return True


def _order(stores: Sequence[PostgresStore]) -> list[Finding]:
    """Foreign keys between targets: whose records go first, and which have to go that no target erases."""
    tables = {(database_of(store.config.dsn), store.shape.table.sql): store.name for store in stores}
    found = []
    for store in stores:
        mine = store.shape.table
        for child in mine.children:
            name = tables.get((database_of(store.config.dsn), child.table))
            if child.table == mine.sql:
                text = f"rows refer to rows of the same table by {child.name}: each level of them takes a sweep"
                found.append(Finding("info", store.name, text, f"retentiond sweep --target {store.name}"))
            elif name is not None:
                text = f"target {name} refers to it by {child.name}: a record goes once all that refer to it are gone"
                remedy = f"retentiond sweep --target {name} --target {store.name}"
                found.append(Finding("info", store.name, text, remedy))
            else:
                text = f"{child.table} refers to it by {child.name} and is no target: what it refers to is never erased"
                remedy = f"RETENTIOND_TARGETS__NAME__TABLE={child.table.replace(chr(34), '')}   # and the other keys"
                found.append(Finding("warning", store.name, text, remedy))
    return found


def _document(finding: Finding) -> dict[str, str]:
    return {
        "severity": finding.severity,
        "subject": finding.subject,
        "message": finding.message,
        "remedy": finding.remedy,
    }


def _show(findings: Sequence[Finding]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for each in findings:
        colour = _COLOURS[each.severity]
        console.print(f"[{colour}]{each.severity}[/]: {escape(each.subject)}: {escape(each.message)}")
        if each.remedy:
            console.print(f"  remedy: {escape(each.remedy)}")
    counts = Counter(each.severity for each in findings)
    note(", ".join(f"{counts[each]} {each}" for each in _ORDER if counts[each]) or "no findings")


COMMANDS = [check]
