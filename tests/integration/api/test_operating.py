"""Sweeps, the pause, approvals and what is read, through the API: the same as by the commands, under a token's name."""

import asyncio
import gzip
import io

import aiohttp
import pytest

from retentiond.api.app import RESOURCES
from tests.acceptance.test_core import DUE
from tests.integration.api.conftest import served
from tests.services.api import tokens
from tests.services.daemon import until
from tests.services.process import run_retentiond


def shape(document, depth=3):
    """The names in a document, some levels deep."""
    if isinstance(document, dict) and depth:
        return {name: shape(each, depth - 1) for name, each in sorted(document.items())}
    return type(document).__name__ if not isinstance(document, (int, float)) else "number"


async def test_answers_have_the_fields_of_the_commands_json(env):
    async with served(tokens() | env) as api:
        hold = await api.app_hold()
        pairs = {
            "plan": ["plan"],
            "promises": ["promises"],
            f"holds/{hold}": ["hold", "show", hold],
            "policy": ["policy", "diff"],
            "ledger": ["ledger", "show"],
            "explain": ["explain", "request_logs", "17"],
        }
        for path, command in pairs.items():
            params = {"target": "request_logs", "record": "17"} if path == "explain" else {}
            answered = await api.get(path, **params)
            printed = (await run_retentiond(*command, "--json", env=env)).json
            told = shape(answered)
            assert shape(printed).items() <= told.items(), path


async def test_a_requested_sweep_is_carried_out_by_whoever_has_room(env, company):
    async with served(tokens() | env | {"RETENTIOND_SWEEP__MIN_INTERVAL": "3600"}, with_daemon=True) as api:

        async def drained():
            found = await api.get("sweeps")
            return all(each["last"] and not each["running"] for each in found["targets"].values())

        await until(drained)
        assert await company.fetchval(DUE) == 0
        first = (await api.get("sweeps"))["targets"]["request_logs"]
        assert first["last"]["outcome"] == "drained"
        await company.execute("UPDATE accounts SET deleted_at = now() - interval '90 days' WHERE id = 7")
        answer = await api.post("sweeps", "olga", targets=["request_logs"])
        assert (answer.status, answer.json) == (202, {"targets": ["request_logs"]})

        async def gone():
            return not await company.fetchval("SELECT count(*) FROM request_logs WHERE account_id = 7")

        await until(gone)
        (entry,) = [entry for entry in await api.ledger("mode") if entry["event"] == "sweep"]
        assert (entry["by"], entry["targets"]) == ("olga", ["request_logs"])
        assert (await api.post("sweeps", "olga", targets=["none"])).status == 404
        assert (await api.post("sweeps", "olga", target="invoices")).json == {"targets": ["invoices"]}
        assert (await api.post("sweeps", "olga")).json == {"targets": ["invoices", "request_logs"]}


async def test_pause_and_resume_are_said_once_and_stand_in_the_ledger(api):
    both = await asyncio.gather(*(api.post("pause", "olga", reason=name) for name in ("a", "b")))
    assert sorted(answer.json["changed"] for answer in both) == [False, True]
    status = await api.get("status")
    assert (status["paused"], status["paused_by"]) == (True, "olga")
    assert (await api.post("resume", "ada")).json == {"paused": False, "changed": True}
    assert [(e["event"], e["by"]) for e in await api.ledger("mode")] == [("pause", "olga"), ("resume", "ada")]


async def test_a_repeated_request_is_answered_as_it_was_and_changes_nothing(api):
    first = await api.post("pause", "olga", "k", reason="x")
    await api.post("resume", "olga")
    again = await api.post("pause", "olga", "k", reason="x")
    assert first.json == again.json == {"paused": True, "changed": True}
    assert not (await api.get("status"))["paused"]
    for key in ("k" * 300, "\u00e9", " "):
        assert (await api.post("pause", "olga", key, reason="x")).status == 422


async def test_what_a_guard_stopped_is_approved_for_what_was_seen(env, company):
    env = {key: value for key, value in env.items() if not key.endswith("MAX_FRACTION")}
    async with served(tokens() | env, with_daemon=True) as api:

        async def asked():
            return (await api.get("approvals"))["waiting"]

        await until(asked)
        (waiting,) = await asked()
        assert (waiting["kind"], waiting["target"]) == ("sweep", "request_logs")
        assert (await api.get("status"))["waiting"] == 1
        fewer = await api.post("approvals", "olga", target="request_logs", bound=waiting["count"] - 1)
        assert (fewer.status, fewer.problem["kind"]) == (409, "otherwise")
        for body in (
            {},
            {"target": "invoices"},
            {"kind": "clock"},
            {"kind": "clock", "target": "request_logs"},
            {"kind": "policy"},
            {"target": "request_logs", "digest": "ab" * 32},
            {"kind": "policy", "digest": "ab" * 32},
        ):
            assert (await api.post("approvals", "olga", **body)).status in (409, 422), body
        both = await asyncio.gather(
            *(api.post("approvals", "olga", "a1", target="request_logs", bound=waiting["count"]) for _ in range(2))
        )
        assert {answer.status for answer in both} == {201}
        assert both[0].json == both[1].json
        assert both[0].json["bound"] == waiting["count"]
        granted = [entry for entry in await api.ledger("approval") if entry["event"] == "granted"]
        assert [entry["by"] for entry in granted] == ["olga"]

        async def gone():
            return not await company.fetchval(DUE)

        await until(gone)


async def test_the_ledger_comes_in_pages_and_its_checkpoint_as_it_is_signed(lively):
    await lively.post("pause", "olga", reason="x")
    every = await lively.ledger()
    assert [entry["seq"] for entry in every] == list(range(1, len(every) + 1))
    page = await lively.get("ledger", after=1, limit=1)
    assert (page["entries"], page["next"]) == (every[1:2], 2)

    async def signed():
        return (await lively.call("GET", "ledger/checkpoint", "vera")).status == 200

    await until(signed)
    plain = await lively.call("GET", "ledger/checkpoint", "vera")
    assert plain.headers["Content-Type"].startswith("text/plain")
    document = (await lively.call("GET", "ledger/checkpoint", "vera", headers={"Accept": "application/json"})).json
    assert document["checkpoint"].startswith(document["key"].split("+")[0])
    assert plain.body.decode().splitlines()[0] == document["checkpoint"].splitlines()[0]


async def test_a_page_that_polls_is_told_that_nothing_changed(api):
    for path in ("status", "holds", "sweeps", "targets", "policy"):
        first = await api.call("GET", path, "vera")
        tag = {"If-None-Match": f'"x", W/{first.headers["ETag"]}'}
        again = await api.call("GET", path, "vera", headers=tag)
        assert (again.status, again.body, again.headers["ETag"]) == (304, b"", first.headers["ETag"]), path
    await api.post("pause", "olga", reason="x")
    stale = {"If-None-Match": (await api.call("GET", "policy", "vera")).headers["ETag"]}
    assert (await api.call("GET", "status", "vera", headers=stale)).status == 200


@pytest.mark.parametrize(
    ("path", "params", "status"),
    [
        ("plan", {"horizon": "soon"}, 422),
        ("plan", {"horizon": "P9999Y"}, 422),
        ("plan", {"horizon": "forever"}, 422),
        ("plan", {"horizon": "PX"}, 422),
        ("plan", {"target": "none"}, 404),
        ("plan", {"targets": "request_logs"}, 422),
        ("promises", {"target": "none"}, 404),
        ("explain", {"target": "request_logs"}, 422),
        ("explain", {"target": "request_logs", "record": "x' OR 1=1 --"}, 404),
        ("explain", {"target": "request_logs", "record": "\x00"}, 422),
        ("explain", {"target": "none", "record": "1"}, 404),
        ("ledger", {"after": "x"}, 422),
        ("ledger", {"after": "-1"}, 422),
        ("ledger", {"after": "99999999999999999999"}, 422),
        ("ledger", {"limit": "0"}, 422),
        ("ledger", {"kind": "none"}, 422),
        ("ledger", {"after": ["1", "2"]}, 422),
        ("status", {"x": "1"}, 422),
        ("nothing", {}, 404),
    ],
)
async def test_parameters_that_are_none_are_refused_by_name(api, path, params, status):
    answer = await api.call("GET", path, "vera", **params)
    assert answer.status == status, answer.body
    assert answer.problem["instance"] == f"/api/v1/{path}"


@pytest.mark.parametrize(
    ("data", "content_type", "status"),
    [
        (b"[" * 100_000, "application/json", 400),
        (b'{"reason":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001, "application/json", 400),
        (b'{"reason": "a", "reason": "b"}', "application/json", 400),
        (b'{"reason": NaN}', "application/json", 422),
        (b"\xff\xfe", "application/json", 400),
        (b'{"reason": "\\ud800"}', "application/json", 400),
        (b'{"reason": "a"} {}', "application/json", 400),
        (b"reason=a", "application/x-www-form-urlencoded", 415),
        (b'{"reason": "a"}', "text/plain", 415),
        (b'{"reason": 1}', "application/json", 422),
        (b'{"reason": "a", "more": 1}', "application/json", 422),
        (b'"reason"', "application/json", 422),
        (b"null", "application/json", 422),
        (b" " * ((1 << 20) + 1), "application/json", 413),
    ],
)
async def test_a_body_that_is_no_request_changes_nothing(api, data, content_type, status):
    answer = await api.call("POST", "pause", "olga", data=io.BytesIO(data), headers={"Content-Type": content_type})
    assert answer.status == status, answer.body
    assert answer.problem
    assert not (await api.get("status"))["paused"]


async def test_a_body_of_a_hundred_megabytes_is_refused_by_its_first_bytes(api):
    sent = []

    async def endless():
        for _ in range(1_600):
            sent.append(1)
            yield b" " * 65_536

    headers = {"Content-Type": "application/json"}
    try:
        answer = await api.call("POST", "pause", "olga", data=endless(), headers=headers)
        assert answer.status == 413
    except OSError:
        pass  # the connection was closed on what was still being sent
    assert len(sent) < 800
    squeezed = gzip.compress(b" " * (64 << 20))
    answer = await api.call("POST", "pause", "olga", data=squeezed, headers=headers | {"Content-Encoding": "gzip"})
    assert answer.status in (400, 413)
    assert not (await api.get("status"))["paused"]


async def test_paths_and_methods_that_there_are_not_are_problem_documents(api):
    for method, path in (
        ("POST", "status"),
        ("GET", "pause"),
        ("PUT", "holds"),
        ("DELETE", "holds/x"),
        ("GET", "x/../y"),
    ):
        answer = await api.call(method, path, "ada")
        assert answer.status in (404, 405)
        assert answer.problem


async def test_each_resource_is_described_with_the_models_it_goes_through(api):
    document = await (await api.http.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    described = {(method.upper(), path) for path, each in document["paths"].items() for method in each}
    assert {(each.method, f"/api/v1{each.path}") for each in RESOURCES} <= described
    assert not [path for path in document["paths"] if "erasure" in path or "export" in path]


async def test_of_two_operators_who_approve_at_once_one_does(env, company):
    env = {key: value for key, value in env.items() if not key.endswith("MAX_FRACTION")}
    async with served(tokens() | env, with_daemon=True) as api:

        async def asked():
            return (await api.get("approvals"))["waiting"]

        await until(asked)
        both = await asyncio.gather(*(api.post("approvals", by, target="request_logs") for by in ("olga", "ada")))
        assert sorted(answer.status for answer in both) == [201, 409]
        granted = [entry for entry in await api.ledger("approval") if entry["event"] == "granted"]
        assert len(granted) == 1


async def test_metrics_come_packed_to_who_takes_that(api):
    async with aiohttp.ClientSession(api.http._base_url, auto_decompress=False) as http:
        answers = [
            await http.get("/metrics", headers={"Accept-Encoding": each})
            for each in ("identity", "br, gzip;q=0.5", "gzip;q=0")
        ]
        plain, packed, refused = answers
        bodies = [await each.read() for each in answers]
    assert [each.headers.get("Content-Encoding") for each in (plain, packed, refused)] == [None, "gzip", None]
    series = [line.split()[0] for line in gzip.decompress(bodies[1]).decode().splitlines()]
    assert series == [line.split()[0] for line in bodies[0].decode().splitlines()]
