"""Signatures of requests to CloudWatch Logs (Signature Version 4), whose date decides until when they are good.

The service knows no expiry in a request, as S3 does. What it has is the window of a signature: "in most cases, a
request must reach AWS within five minutes of the time stamp in the request, otherwise AWS denies the request"
(https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_aws-signing.html), while its list of common errors says
"more than 15 minutes after the date stamp" of RequestExpired. Both are of AWS at large, so the endpoint is asked
(`abilities`); then the date is set back so that the window closes at the expiry.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

_STAMP = "%Y%m%dT%H%M%SZ"
SERVICE = "logs"
_TARGET = "Logs_20140328."


def signed(
    credentials: ReadOnlyCredentials, region: str, url: str, action: str, body: bytes, at: datetime
) -> Mapping[str, str]:
    """The headers of a call of that action, signed as of an instant of the server's clock (UTC)."""
    auth = SigV4Auth(credentials, SERVICE, region)
    stamp = at.strftime(_STAMP)
    sent = {
        "Content-Type": "application/x-amz-json-1.1",
        "X-Amz-Date": stamp,
        "X-Amz-Target": _TARGET + action,
    }
    if credentials.token:
        sent["X-Amz-Security-Token"] = credentials.token
    request = AWSRequest(method="POST", url=url, data=body, headers=sent)
    # Set here and not by botocore, which takes it from the host's clock at the moment of signing.
    request.context["timestamp"] = stamp
    signature = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
    names = auth.signed_headers(auth.headers_to_sign(request))
    sent["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={auth.scope(request)}, SignedHeaders={names}, Signature={signature}"
    )
    return sent
