"""Fixtures that start real servers and real processes."""
