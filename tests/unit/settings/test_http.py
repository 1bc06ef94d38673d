"""Where HTTP is served and by whom it may be used: what is refused, and how it is said."""

import hashlib
import json

import pytest

from retentiond.errors import ConfigurationError
from retentiond.settings import load

SAME = {"role": "counsel", "sha256": "ab" * 32}


def faults(name, given):
    with pytest.raises(ConfigurationError) as refused:
        load({f"RETENTIOND_HTTP__{name}": given if isinstance(given, str) else json.dumps(given)})
    return refused.value.problems


@pytest.mark.parametrize(
    ("tokens", "told"),
    [
        ({"a": SAME, "b": SAME}, "a and b have the same token"),
        ({"daemon": SAME}, "'daemon' can't be the name"),
        ({"a b": SAME}, "'a b' can't be the name"),
        ({"a": SAME | {"sha256": hashlib.sha256(b"").hexdigest()}}, "empty"),
        ({"a": SAME | {"role": "king"}}, "king"),
        ({"a": SAME | {"sha256": "secret"}}, ""),
        ({"a": {"role": "admin"}}, "required"),
    ],
)
def test_tokens_that_are_none_are_refused(tokens, told):
    (problem,) = faults("TOKENS", tokens)
    assert problem.key.startswith("http")
    assert told in problem.message
    assert problem.remedy


@pytest.mark.parametrize("given", ["10.0.0.0/33", "proxy.example", "", "10.0.0.1 "])
def test_a_proxy_that_is_no_address_is_refused(given):
    assert faults("TRUSTED_PROXIES", [given])[0].key.startswith("http.trusted_proxies")


def test_proxies_are_addresses_and_networks():
    settings = load({"RETENTIOND_HTTP__TRUSTED_PROXIES": '["10.0.0.7", "fd00::/8", "192.168.1.9/24"]'})
    assert settings.http.trusted_proxies == ("10.0.0.7/32", "fd00::/8", "192.168.1.0/24")


def test_a_certificate_takes_both_files_by_absolute_paths():
    assert [each.key for each in faults("TLS__CERTIFICATE", "/etc/tls.pem")] == ["http.tls.key"]
    assert faults("TLS", {"certificate": "tls.pem", "key": "/k.pem"})[0].key == "http.tls.certificate"
