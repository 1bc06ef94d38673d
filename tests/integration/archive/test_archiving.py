"""Records of a table go into a bucket before they are deleted: exactly those, and nothing else."""

import re

from services.archives import archived_ids, archives
from services.sweeping import document


async def test_what_is_due_is_archived_and_then_gone(company, ground):
    before = {row["id"]: row for row in await company.db.fetch("SELECT * FROM logs")}
    outcome = await company.only()
    assert (outcome.outcome, outcome.error) == ("drained", None)
    shown = document(outcome)
    assert (shown["archived"], shown["erased"], shown["by_tier"]) == (5, 0, {"free": 5})
    assert await company.ids() == [1001, 1002, 1003]
    (archive,) = await archives(ground)
    assert [int(record["id"]) for record in archive.records] == [1, 2, 3, 4, 5]
    for record in archive.records:
        was = before[int(record["id"])]
        assert record == {
            "id": str(was["id"]),
            "account_id": "1",
            "created_at": was["created_at"].strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "ip": was["ip"],
        }
    await company.require_told(logs=5)
    await company.require_settled()


async def test_the_ledger_says_which_object_has_what_went(company, ground):
    await company.only()
    (entry,) = [each for each in await company.ledger() if each["kind"] == "outcome"]
    (archive,) = await archives(ground)
    assert entry["action"] == "archive"
    assert entry["counts"]["archived"] == 5
    assert entry["archive"] == {
        "bucket": ground.name,
        "key": archive.key,
        "version": None,
        "size": archive.manifest["data"]["bytes"],
        "sha256": archive.manifest["data"]["sha256"],
        "manifest_sha256": archive.manifest_sha256,
    }
    assert re.fullmatch(rf"kept/logs/\d{{4}}/\d\d/\d\d/{entry['batch']}\.jsonl\.zst", archive.key)
    assert archive.manifest["ids_digest"] == entry["ids_digest"]
    assert (archive.manifest["oldest"], archive.manifest["newest"]) == (entry["oldest"], entry["newest"])


async def test_many_batches_are_many_archives_and_every_record_is_in_one(company, ground):
    await company.db.execute(
        "INSERT INTO logs SELECT i, 1, now() - interval '300 days', NULL FROM generate_series(6, 35) i"
    )
    outcome = await company.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 35)
    assert len(await archives(ground)) == 4
    assert await archived_ids(ground) == list(range(1, 36))
    again = await company.only()
    assert (again.outcome, again.changed) == ("drained", 0)
    assert await archived_ids(ground) == list(range(1, 36))
