"""retentiond: makes retention promises true in the stores that hold the data, and proves it."""

__version__ = "0.1.0"
