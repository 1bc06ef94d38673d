"""How long after its date a signature is good at an endpoint, found by asking: then its date can be made an expiry.

What is asked for is to delete a stream of a group that there is not: nothing can come of it. Whether it is allowed does
not matter, since a signature that is too old is refused before that is looked at.
"""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Final

from retentiond.stores.cloudwatch.endpoint import Endpoint
from retentiond.stores.cloudwatch.errors import error_of

_WINDOWS: Final = (timedelta(minutes=5), timedelta(minutes=15))
"""Those that AWS' documentation names (`signing`)."""
_IN_TIME: Final = timedelta(seconds=20)
_PAST: Final = timedelta(seconds=3)
"""How long ago the window closed of a request that must be refused: one that is lenient for longer is no fence."""


async def window_of(endpoint: Endpoint, head: str) -> timedelta | None:
    """For how long a signature is good; None where one is good for longer than any that is known, or for ever.

    Raises Unreachable where the service is busy, Unsent, Unanswered.
    """
    scratch = {"logGroupName": f"{head}.retentiond-probe-{uuid.uuid4().hex}"[:512], "logStreamName": "absent"}
    # Learns its clock, and that the credentials are good.
    await _refused(endpoint, scratch, timedelta())
    for window in _WINDOWS:
        if await _refused(endpoint, scratch, window + _PAST):
            return None if await _refused(endpoint, scratch, window - _IN_TIME) else window
    return None


async def _refused(endpoint: Endpoint, scratch: dict[str, str], ago: timedelta) -> bool:
    """Whether a request is refused that was signed so long ago by the server's clock."""
    answer = await endpoint.sent_as_of("DeleteLogStream", scratch, endpoint.now() - ago)
    trouble = answer.trouble
    if trouble is not None and (trouble.throttled or trouble.status >= 500 or not trouble.told):
        raise error_of(trouble, "trying out an expiry", "logs:DeleteLogStream")
    if not ago and trouble is not None and trouble.code not in _FINE and not trouble.denied:
        raise error_of(trouble, "trying out an expiry", "logs:DeleteLogStream")
    return trouble is not None and trouble.late


_FINE: Final = frozenset({"ResourceNotFoundException", "InvalidParameterException", "ValidationException"})
