"""A table whose records are archived into a bucket, and what an archive has when somebody else reads it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import zstandard

from services.s3 import Ground, S3Server


def place(server: S3Server, bucket: str, **more: Any) -> dict[str, Any]:
    """`archive` of a target that lies in the group `eu`, as the server is said to."""
    return {
        "bucket": bucket,
        "prefix": "kept",
        "endpoint_url": server.url,
        "region": server.region,
        "region_group": "eu",
        "access_key_id": server.key,
        "secret_access_key": server.secret,
        "addressing": "path",
        **more,
    }


@dataclass(frozen=True, slots=True)
class Read:
    """One archive as somebody reads it who has nothing but the bucket and docs/archive.md."""

    manifest: dict[str, Any]
    records: list[dict[str, Any]]
    key: str
    manifest_sha256: str


async def archives(ground: Ground) -> list[Read]:
    """All archives of the bucket, each verified by its manifest; what has no manifest is none."""
    found = []
    for key in await ground.keys():
        if not key.endswith(".manifest.json"):
            continue
        raw = await _body(ground, key)
        manifest = json.loads(raw)
        packed = await _body(ground, manifest["data"]["key"])
        assert hashlib.sha256(packed).hexdigest() == manifest["data"]["sha256"]
        assert len(packed) == manifest["data"]["bytes"]
        plain = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
        assert hashlib.sha256(plain).hexdigest() == manifest["data"]["uncompressed_sha256"]
        records = [json.loads(line) for line in plain.splitlines()]
        assert len(records) == manifest["records"]
        found.append(Read(manifest, records, manifest["data"]["key"], hashlib.sha256(raw).hexdigest()))
    return found


async def archived_ids(ground: Ground) -> list[int]:
    """The ids of all records in the bucket's archives."""
    return sorted(int(record["id"]) for each in await archives(ground) for record in each.records)


async def _body(ground: Ground, key: str) -> bytes:
    answer = await ground.client.get_object(Bucket=ground.name, Key=key)
    async with answer["Body"] as body:
        return await body.read()
