"""The API of a real process: against its own description, with the control database gone, and beside slow clients."""

import asyncio
import contextlib
import ssl
import sys
from pathlib import Path

import aiohttp
import pytest

from tests.acceptance.test_core import DUE, company, env  # noqa: F401 - fixtures
from tests.services.api import TOKENS, Api, serving, tokens
from tests.services.certificates import certificate
from tests.services.daemon import running, until
from tests.services.postgres import cluster, start, stop
from tests.services.process import run_retentiond

# Whether what fits the schema makes sense (a target that there is, a key not used before) no schema can say.
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
CHECKS += "response_schema_conformance,negative_data_rejection,unsupported_method,ignored_auth,missing_required_header"


async def test_every_answer_fits_the_description_of_the_api(env, company, tmp_path):
    async with serving(env) as api:
        hold = await api.app_hold()
        address = str(api.http._base_url).rstrip("/")
        tool = Path(sys.executable).parent / "schemathesis"
        process = await asyncio.create_subprocess_exec(
            *(str(tool), "run", f"{address}/openapi.json", "--checks", CHECKS, "--max-examples", "8", "--no-color"),
            *("--header", f"Authorization: Bearer {TOKENS['ada']}", "--generation-deterministic"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=tmp_path,
        )
        said, _ = await process.communicate()
        assert process.returncode == 0, said.decode()
        assert (await api.get(f"holds/{hold}"))["id"] == hold
        assert '"level": "error"' not in api.daemon.process.output
        assert not [token for token in TOKENS.values() if token in api.daemon.process.output]


async def test_a_token_that_was_made_is_let_in_and_nothing_keeps_it(env, company):
    made = (await run_retentiond("token", "new", "carla", "--role", "counsel", "--json", env=env)).json
    assert (made["name"], made["role"]) == ("carla", "counsel")
    one = {
        "RETENTIOND_HTTP__TOKENS__CARLA__ROLE": made["role"],
        "RETENTIOND_HTTP__TOKENS__CARLA__SHA256": made["sha256"],
    }
    async with running(env | one) as daemon:
        await daemon.until_ready()
        api = Api(daemon.http, daemon)
        assert (await api.call("GET", "session", made["token"])).json["name"] == "carla"
        placed = await api.call("POST", "holds", made["token"], json={"matter": "1", "reason": "r", "everything": True})
        assert (placed.status, placed.json["state"], placed.json["placed_by"]) == (201, "active", "carla")
        shown = (await run_retentiond("hold", "show", placed.json["id"], "--json", env=env)).json
        assert shown.items() <= placed.json.items()
        assert made["token"] not in daemon.process.output


async def test_without_the_control_database_each_resource_is_503_with_a_problem(env, company):
    with cluster() as server:
        control = server.dsn("postgres")
        async with serving(env | {"RETENTIOND_CONTROL__DSN": control}) as api:
            stop(server)
            body = {"matter": "1", "reason": "r", "everything": True}
            for method, path, sent in (
                ("GET", "status", None),
                ("GET", "holds", None),
                ("GET", "ledger", None),
                ("POST", "holds", body),
                ("POST", "pause", {}),
            ):
                answer = await api.call(method, path, "ada", json=sent)
                assert (answer.status, answer.problem["kind"]) == (503, "unreachable"), path
                assert answer.headers["Retry-After"]
            assert (await api.http.get("/healthz")).status == 200
            start(server)

            async def well():
                return (await api.call("GET", "holds", "vera")).status == 200

            await until(well)
            assert (await api.get("holds"))["holds"] == []


async def test_a_thousand_connections_that_say_nothing_keep_nobody_from_anything(env, company):
    async with running(tokens() | env | {"RETENTIOND_HTTP__MAX_CONNECTIONS": "900"}) as daemon:
        await daemon.until_ready()
        api = Api(daemon.http, daemon)
        assert await api.get("status")
        host, port = daemon.http._base_url.host, daemon.http._base_url.port
        writers = []
        try:
            for number in range(1_000):
                reader, writer = await asyncio.open_connection(host, port)
                writers.append(writer)
                if number < 800:
                    writer.write(b"POST /api/v1/holds HTTP/1.1\r\nHost: x\r\nX-Slow: ")
            refused = await asyncio.wait_for(reader.read(), 30)
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"application/problem+json" in refused
            assert await api.get("status")
            await company.execute("UPDATE accounts SET deleted_at = now() - interval '90 days' WHERE id = 7")
            assert (await api.post("sweeps", "olga")).status == 202

            async def drained():
                return not await company.fetchval(DUE)

            await until(drained)
            assert await api.get("status")
        finally:
            for writer in writers:
                writer.close()
            for writer in writers:
                with contextlib.suppress(OSError):
                    await writer.wait_closed()


async def test_tls_is_served_by_certificate_files_that_fit(env, company, tmp_path):
    files = certificate(tmp_path, "127.0.0.1")
    tls = {
        "RETENTIOND_HTTP__TLS__CERTIFICATE": str(files.certificate),
        "RETENTIOND_HTTP__TLS__KEY": str(files.key),
        "RETENTIOND_HTTP__PORT": "0",
    }
    async with running(tokens() | env | tls, trust=ssl.create_default_context(cafile=files.certificate)) as daemon:
        await daemon.until_ready()
        api = Api(daemon.http, daemon)
        assert "Secure" in (await api.post_session(TOKENS["vera"])).headers["Set-Cookie"]
        plain = f"http://127.0.0.1:{daemon.http._base_url.port}/healthz"
        async with aiohttp.ClientSession() as http:
            with pytest.raises(aiohttp.ClientError):
                await http.get(plain)
    other = certificate(tmp_path / "other", "127.0.0.1")
    for name, path in (("CERTIFICATE", tmp_path / "none.pem"), ("KEY", other.key)):
        wrong = env | tls | {f"RETENTIOND_HTTP__TLS__{name}": str(path)}
        answer = await run_retentiond("run", env=wrong)
        assert (answer.code, "http.tls" in answer.stderr) == (2, True), answer.stderr
