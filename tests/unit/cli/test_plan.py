"""What `plan` says of a target that is judged by an inventory."""

from datetime import UTC, datetime
from types import SimpleNamespace

from retentiond.cli.views import Planned, _show_plan
from retentiond.sweep.outcome import Outcome
from retentiond.sweep.spec import Pace

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
REPORT = datetime(2026, 11, 29, 23, tzinfo=UTC)


def planned(as_of):
    return Planned(NOW, Outcome(), None, None, 7, as_of)


def test_a_plan_by_an_inventory_is_dated_and_one_by_what_there_is_is_not(capsys):
    logs = SimpleNamespace(name="logs")
    target = SimpleNamespace(name="artifacts", action="delete", data_class=logs, pace=Pace())
    assert planned(REPORT).document([])["as_of"] == "2026-11-29T23:00:00.000000Z"
    assert planned(None).document([])["as_of"] is None
    _show_plan([(target, planned(REPORT))])
    assert "artifacts is judged by its inventory, as of 2026-11-29T23:00:00.000000Z" in capsys.readouterr().err
    _show_plan([(target, planned(None))])
    assert "inventory" not in capsys.readouterr().err
