"""Signatures of S3 requests (Signature Version 4), with an expiry that the server enforces for what destroys.

The arithmetic is botocore's; its own `add_auth` takes the time from the host's clock at the moment of signing, which is
just what must not enter an expiry (4-safety, "the server's clock is the fence"). Two ways of an absolute expiry:

- `query`: X-Amz-Date and X-Amz-Expires in the query string. The payload is not signed then; Content-MD5 or a checksum
  among the signed headers stands for it.
- `date`: a signature by header is good for 15 minutes around its date; the date is set back so that they end at the
  expiry. For servers that know no query signature for a POST.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from urllib.parse import quote

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from retentiond.stores.clock import Expiry, floor_second

_STAMP = "%Y%m%dT%H%M%SZ"
_SKEW = timedelta(minutes=15)
"""How far a header signature's date may be off, by AWS' documentation; Ceph and MinIO have the same."""


class Fence(StrEnum):
    """How the server is made to refuse a request after its expiry."""

    QUERY = "query"
    DATE = "date"
    NONE = "none"
    """It is not: what was sent may be carried out whenever it arrives."""


@dataclass(frozen=True, slots=True)
class Signed:
    """A request as it goes out."""

    url: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs for one region by one set of credentials."""

    credentials: ReadOnlyCredentials
    region: str

    def by_header(
        self,
        method: str,
        url: str,
        query: Sequence[tuple[str, str]],
        headers: Mapping[str, str],
        body: bytes,
        at: datetime,
    ) -> Signed:
        """Signed by header at an instant of the server's clock (UTC); `url` has no query, and all in it is encoded."""
        auth = S3SigV4Auth(self.credentials, "s3", self.region)
        stamp = at.strftime(_STAMP)
        sent = {**headers, "X-Amz-Date": stamp, "X-Amz-Content-SHA256": sha256(body).hexdigest()}
        if self.credentials.token:
            sent["X-Amz-Security-Token"] = self.credentials.token
        full = with_query(url, query)
        request = AWSRequest(method=method, url=full, headers=sent)
        request.context["timestamp"] = stamp
        signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
        names = auth.signed_headers(auth.headers_to_sign(request))
        sent["Authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={auth.scope(request)}, SignedHeaders={names}, Signature={signature}"
        )
        return Signed(full, sent)

    def by_query(
        self, method: str, url: str, query: Sequence[tuple[str, str]], headers: Mapping[str, str], expiry: Expiry
    ) -> Signed:
        """Signed by query string, good until the expiry."""
        auth = S3SigV4QueryAuth(self.credentials, "s3", self.region)
        stamp = floor_second(expiry.issued_at).strftime(_STAMP)
        request = AWSRequest(method=method, url=url, headers=dict(headers))
        request.context["timestamp"] = stamp
        said = [
            *query,
            ("X-Amz-Algorithm", "AWS4-HMAC-SHA256"),
            ("X-Amz-Credential", auth.scope(request)),
            ("X-Amz-Date", stamp),
            ("X-Amz-Expires", str(expiry.seconds)),
            ("X-Amz-SignedHeaders", auth.signed_headers(auth.headers_to_sign(request))),
        ]
        if self.credentials.token:
            said.append(("X-Amz-Security-Token", self.credentials.token))
        request.url = with_query(url, said)
        signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
        return Signed(f"{request.url}&X-Amz-Signature={signature}", headers)

    def until(
        self,
        fence: Fence,
        method: str,
        url: str,
        query: Sequence[tuple[str, str]],
        headers: Mapping[str, str],
        body: bytes,
        expiry: Expiry,
    ) -> Signed:
        """Signed so that the server itself refuses it after the expiry, as far as the fence goes."""
        if fence is Fence.QUERY:
            return self.by_query(method, url, query, headers, expiry)
        at = floor_second(expiry.expires_at) - _SKEW if fence is Fence.DATE else floor_second(expiry.issued_at)
        return self.by_header(method, url, query, headers, body, at)


def with_query(url: str, query: Sequence[tuple[str, str]]) -> str:
    """The address with a query string in the encoding that signatures are reckoned by."""
    if not query:
        return url
    return f"{url}?{'&'.join(f'{name}={encoded(value)}' for name, value in query)}"


def encoded(text: str, safe: str = "") -> str:
    """Percent-encoded as signatures want it: all bytes but A-Z a-z 0-9 - . _ ~ (and `safe`)."""
    return quote(text, safe=safe + "-._~", errors="surrogateescape")
