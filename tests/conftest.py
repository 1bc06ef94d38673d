"""Fixtures for every test: real servers and real processes come from `services`."""

pytest_plugins = ["services.postgres", "services.rigs"]


def pytest_collection_modifyitems(items):
    """Tests that have to wait for real (a permit's 30 seconds) come last, so that a failure elsewhere shows first."""
    items.sort(key=lambda item: item.get_closest_marker("late") is not None)
