"""Signatures are botocore's own, but for the time in them."""

from datetime import UTC, datetime, timedelta
from unittest.mock import patch
from urllib.parse import parse_qsl, urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials

from retentiond.stores.clock import Expiry
from retentiond.stores.s3.signing import Fence, Signer, encoded

AT = datetime(2026, 11, 30, 12, 0, 7, 250_000, tzinfo=UTC)
URL = "https://b.s3.eu-west-1.amazonaws.com/a%20b//%2Bc"
QUERY = [("versionId", "a/b+c="), ("x", "")]
TOKENS = pytest.mark.parametrize("token", [None, "a/token=="])


def signer(token):
    return Signer(ReadOnlyCredentials("id", "secret", token), "eu-west-1")


@TOKENS
def test_a_signature_by_header_is_the_one_that_botocore_makes_then(token):
    headers = {"Content-MD5": "abc=="}
    ours = signer(token).by_header("POST", URL, QUERY, headers, b"body", AT)
    theirs = AWSRequest(method="POST", url=ours.url, headers=dict(headers), data=b"body")
    with patch("botocore.auth.get_current_datetime", return_value=AT.replace(tzinfo=None)):
        S3SigV4Auth(ReadOnlyCredentials("id", "secret", token), "s3", "eu-west-1").add_auth(theirs)
    assert ours.headers["Authorization"] == theirs.headers["Authorization"]
    assert ours.headers["X-Amz-Date"] == "20261130T120007Z"


@TOKENS
def test_a_signature_by_query_is_the_one_that_botocore_makes_then(token):
    headers = {"Content-MD5": "abc=="}
    expiry = Expiry(AT, AT + timedelta(seconds=25))
    ours = signer(token).by_query("POST", URL, [("delete", "")], headers, expiry)
    theirs = AWSRequest(method="POST", url=f"{URL}?delete=", headers=dict(headers))
    with patch("botocore.auth.get_current_datetime", return_value=AT.replace(tzinfo=None)):
        S3SigV4QueryAuth(ReadOnlyCredentials("id", "secret", token), "s3", "eu-west-1", expires=25).add_auth(theirs)
    assert sorted(parse_qsl(urlsplit(ours.url).query)) == sorted(parse_qsl(urlsplit(theirs.url).query))
    assert "content-md5" in ours.url  # what stands for the payload is signed


@pytest.mark.parametrize("microseconds", [0, 1, 500_000, 999_999])
def test_no_signature_outlives_its_expiry_by_any_part_of_a_second(microseconds):
    issued = AT.replace(microsecond=microseconds)
    for life in (1.0, 24.2, 24.999):
        expiry = Expiry(issued, issued + timedelta(seconds=life))
        by_query = dict(parse_qsl(urlsplit(signer(None).by_query("POST", URL, [], {}, expiry).url).query))
        date = datetime.strptime(by_query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        assert date <= issued
        assert date + timedelta(seconds=int(by_query["X-Amz-Expires"])) <= expiry.expires_at
        by_date = signer(None).until(Fence.DATE, "POST", URL, [], {}, b"", expiry)
        date = datetime.strptime(by_date.headers["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        assert date + timedelta(minutes=15) <= expiry.expires_at


def test_a_request_signed_again_later_has_the_same_expiry():
    expiry = Expiry(AT, AT + timedelta(seconds=25))
    first, second = (signer(None).until(Fence.QUERY, "POST", URL, [], {}, b"x", expiry) for _ in range(2))
    assert first == second


def test_every_byte_of_a_key_is_encoded_also_one_that_is_no_utf_8():
    assert encoded("a b+c%20/é~\n", safe="/") == "a%20b%2Bc%2520/%C3%A9~%0A"
    assert encoded(b"\xff".decode(errors="surrogateescape")) == "%FF"
