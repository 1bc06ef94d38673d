"""What `check` says of how HTTP is served."""

import json

import pytest

from retentiond.cli.http_checks import findings
from retentiond.settings import load

COUNSEL = {"role": "counsel", "sha256": "ab" * 32}
OTHER = {"role": "admin", "sha256": "cd" * 32}


def found(**given):
    environment = {f"RETENTIOND_{name}": value for name, value in given.items()}
    return [(each.severity, each.message) for each in findings(load(environment))]


@pytest.mark.parametrize("tokens", [{}, {"a": COUNSEL}, {"a": COUNSEL, "b": {"role": "viewer", "sha256": "cd" * 32}}])
def test_two_people_who_are_fewer_can_release_no_hold(tokens):
    (finding,) = found(HOLDS__TWO_PERSON="true", HTTP__TOKENS=json.dumps(tokens))
    assert "no hold can be released" in finding[1]


def test_two_people_who_are_two_are_fine():
    assert found(HOLDS__TWO_PERSON="true", HTTP__TOKENS=json.dumps({"a": COUNSEL, "b": OTHER})) == []


def test_tokens_that_anybody_on_the_way_can_read_are_told_of():
    tokens = {"HTTP__TOKENS": json.dumps({"a": COUNSEL})}
    (finding,) = found(HTTP__HOST="0.0.0.0", **tokens)
    assert "unencrypted" in finding[1]
    assert found(HTTP__HOST="0.0.0.0") == []
    for host in ("127.0.0.1", "::1", "localhost"):
        assert found(HTTP__HOST=host, **tokens) == []
    assert found(HTTP__HOST="0.0.0.0", HTTP__TRUSTED_PROXIES='["10.0.0.7"]', **tokens) == []


def test_a_certificate_that_can_not_be_used_is_an_error():
    files = {"certificate": "/nowhere/c.pem", "key": "/nowhere/k.pem"}
    (finding,) = found(HTTP__TLS=json.dumps(files))
    assert (finding[0], "/nowhere/c.pem" in finding[1]) == ("error", True)
