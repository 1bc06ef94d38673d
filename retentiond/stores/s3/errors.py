"""What S3 servers answer instead of what they were asked for, and what that comes to for us.

An answer's code decides, not its status alone: a 403 is a missing right, a lock, a clock that is off, or a request that
came after its expiry. Messages of servers are not passed on, for they may quote keys; codes are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from lxml import etree

from retentiond.errors import Blind, Refused, RetentiondError, Unreachable
from retentiond.stores.s3.documents import Malformed, child, name_of, parse


class Unsent(Unreachable):
    """The S3 endpoint can't be reached: surely nothing was sent."""


class Unanswered(Unreachable):
    """A request was sent to the S3 endpoint and its answer never came whole: it may take effect, now or later."""


THROTTLED = frozenset(
    {
        "SlowDown",
        "ServiceUnavailable",
        "Throttling",
        "ThrottlingException",
        "TooManyRequests",
        "RequestLimitExceeded",
        "BandwidthLimitExceeded",
        "SlowDownRead",
        "SlowDownWrite",
    }
)
"""The server has too much to do, and has not done what was asked."""
BROKEN = frozenset(
    {"InternalError", "OperationAborted", "RequestTimeout", "XMinioServerNotInitialized", "InternalFailure"}
)
"""The server failed in the middle: what was asked for may have been done."""
ABSENT = frozenset({"NoSuchKey", "NoSuchVersion", "NoSuchUpload"})
OTHER = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
"""There is an object of that key, but not the one that was meant."""
DENIED = frozenset({"AccessDenied", "AllAccessDisabled", "Forbidden", "ObjectLocked"})
"""A right is missing, or Object Lock keeps it."""
UNKNOWN_THERE = frozenset({"NotImplemented", "MethodNotAllowed", "UnsupportedOperation"})
"""The endpoint has no such operation."""
TOO_SKEWED = "RequestTimeTooSkewed"
LATE = frozenset({"RequestExpired", TOO_SKEWED, "ExpiredPresignedRequest"})
_CREDENTIALS = {
    "ExpiredToken": "the session token has expired",
    "ExpiredTokenException": "the session token has expired",
    "TokenRefreshRequired": "the session token has expired",
    "InvalidToken": "the session token is not valid",
    "InvalidAccessKeyId": "the access key id is not known there",
    "SignatureDoesNotMatch": "the secret access key is another one than the server's",
    "AuthFailure": "the credentials are not accepted",
    "InvalidSecurity": "the credentials are not accepted",
    "InvalidClientTokenId": "the credentials are not accepted",
}
_ELSEWHERE = frozenset(
    {
        "PermanentRedirect",
        "AuthorizationHeaderMalformed",
        "AuthorizationQueryParametersError",
        "IllegalLocationConstraintException",
        "TemporaryRedirect",
        "Redirect",
        "IncorrectEndpoint",
    }
)


@dataclass(frozen=True, slots=True)
class Trouble:
    """An answer that is none: the status, S3's code (or one made of the status), and where the bucket is, if told.

    `told`: the code is S3's own; else whoever stands in front of the server may have answered in its place.
    """

    status: int
    code: str
    region: str | None = None
    told: bool = True

    @property
    def throttled(self) -> bool:
        """Whether asking more slowly helps."""
        return self.code in THROTTLED or self.status in {429, 503}

    @property
    def broken(self) -> bool:
        """Whether it may have been done all the same, and asking again may help."""
        return not self.throttled and self.code not in UNKNOWN_THERE and (self.code in BROKEN or self.status >= 500)

    @property
    def may_follow(self) -> bool:
        """Whether what was asked for may be carried out yet, after this answer.

        A gateway that has waited long enough says 502, 503 or 504 (or 408 on a connection that was idle) of a request
        that the server behind it still has; and of what failed in the middle nobody knows how far it goes on.
        """
        return self.broken or (self.status >= 500 and not self.told)


def trouble_in(status: int, headers: Mapping[str, str], body: bytes) -> Trouble | None:
    """What is wrong with an answer, also with one of status 200 that holds an error; None: nothing."""
    if status < 300 and b"<Error" not in body[:400]:
        return None
    region = headers.get("x-amz-bucket-region")
    try:
        root = parse(body) if body else None
    except Malformed:
        root = None
    if root is None or name_of(root) != "Error":
        return None if status < 300 else Trouble(status, _by_status(status), region, told=False)
    code = child(root, "Code")
    return Trouble(status, code or _by_status(status), child(root, "Region") or region, told=code is not None)


def code_of(error: etree._Element) -> str:
    """The code of an `<Error>` element."""
    return child(error, "Code") or "Unknown"


def _by_status(status: int) -> str:
    names = {
        301: "PermanentRedirect",
        307: "TemporaryRedirect",
        401: "AuthFailure",
        403: "AccessDenied",
        404: "NotFound",
        405: "MethodNotAllowed",
        408: "RequestTimeout",
        409: "OperationAborted",
        412: "PreconditionFailed",
        429: "TooManyRequests",
        500: "InternalError",
        501: "NotImplemented",
        503: "ServiceUnavailable",
    }
    return names.get(status, f"HTTP{status}")


def error_of(trouble: Trouble, bucket: str, asked: str, right: str = "") -> RetentiondError:
    """The error of ours: `asked` is what was asked for ("listing objects"), `right` the permission that it needs."""
    code = trouble.code
    what = f"bucket {bucket}: {asked}: {code}"
    if code == "NoSuchBucket":
        return Blind(
            f"bucket {bucket}: there is no such bucket at this endpoint",
            remedy="check bucket, endpoint_url and region, or create the bucket",
        )
    if trouble.status == 404 and code in {"NotFound", "404"}:
        return Blind(
            f"{what}: what answers there is no S3, or not at this path",
            remedy="check endpoint_url, with its port and path, and addressing",
        )
    if code in _CREDENTIALS:
        return Unreachable(f"{what}: {_CREDENTIALS[code]}", remedy="check the target's credentials, or renew them")
    if code in _ELSEWHERE:
        there = f"it is in {trouble.region}" if trouble.region else "it is in another region"
        return Blind(f"{what}: {there}", remedy=f"set the target's region to {trouble.region or 'the bucket’s own'}")
    if code in LATE:
        return Unreachable(
            f"{what}: the clocks of this host and the server differ, or it came after its expiry",
            remedy="set the clocks right (NTP)",
        )
    if code in UNKNOWN_THERE:
        return Refused(f"{what}: this endpoint can't do that", remedy="see `retentiond check` for what it can")
    if trouble.throttled or trouble.broken:
        return Unreachable(f"{what} (status {trouble.status})", remedy="it is tried again; the endpoint has trouble")
    if code in DENIED:
        needs = f"; it needs {right}" if right else ""
        return Blind(
            f"{what}: it is not allowed{needs}",
            remedy=f"grant {right or 'the permission'} on the bucket to the target's credentials",
        )
    return Refused(f"{what} (status {trouble.status})", remedy="see the documentation of the endpoint for this code")
