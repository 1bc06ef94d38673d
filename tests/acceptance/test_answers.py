"""What commands answer where something is not as it was meant: the exit code, and a remedy that fits."""

import pytest

from tests.services.process import run_retentiond


@pytest.fixture
async def env(rig):
    await rig.company()
    assert (await rig.only()).changed == 5
    return rig.environment()


async def test_an_export_that_can_not_be_written_is_refused_with_a_remedy(rig, env, tmp_path):
    taken = tmp_path / "taken"
    taken.write_text("")
    for out in (taken, taken / "below"):
        result = await run_retentiond("ledger", "export", "--out", str(out), env=env)
        assert (result.code, "--out" in result.stderr) == (2, True), result.stderr
    assert taken.read_text() == ""


async def test_verify_says_whose_key_it_went_by_and_another_key_is_told_of_ledger_key(rig, env, tmp_path):
    result = await run_retentiond("ledger", "verify", "--json", env=env)
    assert (result.code, result.json["ok"]) == (0, True), result.stderr
    assert str(rig.state / "ledger.key") in result.json["key_source"]
    result = await run_retentiond("ledger", "verify", "--key", str(tmp_path / "none"), env=env)
    assert (result.code, "can't be read" in result.stderr) == (2, True)
    (rig.state / "ledger.key").unlink()
    await rig.db.execute("INSERT INTO logs VALUES (1, 1, now() - interval '1 year')")
    result = await run_retentiond("sweep", env=env)
    assert result.code == 3
    assert "ledger.key" in result.stderr.split("remedy:")[1]
    assert len(await rig.ids()) == 4


async def test_forever_is_not_offered_as_a_horizon(rig, env):
    result = await run_retentiond("plan", "--horizon", "forever", env=env)
    assert (result.code, "forever" in result.stderr.split("remedy:")[1]) == (2, False)


async def test_a_difference_that_is_approved_waits_for_nothing_more(rig, env):
    rig.policy = {"classes": {"operational_logs": {"ttl": {"free": "P30D"}}}}
    shorter = rig.environment()
    assert (await run_retentiond("policy", "diff", env=shorter)).code == 3
    assert (await run_retentiond("policy", "approve", env=shorter)).code == 0
    result = await run_retentiond("policy", "diff", env=shorter)
    assert (result.code, "approved: in force at the next start" in result.stdout) == (0, True)
    shown = await run_retentiond("ledger", "show", "--kind", "approval", env=shorter)
    digest = (await run_retentiond("policy", "diff", "--json", env=shorter)).json["digest"]
    assert f"digest {digest[:12]}" in shown.stdout


async def test_a_sweep_while_paused_says_so(rig, env):
    await rig.db.execute("INSERT INTO logs VALUES (1, 1, now() - interval '1 year')")
    assert (await run_retentiond("pause", "--reason", "look", env=env)).code == 0
    result = await run_retentiond("sweep", "--json", env=env)
    assert (result.code, result.json["targets"]["logs"]["outcome"]) == (0, "paused")
    assert "paused" in result.stderr
    assert len(await rig.ids()) == 4


async def test_a_directory_that_can_not_be_reached_is_one_finding(rig):
    await rig.company()
    await rig.db.execute("CREATE TABLE others AS TABLE logs; ALTER TABLE others ADD PRIMARY KEY (id)")
    rig.target("others")
    rig.accounts["dsn"] = "postgresql://nobody@127.0.0.1:1/none"
    result = await run_retentiond("check", "--json", env=rig.environment(mode="plan"))
    errors = [each["subject"] for each in result.json["findings"] if each["severity"] == "error"]
    assert (result.code, errors) == (1, ["accounts"])
    assert any(each["subject"] == "others" for each in result.json["findings"])


async def test_the_help_names_the_code_of_an_interruption():
    assert "130" in (await run_retentiond("plan", "--help")).stdout
