"""Whether an upload that was aborted is gone with all its parts.

A part that was on its way while the upload was aborted may be kept all the same, and paid for, and seen by nobody: S3
says to abort again until no part is listed.
"""

from __future__ import annotations

from retentiond.stores.s3.endpoint import Bucket
from retentiond.stores.s3.errors import ABSENT, DENIED


async def parts_left(bucket: Bucket, key: str, upload_id: str) -> bool:
    """Whether the upload still has parts, or is there; raises Unreachable.

    Who may not list parts (s3:ListMultipartUploadParts) has the answer to the abort alone to go by; `check` says so.
    """
    reply = await bucket.ask("GET", key, [("uploadId", upload_id), ("max-parts", "1")])
    trouble = reply.trouble
    if trouble is not None and trouble.code in ABSENT | DENIED:
        return False
    bucket.require(reply, "listing the parts of an upload", "s3:ListMultipartUploadParts")
    return True
