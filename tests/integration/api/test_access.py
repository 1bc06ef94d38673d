"""Who may do what through the API, and what a wrong token comes to."""

import asyncio
import json

import aiohttp
import pytest

from retentiond.api.access import Failures
from retentiond.api.app import RESOURCES
from tests.integration.api.conftest import served
from tests.services.api import ROLES, TOKENS, tokens

CHANGES = [each for each in RESOURCES if each.changes]
READS = [each for each in RESOURCES if not each.changes]
MAY = {"operator": {"olga", "ada"}, "counsel": {"carl", "cora", "ada"}, "viewer": set(ROLES)}
BODIES = {
    "/holds": {"matter": "1", "reason": "r", "everything": True},
    "/holds/{id}/release": {"reason": "r"},
    "/holds/{id}/reinstate": {"reason": "r"},
    "/approvals": {"target": "request_logs"},
}


def path_of(resource):
    return resource.path.lstrip("/").replace("{id}", "none")


def params_of(resource):
    return {"target": "request_logs", "record": "1"} if resource.path == "/explain" else {}


async def entries(api):
    async with api.app.database.transaction(read_only=True) as tx:
        return await tx.fetchval("SELECT size FROM retentiond.ledger_head")


async def test_no_change_is_made_with_a_wrong_a_missing_or_a_revoked_token_or_by_a_role_that_may_not(api):
    before = await entries(api)
    for resource in CHANGES:
        path, body = path_of(resource), BODIES.get(resource.path, {})
        for by in (None, "rtd_wrong", "", "rtd_of_ada\u00e9"):
            answer = await api.call("POST", path, by, json=body)
            assert answer.status == 401, (resource.path, by, answer)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
            assert answer.problem["detail"]
        for by in ROLES.keys() - MAY[resource.needs]:
            answer = await api.call("POST", path, by, json=body)
            assert (answer.status, resource.needs in answer.problem["detail"]) == (403, True), (resource.path, by)
        for by in MAY[resource.needs]:
            assert (await api.call("POST", path, by, json=[])).status == 422, (resource.path, by)
    assert await entries(api) == before


async def test_a_token_that_is_configured_no_more_is_wrong(env):
    async with served(tokens({"vera": "viewer"}) | env) as api:
        assert (await api.call("POST", "pause", "olga", json={})).status == 401
        assert (await api.call("GET", "status", "vera")).status == 200


async def test_every_role_reads(api):
    for resource in READS:
        for by in ROLES:
            answer = await api.call("GET", path_of(resource), by, **params_of(resource))
            assert answer.status in (200, 404), (resource.path, answer)
        assert (await api.call("GET", path_of(resource), None, **params_of(resource))).status == 401


async def test_health_metrics_and_the_description_take_no_token(api):
    for path in ("/healthz", "/readyz", "/metrics", "/openapi.json"):
        assert (await api.http.get(path)).status in (200, 503)


async def test_ten_thousand_wrong_tokens_are_refused_and_lock_out_nobody_who_was_right(api, capsys):
    assert (await api.call("GET", "status", "vera")).status == 200
    seen = []

    async def guess(first):
        for number in range(first, 10_000, 8):
            answer = await api.call("GET", "status", f"rtd_guess_{number}")
            seen.append(answer.status)

    await asyncio.gather(*map(guess, range(8)))
    assert len(seen) == 10_000
    assert set(seen) == {401, 429}
    assert seen.count(401) < 200
    assert (await api.call("GET", "status", "vera")).status == 200
    refused = await api.call("GET", "status", "carl")
    assert refused.status in (200, 429)
    if refused.status == 429:
        assert 0 < int(refused.headers["Retry-After"]) < 10
        assert refused.problem["remedy"]
    assert (await api.http.get("/healthz")).status == 200
    said = capsys.readouterr().err
    assert said.count("too many wrong tokens") <= 20
    assert "rtd_" not in said


def test_an_address_that_failed_too_often_is_let_try_again_once_a_second():
    now = [0.0]
    failures = Failures(clock=lambda: now[0])
    while not failures.refused("a"):
        failures.failed("a")
    assert not failures.refused("b")
    now[0] += failures.refused("a")
    assert not failures.refused("a")
    failures.failed("a")
    assert failures.refused("a")


def test_addresses_are_forgotten_before_they_fill_the_memory():
    failures = Failures()
    for number in range(10_000):
        failures.failed(str(number))
        failures.right(str(number), "x")
    assert len(failures._spent) < 5_000 > len(failures._right)


async def test_without_a_token_configured_this_host_reads_and_nobody_changes_anything(env):
    async with served(env) as api:
        assert (await api.call("GET", "status", None)).status == 200
        assert (await api.call("GET", "status", "whatever")).status == 200
        for resource in CHANGES:
            answer = await api.call("POST", path_of(resource), None, json=BODIES.get(resource.path, {}))
            assert answer.status == 403
            assert "retentiond token new" in answer.problem["remedy"]
        through_a_proxy = {"X-Forwarded-For": "203.0.113.7"}
        assert (await api.call("GET", "status", None, headers=through_a_proxy)).status == 403
        rebound = {"Host": "attacker.example"}
        assert (await api.call("GET", "status", None, headers=rebound)).status == 403
        assert (await api.call("GET", "status", None, headers={"Host": "localhost:8087"})).status == 200


async def test_what_a_proxy_says_is_believed_of_configured_ones_alone(env):
    told = {"X-Forwarded-For": "203.0.113.7, 198.51.100.9", "X-Forwarded-Proto": "https"}
    for trusted, secure in ((["127.0.0.0/8"], True), (["10.0.0.0/8"], False)):
        proxies = {"RETENTIOND_HTTP__TRUSTED_PROXIES": json.dumps(trusted)}
        async with served(tokens() | env | proxies) as api:
            answer = await api.post_session(TOKENS["vera"], headers=told)
            assert ("Secure" in answer.headers["Set-Cookie"]) is secure
            for _ in range(40):
                await api.call("GET", "status", "wrong", headers=told)
            elsewhere = told | {"X-Forwarded-For": "203.0.113.7, 198.51.100.10"}
            assert (await api.call("GET", "status", "wrong", headers=elsewhere)).status == (401 if secure else 429)


async def test_a_session_reads_changes_with_what_its_page_knows_and_ends(env):
    async with served(tokens() | env, cookie_jar=aiohttp.CookieJar(unsafe=True)) as api:
        assert (await api.call("GET", "status", None)).status == 401
        opened = await api.post_session(TOKENS["olga"])
        assert (opened.status, opened.json["name"], opened.json["role"]) == (201, "olga", "operator")
        cookie = opened.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        assert TOKENS["olga"] not in cookie
        assert (await api.call("GET", "status", None)).status == 200
        csrf = (await api.get("session", None))["csrf"]
        assert csrf == opened.json["csrf"]
        for headers in ({}, {"X-CSRF-Token": "x"}, {"X-CSRF-Token": csrf, "Sec-Fetch-Site": "cross-site"}):
            assert (await api.call("POST", "pause", None, json={}, headers=headers)).status == 403
        mine = {"X-CSRF-Token": csrf}
        assert (await api.call("POST", "pause", None, json={}, headers=mine)).json == {"paused": True, "changed": True}
        assert (await api.call("POST", "holds", None, json={}, headers=mine)).status == 403
        assert [entry["by"] for entry in await api.ledger("mode")] == ["olga"]
        (secret,) = [each.value for each in api.http.cookie_jar]
        assert (await api.call("DELETE", "session", None)).status == 403
        assert (await api.call("DELETE", "session", None, headers=mine)).status == 204
        stolen = {"Cookie": f"retentiond_session={secret}"}
        assert (await api.call("GET", "status", None, headers=stolen)).status == 401


async def test_a_session_ends_with_its_token(env):
    async with served(tokens() | env) as api:
        cookie = (await api.post_session(TOKENS["olga"])).headers["Set-Cookie"].partition(";")[0]
        assert (await api.call("GET", "status", None, headers={"Cookie": cookie})).status == 200
    async with served(tokens({"vera": "viewer"}) | env) as api:
        assert (await api.call("GET", "status", None, headers={"Cookie": cookie})).status == 401


async def test_no_session_is_opened_with_a_wrong_token_or_where_none_is_configured(env):
    async with served(tokens() | env) as api:
        assert (await api.post_session("wrong")).status == 401
    async with served(env) as api:
        assert (await api.post_session("wrong")).status == 403


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "bearer  ", "Token x"])
async def test_an_authorization_that_is_no_bearer_token_is_refused(api, header):
    answer = await api.call("GET", "status", None, headers={"Authorization": header})
    assert answer.status == 401
