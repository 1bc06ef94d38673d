"""`token new`: a token is printed once, and its hash is what is configured."""

import hashlib
import json

import pytest
from click.testing import CliRunner

from retentiond.cli.main import main
from retentiond.settings import load
from tests.services.api import ROLES


def new(*args):
    return CliRunner().invoke(main, ["token", "new", *args])


def test_a_new_token_is_another_one_each_time_and_its_hash_fits():
    made = [json.loads(new("carla", "--role", "counsel", "--json").stdout) for _ in range(2)]
    assert made[0]["token"] != made[1]["token"]
    for each in made:
        assert (each["name"], each["role"]) == ("carla", "counsel")
        assert hashlib.sha256(each["token"].encode()).hexdigest() == each["sha256"]
        assert len(each["token"]) > 40


def test_what_people_are_told_can_be_configured_as_it_stands_and_has_no_token_in_it():
    told = new("carla", "--role", "counsel")
    token = told.stdout.splitlines()[0].split()[1]
    (line,) = [line for line in told.stderr.splitlines() if "RETENTIOND_HTTP__TOKENS=" in line]
    settings = load({"RETENTIOND_HTTP__TOKENS": line.partition("=")[2].strip("'")})
    assert settings.http.tokens["carla"].sha256 == hashlib.sha256(token.encode()).hexdigest()
    assert token not in told.stderr


@pytest.mark.parametrize(("name", "role"), [("daemon", "admin"), ("a b", "admin"), ("", "admin"), ("x", "king")])
def test_a_name_or_a_role_that_can_not_be_is_refused(name, role):
    assert new(name, "--role", role).exit_code == 2


def test_there_is_a_test_with_each_role():
    assert set(ROLES.values()) == {"viewer", "operator", "counsel", "privacy", "admin"}
