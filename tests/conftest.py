"""Fixtures for every test: real servers and real processes come from `services`."""

pytest_plugins = ["services.postgres"]
