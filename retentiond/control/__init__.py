"""The daemon's own state in Postgres: holds and their barrier, permits, leases, approvals, policies, memory.

Every function takes a `Tx` (it runs in the caller's transaction) or a `Database` (it has a transaction of its own,
because a protocol needs it so). Only this package and `stores.postgres` know asyncpg.
"""
