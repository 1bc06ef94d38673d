"""An auditor with the ids of a batch and the control database's key gets the ledger's digest, as docs/adr/0002 says."""

import hashlib
import hmac

import pytest

from tests.services.sweeping import ACCOUNTS

DUE = "1, now() - interval '400 days' + i * interval '1 minute'"
TABLES = {
    # In the order of the anchors 12 comes last; by number it does as well, by text it would not.
    "integers": ("id bigint PRIMARY KEY", f"SELECT i, {DUE} FROM generate_series(1, 12) i", [str(i) for i in range(1, 13)]),
    # Bytewise capitals come first, whatever the database's collation.
    "texts": (
        "id text PRIMARY KEY",
        f"SELECT (ARRAY['b', 'B', 'a', 'é'])[i], {DUE} FROM generate_series(1, 4) i",
        ["B", "a", "b", "é"],
    ),
    "pairs": (
        "part text, id int, PRIMARY KEY (part, id)",
        f"SELECT CASE WHEN i < 3 THEN 'b' ELSE 'a' END, i, {DUE} FROM generate_series(1, 4) i",
        ['["a", "3"]', '["a", "4"]', '["b", "1"]', '["b", "2"]'],
    ),
}  # fmt: skip


@pytest.fixture(params=["rig", "apart"])
def either(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("kind", sorted(TABLES))
async def test_the_digest_of_a_batchs_ids_can_be_recomputed_from_the_ids(either, kind):
    rig = either
    columns, rows, ids = TABLES[kind]
    await rig.db.execute(
        f"{ACCOUNTS} CREATE TABLE logs (account_id bigint, created_at timestamptz, {columns});"
        f"INSERT INTO logs ({', '.join(_names(columns))}, account_id, created_at) {rows}"
    )
    rig.target("logs", pace={"duty": 1.0, "max_batch": 100})
    assert (await rig.only()).changed == len(ids)
    assert await rig.db.fetchval("SELECT count(*) FROM logs") == 0
    (entry,) = [entry for entry in await rig.ledger() if entry["kind"] == "outcome"]
    async with rig.control_connection() as control:
        key = await control.fetchval("SELECT value FROM retentiond.secrets WHERE name = 'evidence'")
    salt = hmac.new(key, entry["batch"].encode(), hashlib.sha256).hexdigest()
    assert entry["ids_digest"] == hashlib.sha256((salt + "\n".join(ids)).encode()).hexdigest()


def _names(columns):
    return ["part", "id"] if columns.startswith("part") else ["id"]
