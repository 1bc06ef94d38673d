"""Configurations that can't be used, through the real process: every fault at once, exit 2, and nothing is made."""

import json

import asyncpg
import pytest

from tests.services.process import run_retentiond

# Key by key: what is wrong there, and what of the remedy must be said.
FAULTS = {
    "policy.classes.operational_logs.ttl.free": ("P90X", "P90D"),
    "policy.classes.build_logs.ttl.pro": ("-P1D", "P90D"),
    "policy.classes.audit_log.ttl": ("P0D", "P90D"),
    "policy.classes.invoices.minimum": ("perhaps", "true"),
    "policy.classes.prompts.after": ("someday", "account_deleted"),
    "policy.classes.account_data.action": ("shred", "delete"),
    "policy.classes.generated_artifacts.ttl.gold": ("P1D", "free"),
    "policy.downgrade_grace": ("P1W1D", "P90D"),
    "policy.no_account": ("trial", "free"),
    "guards.max_fraction": (7, "at most"),
    "guards.max_fractoin": (0.5, "max_fraction"),
    "targets.logs.clas": ("x", "class"),
    "targets.logs.timezone": ("Mars/Olympus", "UTC"),
    "targets.logs.unit": ("fortnight", "ms"),
}
SINGLE = {
    "no YAML": ("policy: [", "RETENTIOND_CONFIG"),
    "a list": ("[1, 2]", "mapping"),
    "an empty policy": ("policy: {base: none, tiers: [free]}", "policy.classes"),
    "an empty policy of nothing": ("policy: {base: none}", "policy.tiers"),
    "an unknown kind of store": ("targets: {logs: {store: mongodb, class: build_logs}}", "targets.logs.store"),
    "an unknown class": ("targets: {logs: {store: postgres, class: logz, dsn: 'postgresql://h/d', table: t, anchor: a}}", "targets.logs.class"),
    "a class without a term": (
        ("policy: {classes: {visits: {minimum: false}}}\n"
        "targets: {logs: {store: postgres, class: visits, dsn: 'postgresql://h/d', table: t, anchor: a}}"),
        "policy.classes.visits.ttl",
    ),
    "two targets over the same records": (
        ("targets:\n  one: &t {store: postgres, class: build_logs, dsn: 'postgresql://h/d', table: t, anchor: a}\n"
        "  two: {store: postgres, class: invoices, dsn: 'postgresql://x:y@h:5432/d', table: public.t, anchor: b}"),
        "targets.two",
    ),
    "a term under a day": ("policy: {classes: {build_logs: {ttl: PT1H}}}", "policy.classes.build_logs.ttl"),
    "bounds the wrong way round": (
        "policy: {classes: {build_logs: {override: {enterprise: {min: P9Y, max: P1Y}}}}}",
        "policy.classes.build_logs.override.enterprise",
    ),
}  # fmt: skip


def nest(keys, value):
    for key in reversed(keys.split(".")):
        value = {key: value}
    return value


def merge(into, other):
    for key, value in other.items():
        into[key] = merge(into.get(key, {}), value) if isinstance(value, dict) else value
    return into


async def nothing_was_made(rig):
    connection = await asyncpg.connect(rig.control)
    assert not await connection.fetchval("SELECT true FROM pg_namespace WHERE nspname = 'retentiond'")
    await connection.close()
    assert list(rig.state.iterdir()) == []


@pytest.mark.parametrize("command", ["sweep", "run", "plan", "check"])
async def test_all_faults_of_a_policy_are_told_at_once_and_nothing_is_made(rig, command):
    await rig.company()
    document = json.loads(rig.environment()["RETENTIOND_CONFIG"])
    for key, (value, _) in FAULTS.items():
        merge(document, nest(key, value))
    result = await run_retentiond(command, env={"RETENTIOND_CONFIG": json.dumps(document)})
    assert result.code == 2
    assert result.stdout == ""
    blocks = {line.split()[1].rstrip(":"): line for line in result.stderr.replace("\n  remedy", " remedy").splitlines()}
    for key, (_, remedy) in FAULTS.items():
        assert key in blocks, result.stderr
        assert remedy in blocks[key].split("remedy:")[1]
        assert "RETENTIOND_CONFIG" in blocks[key]
    await nothing_was_made(rig)
    assert len(await rig.ids()) == 8


@pytest.mark.parametrize("fault", sorted(SINGLE))
async def test_a_document_that_is_no_policy_is_refused_by_its_key(rig, fault):
    document, key = SINGLE[fault]
    env = {
        "RETENTIOND_MODE": "enforce",
        "RETENTIOND_CONTROL__DSN": rig.control,
        "RETENTIOND_STATE_DIR": str(rig.state),
        "RETENTIOND_CONFIG": document,
    }
    result = await run_retentiond("sweep", env=env)
    assert result.code == 2, result.stderr
    assert key in result.stderr
    assert "remedy:" in result.stderr
    assert "Traceback" not in result.stderr
    await nothing_was_made(rig)


async def test_the_exit_code_tells_a_failed_sweep_from_one_that_could_not_reach_its_target(rig):
    await rig.company()
    rig.target("odd", table="public.nowhere")
    result = await run_retentiond("sweep", "--json", env=rig.environment())
    assert (result.code, result.json["targets"]["odd"]["outcome"]) == (1, "blind")
    assert result.json["targets"]["logs"]["erased"] == 5
    rig.target("odd", dsn="postgresql://nobody@127.0.0.1:1/none")
    await rig.approve_policy()
    result = await run_retentiond("sweep", "--json", env=rig.environment())
    assert (result.code, result.json["targets"]["odd"]["outcome"]) == (4, "failed")
    assert "Traceback" not in result.stderr
    await rig.require_told(logs=5, odd=0)


async def test_a_refused_delete_ends_the_command_with_its_outcome_and_no_traceback(rig):
    await rig.company()
    await rig.db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;"
        "CREATE TRIGGER refuse BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    result = await run_retentiond("sweep", "--json", env=rig.environment())
    assert result.code == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert result.json["targets"]["logs"]["outcome"] == "failed"
    assert len(await rig.ids()) == 8
