"""Whose clock it is."""

from __future__ import annotations

import socket

import pytest

from retentiond.control import host
from retentiond.control.host import is_this_machine
from retentiond.control.migrations import shipped


@pytest.mark.parametrize("name", [None, "127.0.0.1", "::1", "localhost"])
def test_a_unix_socket_and_loopback_are_this_machine(name):
    assert is_this_machine(name)


def test_an_address_that_we_can_not_bind_to_is_another_machine():
    assert not is_this_machine("192.0.2.1")


def test_a_name_that_does_not_resolve_is_not_this_machine(monkeypatch):
    def fails(*args, **kwargs):
        raise socket.gaierror

    monkeypatch.setattr(host.socket, "getaddrinfo", fails)
    assert not is_this_machine("db.example")


def test_the_migrations_are_numbered_from_one_without_gaps():
    assert [migration.version for migration in shipped()] == list(range(1, len(shipped()) + 1))
