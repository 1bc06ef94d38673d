"""`discover`: a draft that can be used as it is printed, of a database and of a bucket."""

import json

import asyncpg
import pytest
import yaml

from retentiond.cli.discover import class_for
from retentiond.settings import default_policy, load
from tests.services.process import run_retentiond

SCHEMA = """
CREATE TABLE accounts (id uuid PRIMARY KEY, plan text, deleted_at timestamptz, retention jsonb, created_at timestamptz);
CREATE TABLE request_logs (id bigserial PRIMARY KEY, account_id uuid, ip inet, created_at timestamptz NOT NULL);
CREATE INDEX ON request_logs (created_at);
CREATE TABLE "Odd Things" (id int PRIMARY KEY, owner uuid REFERENCES accounts, noted timestamp, updated_at timestamptz);
CREATE TABLE lookups (id int PRIMARY KEY, name text);
CREATE TABLE keyless (at timestamptz);
CREATE TABLE audit_log (id int, at timestamptz, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE audit_log_2026 PARTITION OF audit_log FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
"""
CLASSES = yaml.safe_load(default_policy())["policy"]["classes"]


async def discovered(*args, env=None, code=0):
    done = await run_retentiond("discover", *args, env=env or {})
    assert done.code == code, done.stderr
    return done


@pytest.fixture
async def filled(database):
    connection = await asyncpg.connect(database)
    await connection.execute(SCHEMA)
    await connection.close()
    return database


async def test_the_draft_of_a_database_is_a_configuration(filled):
    done = await discovered("--dsn", filled)
    names = ("ACCOUNTS", "TARGETS__ACCOUNTS", "TARGETS__REQUEST_LOGS", "TARGETS__AUDIT_LOG")
    settings = load({"RETENTIOND_CONFIG": done.stdout} | {f"RETENTIOND_{name}__DSN": filled for name in names})
    assert settings.mode == "plan"
    assert set(settings.targets) == {"accounts", "request_logs", "audit_log"}
    logs = settings.targets["request_logs"]
    assert (logs.class_name, logs.anchor, logs.account) == ("operational_logs", "created_at", "account_id")
    assert settings.targets["accounts"].account == "id"
    assert settings.accounts.deleted_at == "deleted_at"
    assert (settings.accounts.tier, settings.accounts.overrides) == ("plan", "retention")
    assert "#   class: CHOOSE" in done.stdout
    assert "lookups (no column that dates its rows)" in done.stdout
    assert "keyless (no primary key)" in done.stdout
    assert "audit_log_2026" not in done.stdout


async def test_what_is_odd_is_quoted_and_refers_to_the_directory_by_its_foreign_key(filled):
    found = json.loads((await discovered("--dsn", filled, "--json")).stdout)
    assert found["targets"]["odd_things"] == {
        "store": "postgres", "table": 'public."Odd Things"', "anchor": "noted", "account": "owner",
    }  # fmt: skip
    assert any("no index begins with noted" in note for note in found["notes"]["odd_things"])


async def test_no_password_is_printed(filled):
    dsn = filled.replace("postgresql://", "postgresql://postgres:hunter2@", 1) if "@" not in filled else filled
    for more in ((), ("--json",)):
        done = await run_retentiond("discover", "--dsn", dsn, *more, env={})
        assert "hunter2" not in done.stdout + done.stderr
        assert "postgresql://" not in done.stdout


async def test_the_draft_of_a_bucket_is_a_configuration(moto_server):
    async with moto_server.bucket(versioned=True) as made:
        await made.put(
            *(f"artifacts/{n}/job-{n}/x.tar" for n in range(5)), "logs/2026/05/17/a.gz", "logs/2026/05/18/b.gz"
        )
        env = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "hunter2"}
        args = (
            "--bucket",
            made.name,
            "--endpoint-url",
            moto_server.url,
            "--region",
            "us-east-1",
            "--addressing",
            "path",
        )
        done = await discovered(*args, env=env)
        assert await made.keys()
    settings = load({"RETENTIOND_CONFIG": done.stdout})
    targets = settings.targets
    assert (targets["artifacts"].prefix, targets["artifacts"].key) == ("artifacts/", "{account}/{part2}/{file:path}")
    assert (targets["logs"].class_name, targets["logs"].key) == ("operational_logs", "{date:%Y/%m/%d}/{file:path}")
    assert targets["artifacts"].addressing == "path"
    assert "versioning is enabled" in done.stdout
    assert "hunter2" not in done.stdout


async def test_a_bucket_of_ids_is_one_target(moto_server):
    async with moto_server.bucket() as made:
        await made.put(*(f"{n}/job/x" for n in range(5)))
        env = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
        args = ("--bucket", made.name, "--endpoint-url", moto_server.url, "--addressing", "path", "--json")
        [target] = json.loads((await discovered(*args, env=env)).stdout)["targets"].values()
    assert target["key"] == "{account}/job/{file:path}"
    assert "prefix" not in target


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        ((), 2, "give either --dsn or --bucket"),
        (("--dsn", "postgresql://h/d", "--bucket", "b"), 2, "give either --dsn or --bucket"),
        (("--dsn", "mysql://h:hunter2@x/d"), 2, "not the address of a Postgres database"),
        (("--dsn", "postgresql://127.0.0.1:1/d"), 4, "database"),
        (("--bucket", "s3://b"), 2, "--bucket: not the name of a bucket"),
        (("--bucket", "b", "--endpoint-url", "nowhere"), 2, "--endpoint-url: not the address"),
        (("--bucket", "b", "--endpoint-url", "http://127.0.0.1:1"), 4, "S3"),
    ],
)
async def test_bad_input_is_one_error_with_a_remedy(args, code, said):
    done = await run_retentiond("discover", *args, env={"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"})
    assert done.code == code
    assert said in done.stderr
    assert "remedy:" in done.stderr
    assert "hunter2" not in done.stderr
    assert done.stdout == ""


async def test_an_empty_bucket_and_one_that_there_is_not_are_told(moto_server):
    env = {"AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"}
    at = ("--endpoint-url", moto_server.url, "--addressing", "path")
    async with moto_server.bucket() as made:
        done = await discovered("--bucket", made.name, *at, env=env, code=2)
        assert "is empty" in done.stderr
    done = await discovered("--bucket", "no-such-bucket", *at, env=env, code=1)
    assert "there is no such bucket" in done.stderr


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("request_logs", "operational_logs"),
        ("audit_log", "audit_log"),
        ("audit-logs", "audit_log"),
        ("build_artifacts", "generated_artifacts"),
        ("Invoices", "invoices"),
        ("usage_metrics", "usage_metrics"),
        ("things", None),
    ],
)
def test_a_name_tells_the_class_by_what_it_ends_with(name, found):
    assert class_for(name, CLASSES) == found
