"""What AWS checks of requests to CloudWatch Logs and moto's server does not, as a proxy in front of it.

Signatures are reckoned anew and are good for a window around their date (`minutes`), values of retention are those that
AWS permits, pages have no more than 50 rows. `passed` has what got through, `refused` what did not and why; `clock_ahead`
seconds are added to this server's clock.
"""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from tests.services.s3_faults import Asked, Faulty

# https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutRetentionPolicy.html
DAYS = {1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653}


class Strict(Faulty):
    """See above; faults can be armed as well."""

    def __init__(self, server, minutes: float) -> None:
        super().__init__(server)
        self.minutes = minutes
        self.refused: list[tuple[Asked, str]] = []
        self.clock_ahead = 0.0

    async def _answer(self, asked, raw):
        why = self._wrong(asked, raw)
        if why is None:
            return await super()._answer(asked, raw)
        code, message, status = why
        self.refused.append((asked, code))
        body = json.dumps({"__type": code, "message": message}).encode()
        head = f"HTTP/1.1 {status}\r\nDate: {format_datetime(self._now(), usegmt=True)}\r\nContent-Length: {len(body)}"
        return f"{head}\r\n\r\n".encode() + body

    def _now(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.clock_ahead)

    def _wrong(self, asked: Asked, raw: bytes) -> tuple[str, str, str] | None:
        lines = raw.split(b"\r\n\r\n", 1)[0].decode().split("\r\n")[1:]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        at = datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if self._signature(asked, headers) not in headers["authorization"]:
            return "InvalidSignatureException", "The request signature we calculated does not match", "403 Forbidden"
        if at < self._now() - timedelta(minutes=self.minutes):
            return "InvalidSignatureException", f"Signature expired: {at} is now earlier than …", "403 Forbidden"
        if at > self._now() + timedelta(minutes=self.minutes):
            return "InvalidSignatureException", "Signature not yet current", "403 Forbidden"
        body = json.loads(asked.body)
        if asked.action == "PutRetentionPolicy" and body["retentionInDays"] not in DAYS:
            return "InvalidParameterException", "not one of the permitted values", "400 Bad Request"
        if asked.action.startswith("Describe") and body.get("limit", 1) > 50:
            return "InvalidParameterException", "limit", "400 Bad Request"
        if body.get("orderBy") == "LastEventTime" and "logStreamNamePrefix" in body:
            return "InvalidParameterException", "Cannot order by LastEventTime with a prefix", "400 Bad Request"
        return None

    def _signature(self, asked: Asked, headers: dict[str, str]) -> str:
        auth = SigV4Auth(ReadOnlyCredentials(self._server.key, self._server.secret, None), "logs", self._server.region)
        names = headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
        request = AWSRequest(
            method="POST",
            url=f"http://{headers['host']}/",
            data=asked.body,
            headers={name: headers[name] for name in names},
        )
        request.context["timestamp"] = headers["x-amz-date"]
        return auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)


@asynccontextmanager
async def strict(server, *, minutes: float = 5):
    """The proxy before that server; it ends with the block."""
    proxy = Strict(server, minutes)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
