"""`retentiond demo`: the policy's company on an embedded Postgres, and the daemon making its promises true."""
