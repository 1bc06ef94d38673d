"""`docs/configuration.md` has every key, with its variable and its default, and its example is a configuration."""

import re
import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

from retentiond.domain import policy
from retentiond.settings import load
from retentiond.settings.models import Settings, Token
from retentiond.settings.sources import NO_KEYS, variable
from retentiond.stores.registry import CONFIG_MODELS

PAGE = (Path(__file__).parents[3] / "docs" / "configuration.md").read_text("utf-8")
ROWS = {row.split("`")[1]: row for row in PAGE.splitlines() if row.startswith("| `")}


def keys(model, prefix=""):
    for name, field in model.model_fields.items():
        key = f"{prefix}{field.alias or name}"
        if key in ("beside", "policy", "targets"):
            continue
        below = [each for each in (field.annotation, *typing.get_args(field.annotation)) if _is_model(each)]
        if key == "http.tokens":
            yield from keys(Token, f"{key}.NAME.")
        elif below:
            yield from keys(below[0], f"{key}.")
        else:
            yield key, field.default


def _is_model(annotation):
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def every_key():
    yield from keys(Settings)
    yield from ((f"policy.{name}", None) for name in policy._POLICY_KEYS if name != "classes")
    yield from ((f"policy.classes.CLASS.{name}", None) for name in policy._CLASS_KEYS)
    for model in CONFIG_MODELS.values():
        yield from keys(model, "targets.NAME.")


@pytest.mark.parametrize(("key", "default"), list(every_key()))
def test_every_key_stands_in_the_reference_with_its_variable_and_its_default(key, default):
    assert key in ROWS, f"docs/configuration.md has no row for {key}"
    _, _, name, kind, *_ = ROWS[key].split("|")
    assert f"`{variable(key).removeprefix('RETENTIOND_')}`" in name
    if isinstance(default, (bool, int, float, str)):
        told = str(default).lower() if isinstance(default, bool) else str(default)
        assert told in kind.rpartition(";")[2], f"the default of {key} is {told}"


def test_the_reference_has_no_key_that_is_none():
    known = {key for key, _ in every_key()}
    assert {key for key in ROWS if "." in key and "_TOKEN" not in key} <= known


def test_variables_that_are_no_keys_stand_in_the_reference():
    assert [name for name in NO_KEYS if f"`{name}`" not in PAGE] == []


def test_the_example_is_a_configuration():
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    settings = load({"RETENTIOND_CONFIG": example})
    assert set(settings.targets) == {"request_logs", "tickets", "artifacts"}
    assert str(settings.policy.classes["operational_logs"].terms["pro"]) == "P365D"
