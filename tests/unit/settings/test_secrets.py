"""No secret is ever shown: not by the settings, not by a fault, not by the chain of exceptions under one."""

from __future__ import annotations

import json
import traceback

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from retentiond.errors import ConfigurationError
from retentiond.settings import Settings, is_secret, load
from retentiond.settings.problems import _bare, _is_model
from retentiond.stores.registry import CONFIG_MODELS

# What is claimed is no matter of time, and a busy machine is slow.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Long enough not to stand in a message by chance, and with what upsets parsers.
secrets = st.text(alphabet="abcXYZ0189!@#%&*:{}[]|>'\"\\/?=~`,. -", min_size=12, max_size=30).map(
    lambda text: f"q9Z{text}7Kx"
)
keys = st.sampled_from(["control.dsn", "accounts.dsn", "ledger.key", "targets.logs.dsn"])
BASE = {
    "RETENTIOND_TARGETS__LOGS__STORE": "postgres",
    "RETENTIOND_TARGETS__LOGS__CLASS": "operational_logs",
    "RETENTIOND_TARGETS__LOGS__TABLE": "t",
    "RETENTIOND_TARGETS__LOGS__ANCHOR": "a",
    "RETENTIOND_TARGETS__LOGS__DSN": "postgresql://h/d",
    "RETENTIOND_ACCOUNTS__DSN": "postgresql://h/d",
    "RETENTIOND_ACCOUNTS__TABLE": "t",
}


def variable(key):
    return "RETENTIOND_" + key.replace(".", "__").upper()


def all_that_is_said(environ):
    """Everything that loading these settings could put into an output, a log or a traceback."""
    try:
        found = load(environ)
    except ConfigurationError as error:
        said = [str(error), repr(error), repr(error.problems), "".join(traceback.format_exception(error))]
        at = error.__context__ or error.__cause__
        while at is not None:
            said += [str(at), repr(at)]
            at = at.__context__ or at.__cause__
        return "\n".join(said)
    dumps = [str(found.model_dump()), found.model_dump_json(), repr(found), str(found), json.dumps(found.describe())]
    return "\n".join([*dumps, repr(found.targets), repr(found.accounts), repr(found.control), repr(found.beside)])


def document(key, value):
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


@UNHURRIED
@given(key=keys, secret=secrets)
def test_a_secret_in_a_variable_is_never_said(key, secret):
    assert secret not in all_that_is_said(BASE | {variable(key): secret})


@UNHURRIED
@given(key=keys, secret=secrets)
def test_a_password_in_an_address_is_never_said(key, secret):
    assert secret not in all_that_is_said(
        BASE | {variable(key): f"postgresql://app:{secret}@h/d", "RETENTIOND_MODE": "x"}
    )


@UNHURRIED
@given(key=keys, secret=secrets, wrap=st.sampled_from([lambda s: s, lambda s: [s], lambda s: {"value": s}]))
def test_a_secret_in_a_document_is_never_said_also_where_its_type_is_wrong(key, secret, wrap):
    environ = {name: text for name, text in BASE.items() if name != variable(key)}
    said = all_that_is_said(environ | {"RETENTIOND_CONFIG": json.dumps(document(key, wrap(secret)))})
    assert secret not in said


@UNHURRIED
@given(key=keys, secret=secrets)
def test_a_secret_that_breaks_the_document_it_stands_in_is_never_said(key, secret):
    section, _, last = key.rpartition(".")
    for text in (
        f"{section.partition('.')[0]}:\n  {last}: {secret}\n",
        f"a: '{secret}\n",
        f"a: *{secret}\n",
        f"a: {secret}: b: [",
    ):
        said = all_that_is_said(BASE | {"RETENTIOND_CONFIG": text})
        assert secret not in said
        assert secret[:12] not in said


@UNHURRIED
@given(key=keys, secret=secrets)
def test_a_secret_from_a_file_is_never_said(key, secret, tmp_path):
    (tmp_path / "secret").write_text(secret + "\n")
    environ = {name: text for name, text in BASE.items() if name != variable(key)}
    assert secret not in all_that_is_said(environ | {variable(key) + "_FILE": str(tmp_path / "secret")})


@UNHURRIED
@given(key=keys, secret=secrets)
def test_a_secret_given_where_the_name_of_its_file_belongs_is_never_said(key, secret):
    environ = {name: text for name, text in BASE.items() if name != variable(key)}
    assert secret not in all_that_is_said(environ | {variable(key) + "_FILE": secret})
    assert f"/{secret}" not in all_that_is_said(environ | {variable(key) + "_FILE": f"/{secret}"})


@UNHURRIED
@given(secret=secrets)
def test_a_secret_under_an_unknown_key_is_never_said(secret):
    for name in ("RETENTIOND_CONTROL__DNS", "RETENTIOND_CONTROL", "RETENTIOND_PASSWORD", "RETENTIOND_MODE__PASSWORD"):
        assert secret not in all_that_is_said(BASE | {name: secret})


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_one_trailing_newline_of_a_secret_file_is_dropped(tmp_path, ending):
    (tmp_path / "key").write_bytes(f" spaces stay \n{ending}".encode() if ending else b" spaces stay ")
    found = load({"RETENTIOND_LEDGER__KEY_FILE": str(tmp_path / "key")})
    expected = " spaces stay \n" if ending else " spaces stay "
    assert found.ledger.key.get_secret_value() == expected
    assert found.source_of("ledger.key") == "environment variable RETENTIOND_LEDGER__KEY_FILE"


def test_an_empty_secret_file_is_a_problem(tmp_path):
    (tmp_path / "key").write_text("\n")
    with pytest.raises(ConfigurationError) as caught:
        load({"RETENTIOND_LEDGER__KEY_FILE": str(tmp_path / "key")})
    assert caught.value.problems[0].key == "ledger.key"
    assert "is empty" in caught.value.problems[0].message


def test_a_secret_that_looks_like_json_stays_text():
    assert load({"RETENTIOND_LEDGER__KEY": '{"a": 1}'}).ledger.key.get_secret_value() == '{"a": 1}'


def leaves(model, path=()):
    """Every field of a model with its path and its bare type."""
    for name, field in model.model_fields.items():
        kind = _bare(field.annotation)
        below = (*path, field.alias or name)
        if _is_model(kind) and issubclass(kind, BaseModel):
            yield from leaves(kind, below)
        else:
            yield below, kind


def test_every_secret_field_of_every_model_is_known_as_a_secret_and_no_other():
    found = list(leaves(Settings))
    for kind, model in CONFIG_MODELS.items():
        found += leaves(model, ("targets", kind))
    assert {path for path, kind in found if kind is SecretStr} == {path for path, _ in found if is_secret(path)}
    assert ("ledger", "key") in {path for path, kind in found if kind is SecretStr}
