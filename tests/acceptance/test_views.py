"""`plan`, `promises`, `check` and `hold place` through the real command: shapes, numbers, exit codes, manners."""

import asyncio
import json
import os
import pty
import signal
import sys
from datetime import UTC, datetime, timedelta

import pytest

from tests.acceptance.test_core import DUE, company, env  # noqa: F401 - fixtures
from tests.services.dawdle import SLOW, in_a_batch
from tests.services.postgres import limited_role
from tests.services.process import run_retentiond, start_retentiond
from tests.services.prometheus import fake_prometheus

FIGURES = {"records", "bytes", "oldest", "newest", "overdue_seconds", "held", "minimum", "unresolved", "blocked"}


@pytest.fixture
async def ready(env):
    """The environment, with the control state made."""
    assert (await run_retentiond("sweep", env=env | {"RETENTIOND_MODE": "plan"})).code == 0
    return env


async def test_the_plan_says_what_is_due_by_target_class_and_tier(ready, company):
    plan = await run_retentiond("plan", "--json", env=ready)
    assert (plan.code, plan.json["horizon"]) == (0, None)
    logs = plan.json["targets"]["request_logs"]
    assert set(logs) > FIGURES
    assert (logs["class"], logs["action"], logs["error"], logs["by_horizon"]) == (
        "operational_logs",
        "delete",
        None,
        None,
    )
    assert logs["records"] == await company.fetchval(DUE)
    assert logs["total"] == {"records": 3000, "estimate": False}
    assert set(logs["by_tier"]) == {"free", "pro", "enterprise"}
    assert all(set(each) == FIGURES for each in logs["by_tier"].values())
    assert sum(each["records"] for each in logs["by_tier"].values()) == logs["records"]
    oldest = await company.fetchval("SELECT min(created_at) FROM request_logs")
    assert datetime.fromisoformat(logs["oldest"]) == oldest
    assert logs["bytes"] == logs["records"] * (8 + 8 + 8)
    assert plan.json["targets"]["invoices"]["minimum"] > 0


async def test_the_horizon_says_what_comes_due_and_that_it_is_an_estimate(ready, company):
    plan = await run_retentiond("plan", "--target", "request_logs", "--horizon", "P30D", "--json", env=ready)
    logs = plan.json["targets"]["request_logs"]
    then = await company.fetchval(DUE.replace("now()", "(now() + interval '30 days')"))
    assert logs["by_horizon"]["estimate"] is logs["coming"]["estimate"] is True
    assert logs["by_horizon"]["records"] == then
    assert logs["coming"]["records"] == then - logs["records"] > 0
    assert sum(each["records"] for each in logs["coming"]["by_tier"].values()) == logs["coming"]["records"]


@pytest.mark.parametrize(("horizon", "code"), [("30 days", 2), ("P9998Y", 2), ("forever", 2)])
async def test_a_horizon_that_is_none_is_refused(ready, horizon, code):
    refused = await run_retentiond("plan", "--horizon", horizon, env=ready)
    assert (refused.code, refused.stdout) == (code, "")
    assert "remedy" in refused.stderr


@pytest.mark.parametrize("command", ["plan", "promises"])
async def test_a_target_that_can_not_be_reached_leaves_the_others_and_ends_with_4(ready, command):
    away = ready | {"RETENTIOND_TARGETS__INVOICES__DSN": "postgresql://postgres@127.0.0.1:1/none"}
    found = await run_retentiond(command, "--json", env=away)
    assert found.code == 4, found.stderr
    if command == "plan":
        assert found.json["targets"]["invoices"]["error"]["kind"] == "unreachable"
        assert found.json["targets"]["request_logs"]["records"] > 0
    else:
        assert found.json["errors"]["invoices"]["kind"] == "unreachable"
        rows = {(row["class"], row["tier"]): row for row in found.json["promises"]}
        assert rows["invoices", "free"]["kept"] is None
        assert rows["operational_logs", "free"]["kept"] is False


@pytest.mark.parametrize("command", ["plan", "promises"])
async def test_a_target_that_can_not_be_judged_ends_with_1(ready, company, command):
    await company.execute("ALTER TABLE invoices RENAME issued TO dated")
    found = await run_retentiond(command, env=ready)
    assert found.code == 1
    assert "invoices: table public.invoices has no column 'issued'" in found.stderr
    assert "operational_logs" in found.stdout


async def test_promises_turn_from_behind_to_kept_and_tell_the_age_of_the_oldest(ready, company):
    before = await promises(ready)
    logs = before["operational_logs", "free"]
    assert (logs["kept"], logs["term"], logs["targets"]) == (False, "P90D", ["request_logs"])
    assert logs["oldest_age_days"] > 1400
    assert logs["overdue_seconds"] > 1000 * 86_400
    assert before["prompts", "free"]["targets"] == []
    assert before["prompts", "free"]["kept"] is None
    assert (await run_retentiond("sweep", env=ready)).code == 0
    after = await promises(ready)
    for tier, days in (("free", 90), ("pro", 365), ("enterprise", 365)):
        row = after["operational_logs", tier]
        assert (row["kept"], row["overdue"], row["overdue_seconds"], row["oldest_known"]) == (True, 0, 0.0, True)
        oldest = await company.fetchval(
            "SELECT min(created_at) FROM request_logs r JOIN accounts a ON a.id = r.account_id WHERE tier = $1", tier
        )
        assert datetime.fromisoformat(row["oldest"]) == oldest
        assert days - 5 < row["oldest_age_days"] <= days


async def test_what_is_held_is_counted_for_its_tier_and_the_promise_is_kept(ready, company):
    placed = await run_retentiond("hold", "place", "--matter", "m", "--reason", "r", "--account", "3", env=ready)
    assert placed.code == 0, placed.stderr
    assert (await run_retentiond("sweep", env=ready)).code == 0
    tier = await company.fetchval("SELECT tier FROM accounts WHERE id = 3")
    for (class_name, each), row in (await promises(ready)).items():
        if class_name == "operational_logs":
            assert (row["held"] > 0, row["kept"]) == (each == tier, True)


async def test_the_oldest_of_a_tier_too_young_for_the_shortest_term_is_found_or_said_to_be_unknown(ready, company):
    await company.execute("DELETE FROM request_logs")
    await company.execute("INSERT INTO request_logs (account_id, created_at) VALUES (1, now() - interval '3 days')")
    row = (await promises(ready))["operational_logs", "pro"]
    assert (row["oldest_age_days"], row["oldest_known"], row["kept"]) == (3.0, True, True)
    none = (await promises(ready))["operational_logs", "free"]
    assert (none["oldest"], none["oldest_known"]) == (None, True)
    await company.execute("DROP INDEX request_logs_created_at_idx")
    unknown = (await promises(ready))["operational_logs", "pro"]
    assert (unknown["oldest"], unknown["oldest_known"]) == (None, False)


async def test_check_is_silent_of_what_is_sound_and_lists_clocks(ready):
    found = await run_retentiond("check", "--json", env=ready)
    assert (found.code, found.json["findings"]) == (0, []), found.stdout
    assert set(found.json["clocks"]) == {"control", "request_logs", "invoices"}


async def test_check_finds_clocks_apart_foreign_keys_and_tiers(ready, company):
    await company.execute(
        "ALTER TABLE request_logs ADD COLUMN invoice uuid REFERENCES invoices, ADD COLUMN next bigint"
    )
    await company.execute("ALTER TABLE request_logs ADD FOREIGN KEY (next) REFERENCES request_logs (id)")
    await company.execute("CREATE TABLE lines (id int PRIMARY KEY, invoice uuid REFERENCES invoices)")
    await company.execute("CREATE INDEX ON lines (invoice); CREATE INDEX ON request_logs (invoice)")
    await company.execute("CREATE INDEX ON request_logs (next); UPDATE accounts SET tier = 'gold' WHERE id = 1")
    apart = ready | {"RETENTIOND_GUARDS__MAX_CLOCK_SKEW": "0.0000001"}
    found = await run_retentiond("check", "--json", env=apart)
    assert found.code == 1
    said = {(each["severity"], each["subject"]): each["message"] for each in found.json["findings"]}
    assert "clocks differ" in said["error", "clocks"]
    assert "'gold'" in said["warning", "accounts"]
    assert "lines" in said["warning", "invoices"]
    assert "target request_logs refers to it" in said["info", "invoices"]
    assert "the same table" in said["info", "request_logs"]
    assert all(each["remedy"] for each in found.json["findings"])


async def test_check_says_what_can_not_be_reached_and_goes_on(ready, company):
    away = ready | {"RETENTIOND_TARGETS__INVOICES__DSN": "postgresql://postgres@127.0.0.1:1/none"}
    await company.execute("DROP INDEX request_logs_created_at_idx; ALTER TABLE accounts ALTER id TYPE text")
    found = await run_retentiond("check", "--json", env=away)
    assert found.code == 1, found.stderr
    said = [(each["severity"], each["subject"], each["message"]) for each in found.json["findings"]]
    assert len(said) == len(set(said))
    assert {subject for severity, subject, _ in said if severity == "error"} == {"invoices", "request_logs"}
    assert any("can't be compared with accounts.id" in message for _, _, message in said)
    assert any("no index" in message for _, _, message in said)


async def test_check_tells_an_expression_that_is_refused_from_a_prometheus_that_is_not_there(ready):
    prefix = "RETENTIOND_TARGETS__{}__PACE__HEALTH__PROMQL"
    async with fake_prometheus() as fake:
        fake.status = 400
        asking = dict(ready)
        for name, url in (("REQUEST_LOGS", fake.url), ("INVOICES", "http://127.0.0.1:1")):
            query = {"url": url, "expression": "up((", "threshold": 1}
            asking[prefix.format(name)] = json.dumps(query)
        found = await run_retentiond("check", "--json", env=asking)
        fake.status = 200
        asking[prefix.format("INVOICES")] = asking[prefix.format("REQUEST_LOGS")]
        fake.asked.clear()
        well = await run_retentiond("check", "--json", env=asking)
    assert (found.code, well.code, len(fake.asked)) == (1, 0, 1), found.stderr + well.stdout
    said = {each["subject"]: each for each in found.json["findings"]}
    assert "refuses the expression: parse error" in said["request_logs"]["message"]
    assert "promql.expression" in said["request_logs"]["remedy"]
    assert "does not answer" in said["invoices"]["message"]
    assert {each["severity"] for each in said.values()} == {"error"}


async def test_check_in_enforce_mode_looks_at_all_that_needs_no_control_state(env, company):
    await company.execute("DROP INDEX request_logs_created_at_idx")
    found = await run_retentiond("check", "--json", env=env)
    assert found.code == 1, found.stderr
    said = {(each["severity"], each["subject"]): each for each in found.json["findings"]}
    assert "no control state yet" in said["warning", "control"]["message"]
    assert any("no index" in each["message"] for each in said.values())
    assert set(found.json["clocks"]) == {"control", "request_logs", "invoices"}
    assert not await company.fetchval("SELECT to_regnamespace('retentiond') IS NOT NULL"), "it made one"
    refused = await run_retentiond("plan", env=env)
    assert (refused.code, refused.stdout) == (4, "")


async def test_check_says_before_the_first_start_that_the_control_database_gives_no_room(env, company, database):
    async with limited_role(database) as dsn:
        poor = env | {"RETENTIOND_CONTROL__DSN": dsn}
        found = await run_retentiond("check", "--json", env=poor)
        (lacking,) = [each for each in found.json["findings"] if "create a schema" in each["message"]]
        await company.execute(lacking["remedy"])
        again = await run_retentiond("check", "--json", env=poor)
        await company.execute(lacking["remedy"].replace("GRANT", "REVOKE").replace(" TO ", " FROM "))
    assert (lacking["severity"], lacking["subject"]) == ("error", "control")
    assert [each["severity"] for each in again.json["findings"]] == ["warning"]


async def test_findings_to_be_known_do_not_fail_check(ready, company):
    await company.execute(SLOW.format(seconds=0))
    found = await run_retentiond("check", env=ready)
    assert found.code == 0, found.stdout
    assert found.stdout.startswith("info: request_logs: trigger dawdle")


async def test_a_hold_says_how_many_records_it_matches_due_or_not(ready, company):
    async def matched(*scope):
        placed = await run_retentiond("hold", "place", "--matter", "m", "--reason", "r", *scope, "--json", env=ready)
        assert placed.code == 0, placed.stderr
        return placed

    mine = await company.fetchval("SELECT count(*) FROM request_logs WHERE account_id = 7")
    all_of_mine = mine + await company.fetchval("SELECT count(*) FROM invoices WHERE account_id = 7")
    assert (await matched("--account", "007")).json["records_matched"] == all_of_mine
    logs = (await matched("--account", "7", "--target", "request_logs")).json
    assert logs["matches"] == {"request_logs": {"records": mine, "estimate": False}}
    assert (await matched("--record", "request_logs=12")).json["records_matched"] == 1
    lately = (datetime.now(UTC) - timedelta(days=7)).isoformat()
    recent = await company.fetchval("SELECT count(*) FROM request_logs WHERE created_at >= now() - interval '7 days'")
    found = (await matched("--class", "operational_logs", "--since", lately)).json["records_matched"]
    assert recent <= found <= recent + 1
    assert (await matched("--everything")).json["records_matched"] == 3090


async def test_a_hold_that_matches_nothing_is_placed_with_a_warning(ready):
    placed = await run_retentiond("hold", "place", "--matter", "m", "--reason", "r", "--account", "4711", env=ready)
    assert placed.code == 0
    assert "matches no record" in placed.stderr
    shown = await run_retentiond("hold", "list", env=ready)
    assert "account 4711" in shown.stdout


async def test_a_locked_table_leaves_the_others_and_a_hold_on_it_is_placed_uncounted(ready, company):
    async with company.transaction():
        await company.execute("LOCK TABLE invoices IN ACCESS EXCLUSIVE MODE")
        plan = await run_retentiond("plan", "--json", env=ready)
        assert plan.code == 1
        assert "did not answer in time" in plan.json["targets"]["invoices"]["error"]["message"]
        assert plan.json["targets"]["request_logs"]["records"] > 0
        placed = await run_retentiond(
            "hold", "place", "--matter", "m", "--reason", "r", "--account", "7", "--json", env=ready
        )
        assert (placed.code, placed.json["state"]) == (0, "active")
        assert placed.json["targets_not_counted"] == ["invoices"]
        assert "invoices" in placed.stderr


async def test_a_sweep_tells_how_overdue_the_oldest_is_in_either_mode(ready, company):
    async def logs(env):
        swept = await run_retentiond("sweep", "--target", "request_logs", "--json", env=env)
        return swept.json["targets"]["request_logs"]

    planned = await logs(ready | {"RETENTIOND_MODE": "plan"})
    assert planned["overdue_seconds"] > 1000 * 86_400
    assert (planned["bytes"], planned["would_erase_bytes"] > 0) == (0, True)
    oldest = await company.fetchval("SELECT min(created_at) FROM request_logs")
    assert datetime.fromisoformat(planned["oldest"]) == oldest
    guarded = await logs({key: value for key, value in ready.items() if not key.endswith("MAX_FRACTION")})
    assert (guarded["outcome"], guarded["overdue_seconds"] > 1000 * 86_400) == ("guarded", True)
    drained = await logs(ready)
    assert (drained["outcome"], drained["overdue_seconds"]) == ("drained", 0.0)
    await company.execute("ALTER TABLE request_logs RENAME created_at TO at")
    blind = await logs(ready)
    assert (blind["outcome"], blind["overdue_seconds"]) == ("blind", None)


async def test_the_ledger_is_shown_in_lines_for_people_and_by_kind(ready):
    assert (await run_retentiond("sweep", env=ready)).code == 0
    shown = await run_retentiond("ledger", "show", "--kind", "outcome", "--limit", "1", env=ready)
    assert shown.code == 0, shown.stderr
    _, line = shown.stdout.splitlines()
    assert line.split("\t")[2] == "outcome"
    assert "invoices: 27 erased (enterprise 9, free 9, pro 9)" in line
    assert "--after" in shown.stderr
    assert (await run_retentiond("ledger", "show", "--kind", "nonsense", env=ready)).code == 2


async def test_a_reader_that_goes_away_ends_the_command_in_one_line(ready):
    assert (await run_retentiond("sweep", env=ready)).code == 0
    reader, writer = os.pipe()
    os.close(reader)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "retentiond", "ledger", "show", "--json",
        env={"PATH": os.environ["PATH"], **ready}, stdout=writer, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    os.close(writer)
    _, said = await process.communicate()
    assert (process.returncode, said.decode()) == (141, "stopped: the output is not read any more\n")


async def test_ctrl_c_ends_a_sweep_in_one_line_and_the_next_one_goes_on(ready, company):
    await company.execute(SLOW.format(seconds=2))
    async with start_retentiond("sweep", "--target", "request_logs", "--json", env=ready) as worker:
        await in_a_batch(company)
        worker.send_signal(signal.SIGINT)
        assert await worker.wait() == 130
        assert worker.output == "interrupted\n"
    await company.execute("DROP TRIGGER dawdle ON request_logs")
    assert (await run_retentiond("sweep", env=ready)).code == 0
    assert await company.fetchval(DUE) == 0


async def test_what_nobody_foresaw_ends_in_one_line_and_a_traceback_only_when_asked_for(ready, company):
    await company.execute("ALTER TABLE retentiond.holds DROP COLUMN notice")
    found = await run_retentiond("hold", "list", env=ready)
    assert (found.code, found.stdout) == (1, "")
    assert found.stderr.startswith("error: unexpected ")
    assert "Traceback" not in found.stderr
    loud = await run_retentiond("hold", "list", env=ready | {"RETENTIOND_LOG_LEVEL": "debug"})
    assert "Traceback" in loud.stderr


@pytest.mark.parametrize("command", [("sweep",), ("plan",), ("promises",)])
async def test_progress_is_on_standard_error_and_plain_where_that_is_no_terminal(ready, command):
    quiet = await run_retentiond(*command, "--json", env=ready)
    assert (quiet.code, quiet.stderr) == (0, "")
    assert quiet.json
    plain = await run_retentiond(*command, env=ready)
    assert "request_logs: " in plain.stderr
    assert "\x1b" not in plain.stderr + plain.stdout


@pytest.mark.parametrize("no_color", ["", "1"])
async def test_on_a_terminal_progress_moves_and_no_color_is_honoured(ready, no_color):
    more = {"TERM": "xterm-256color", "COLUMNS": "160"} | ({"NO_COLOR": no_color} if no_color else {})
    shown = await on_a_terminal("sweep", env=ready | more)
    assert "erased" in shown
    assert "request_logs" in shown
    coloured = any(f"\x1b[{code}m" in shown for code in (31, 32, 33, 35, 36))
    assert coloured == (not no_color)


async def on_a_terminal(*args, env):
    """All that a command writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "retentiond", *args, env={"PATH": os.environ["PATH"], **env},
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    read = asyncio.create_task(asyncio.to_thread(drain, ours))
    assert await process.wait() == 0
    return (await read).decode()


def drain(terminal):
    found = b""
    try:
        while chunk := os.read(terminal, 65536):
            found += chunk
    except OSError:  # Linux' way to say that the other end is closed
        os.close(terminal)
    return found


def every_command():
    from retentiond.cli.main import main

    def walk(command, path):
        if hasattr(command, "commands"):
            for name, each in command.commands.items():
                yield from walk(each, (*path, name))
        else:
            yield path

    return list(walk(main, ()))


@pytest.mark.parametrize("path", every_command(), ids=" ".join)
async def test_every_command_has_json_examples_and_exit_codes_in_its_help(path):
    shown = await run_retentiond(*path, "--help")
    assert shown.code == 0
    assert all(word in shown.stdout for word in ("--json", "\n  Examples:\n", "\n  JSON", "Exit codes:")), shown.stdout
    assert "\\b" not in shown.stdout


async def promises(env):
    found = await run_retentiond("promises", "--json", env=env)
    assert found.code == 0, found.stderr
    return {(row["class"], row["tier"]): row for row in found.json["promises"]}
