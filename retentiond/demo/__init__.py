"""`retentiond demo`: the policy's company on an embedded Postgres, and the daemon making its promises true.

`company` makes the data and the configuration, `child` runs the daemon as a process of its own, `standing` knows how
each promise stands, `view` shows it, `hints` says what to try next, and `run` is the course of it all.
"""
