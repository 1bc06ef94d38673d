"""Who is at the other end: a peer is believed of itself alone, unless it is a proxy that is configured."""

from ipaddress import ip_network

import pytest
from aiohttp.test_utils import make_mocked_request

from retentiond.api.clients import client_of

PROXIES = tuple(map(ip_network, ("10.0.0.0/8", "127.0.0.1/32", "fd00::/8")))


class Transport:
    def __init__(self, peer, tls):
        self.known = {"peername": (peer, 4711) if peer else None, "sslcontext": tls}

    def get_extra_info(self, name, default=None):
        return self.known.get(name, default)


def seen(peer, trusted=(), tls=None, **headers):
    given = {"Host": "localhost:8087", **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = make_mocked_request("GET", "/", headers=given, transport=Transport(peer, tls))
    found = client_of(request, trusted)
    return (str(found.address) if found.address else None, found.local, found.secure)


@pytest.mark.parametrize(
    ("peer", "trusted", "headers", "expected"),
    [
        ("127.0.0.1", (), {}, ("127.0.0.1", True, False)),
        ("::1", (), {"Host": "[::1]:8087"}, ("::1", True, False)),
        ("::ffff:127.0.0.1", (), {"Host": "127.0.0.1"}, ("127.0.0.1", True, False)),
        ("127.0.0.1", (), {"Host": "attacker.example"}, ("127.0.0.1", False, False)),
        ("127.0.0.1", (), {"Host": "127.0.0.1.attacker.example"}, ("127.0.0.1", False, False)),
        ("127.0.0.1", (), {"Forwarded": "for=1.2.3.4"}, ("127.0.0.1", False, False)),
        ("127.0.0.1", (), {"X_Forwarded_For": "1.2.3.4"}, ("127.0.0.1", False, False)),
        ("127.0.0.1", PROXIES, {}, ("127.0.0.1", False, False)),
        ("127.0.0.1", PROXIES, {"X_Forwarded_For": "127.0.0.1"}, ("127.0.0.1", False, False)),
        (
            "203.0.113.9",
            (),
            {"X_Forwarded_For": "1.2.3.4", "X_Forwarded_Proto": "https"},
            ("203.0.113.9", False, False),
        ),
        ("10.0.0.1", PROXIES, {"X_Forwarded_For": "6.6.6.6, 1.2.3.4, 10.0.0.2"}, ("1.2.3.4", False, False)),
        ("10.0.0.1", PROXIES, {"X_Forwarded_For": "1.2.3.4, nonsense"}, (None, False, False)),
        ("10.0.0.1", PROXIES, {"X_Forwarded_For": "[2001:db8::1]:99"}, ("2001:db8::1", False, False)),
        (
            "10.0.0.1",
            PROXIES,
            {"X_Forwarded_For": "1.2.3.4:99", "X_Forwarded_Proto": "HTTPS"},
            ("1.2.3.4", False, True),
        ),
        ("10.0.0.1", PROXIES, {"X_Forwarded_Proto": "https, http"}, ("10.0.0.1", False, False)),
        (None, PROXIES, {}, (None, False, False)),
    ],
)
def test_the_client_is_told_by(peer, trusted, headers, expected):
    assert seen(peer, trusted, **headers) == expected


def test_one_customers_ipv6_network_is_one_client():
    keys = set()
    for peer in ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", "2001:db8:1:3::1"):
        request = make_mocked_request("GET", "/", transport=Transport(peer, None))
        keys.add(client_of(request, ()).key)
    assert len(keys) == 2
