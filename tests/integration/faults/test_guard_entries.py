"""What the ledger is told of a sweep that ended without doing all: which guard, and over how many records."""


async def test_the_ledger_names_the_guard_that_stopped_a_sweep_and_what_it_had_counted(rig):
    await rig.company(due=5, young=3)
    rig.guards = {"max_fraction": 0.25, "min_records": 0}
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed, len(await rig.ids())) == ("guarded", 0, 8)
    (entry,) = [entry for entry in await rig.ledger() if entry["kind"] == "guard"]
    assert (entry["guard"], entry["tripped"], entry["target"]) == ("fraction", True, "logs")
    assert entry["detail"] == {
        "outcome": "guarded", "due": 5, "changed": 0, "held": 0, "minimum": 0, "unresolved": 0, "blocked": 0, "failed": 0,
    }  # fmt: skip


async def test_a_sweep_that_an_error_ended_is_told_by_the_errors_name(rig):
    await rig.company(due=2, young=1)
    await rig.db.execute(
        "CREATE FUNCTION veto() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
        "CREATE TRIGGER veto BEFORE DELETE ON logs FOR EACH ROW WHEN (OLD.id = 1) EXECUTE FUNCTION veto()"
    )
    outcome = await rig.only()
    assert (outcome.outcome, outcome.changed, outcome.failed) == ("failed", 1, 1)
    (entry,) = [entry for entry in await rig.ledger() if entry["kind"] == "guard"]
    assert (entry["guard"], entry["detail"]["due"]) == ("refused", None)
    assert (entry["detail"]["changed"], entry["detail"]["failed"]) == (1, 1)
    await rig.require_told(logs=1)
