"""What CloudWatch Logs answers instead of what it was asked for, and what that comes to for us.

The service speaks JSON 1.1: an error has a code in `__type` (or the header `x-amzn-errortype`), most with status 400,
so the code decides. Messages are not passed on, for they may quote names of groups, which may hold accounts.
https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/CommonErrors.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import orjson

from retentiond.errors import Blind, Refused, RetentiondError, Unreachable


class Unsent(Unreachable):
    """CloudWatch Logs can't be reached: surely nothing was sent."""


class Unanswered(Unreachable):
    """A request was sent to CloudWatch Logs and its answer never came whole: it may take effect, now or later."""


ABSENT: Final = "ResourceNotFoundException"
_THROTTLED: Final = frozenset(
    {"ThrottlingException", "Throttling", "TooManyRequestsException", "RequestLimitExceeded", "RequestThrottled"}
)
_CONFLICT: Final = frozenset({"OperationAbortedException", "ConflictException"})
_DENIED: Final = frozenset({"AccessDeniedException", "AccessDenied", "NotAuthorized", "UnauthorizedOperation"})
_CREDENTIALS: Final = frozenset(
    {
        "ExpiredTokenException",
        "ExpiredToken",
        "IncompleteSignature",
        "IncompleteSignatureException",
        "InvalidClientTokenId",
        "InvalidSignatureException",
        "MissingAuthenticationToken",
        "MissingAuthenticationTokenException",
        "OptInRequired",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
    }
)
_OTHER_CLASS: Final = frozenset({"InvalidOperationException", "InvalidParameterException", "ValidationException"})


@dataclass(frozen=True, slots=True)
class Trouble:
    """An answer that is none: its status and code, and whether it says that the signature's time is over.

    `told`: the code is the service's own; else whoever stands in front of it may have answered in its place.
    """

    status: int
    code: str
    late: bool = False
    told: bool = True

    @property
    def throttled(self) -> bool:
        """Whether it was not done, and asking more slowly helps."""
        return self.code in _THROTTLED or self.status == 429

    @property
    def busy(self) -> bool:
        """Whether it was not done since somebody else changes the same just then."""
        return self.code in _CONFLICT

    @property
    def absent(self) -> bool:
        """Whether there is no such stream, or no such group."""
        return self.code == ABSENT

    @property
    def denied(self) -> bool:
        """Whether a right is missing."""
        return self.code in _DENIED

    @property
    def unfit(self) -> bool:
        """Whether it is not for what it was asked of, such as a group of another class."""
        return self.code in _OTHER_CLASS

    @property
    def may_follow(self) -> bool:
        """Whether what was asked for may have been done, or be done yet, after this answer."""
        return not self.throttled and self.status >= 500


def trouble_in(status: int, headers: Mapping[str, str], body: bytes) -> Trouble | None:
    """What is wrong with an answer, also with one of status 200 that the service did not make; None: nothing."""
    document = _document(body)
    if status == 200 and (document is not None or (not body and "x-amzn-requestid" in headers)):
        return None
    said = headers.get("x-amzn-errortype") or (document or {}).get("__type") or (document or {}).get("code")
    if not isinstance(said, str) or status == 200:
        # A page of a proxy, whatever its status, is none of the service's answers.
        return Trouble(status if status != 200 else 502, f"HTTP{status}", told=False)
    code = said.rpartition("#")[2].partition(":")[0]
    message = (document or {}).get("message") or (document or {}).get("Message") or ""
    late = code == "RequestExpired" or (
        code in {"InvalidSignatureException", "SignatureDoesNotMatch"} and "expired" in str(message).lower()
    )
    return Trouble(status, code, late=late)


def _document(body: bytes) -> Mapping[str, object] | None:
    try:
        found = orjson.loads(body) if body else None
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def error_of(trouble: Trouble, asked: str, right: str) -> RetentiondError:
    """The error of ours: `asked` is what was asked for ("listing log groups"), `right` the permission that it needs."""
    what = f"CloudWatch Logs: {asked}: {trouble.code}"
    if trouble.absent:
        return Blind(f"{what}: there is no such log group any more", remedy="nothing to do, if it was deleted")
    if trouble.late:
        return Unreachable(
            f"{what}: it came after its expiry, or the clocks of this host and the service differ",
            remedy="set the clocks right (NTP)",
        )
    if trouble.throttled or trouble.busy or trouble.status >= 500:
        return Unreachable(f"{what} (status {trouble.status})", remedy="it is tried again; the service has trouble")
    if trouble.denied:
        return Blind(
            f"{what}: it is not allowed; it needs {right}",
            remedy=f"grant {right} on the log groups to the target's credentials",
        )
    if trouble.code in _CREDENTIALS:
        return Unreachable(
            f"{what}: the credentials are not accepted", remedy="check the target's credentials, or renew them"
        )
    return Refused(f"{what} (status {trouble.status})", remedy="see the documentation of CloudWatch Logs for this code")


class Absent(Exception):
    """There is no such stream, or no such group, any more."""
