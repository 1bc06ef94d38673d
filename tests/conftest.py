"""Fixtures for every test: real servers and real processes come from `services`."""

pytest_plugins = ["services.postgres", "services.rigs", "services.s3", "services.ceph"]


def pytest_collection_modifyitems(config, items):
    """Tests that have to wait for real (a permit's 30 seconds) come last, so that a failure elsewhere shows first.

    Where several processes share the tests they come first: the others work meanwhile, and nobody waits at the end.
    """
    shared = hasattr(config, "workerinput")
    items.sort(key=lambda item: (item.get_closest_marker("late") is not None) is not shared)
