"""Writing legal holds of Object Lock, by requests that the server refuses after an absolute expiry."""

from __future__ import annotations

import asyncio

from retentiond.errors import Unreachable
from retentiond.stores.clock import Expiry
from retentiond.stores.s3.bodies import checksum
from retentiond.stores.s3.documents import XMLNS
from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.errors import ABSENT
from retentiond.stores.s3.items import How
from retentiond.stores.s3.objects import Absent

_TRIES = 5
_FIRST_WAIT = 0.2


async def write_legal_hold(bucket: Bucket, key: str, version_id: str, *, on: bool, how: How, expiry: Expiry) -> None:
    """Put a legal hold on the version, or take it off; a server that is busy is asked again until the expiry.

    Raises Absent, Blind without the right, Refused without a lock, Unreachable, and Unanswered: it may have been done.
    """
    body = f'<LegalHold xmlns="{XMLNS}"><Status>{"ON" if on else "OFF"}</Status></LegalHold>'.encode()
    headers = {"Content-Type": "application/xml", **checksum(body, how.checksum)}
    query = [("legal-hold", ""), ("versionId", version_id)]
    for attempt in range(1, _TRIES + 1):
        if bucket.endpoint.clock.earliest() >= expiry.expires_at:
            raise Unreachable(f"bucket {bucket.name}: writing a legal hold took too long", remedy="it is tried again")
        reply = await bucket.destroy(how.fence, expiry, "PUT", key, query, headers, body)
        trouble = reply.trouble
        if trouble is not None and trouble.code in ABSENT:
            raise Absent(f"bucket {bucket.name}: there is no such version")
        if trouble is None or not (trouble.throttled or trouble.broken) or attempt == _TRIES:
            bucket.require(reply, "writing a legal hold", "s3:PutObjectLegalHold")
            return
        await asyncio.sleep(_FIRST_WAIT * 2**attempt)
