"""What servers answer instead, and what we say of it."""

import pytest

from retentiond.errors import Blind, Refused, Unreachable
from retentiond.stores.s3.errors import Trouble, error_of, trouble_in


def xml(code, more=""):
    return f"<?xml version='1.0'?><Error><Code>{code}</Code>{more}<Message>secret-key.txt</Message></Error>".encode()


CASES = [
    (404, "NotFound", Blind, "no S3", "endpoint_url"),
    (404, "NoSuchBucket", Blind, "there is no such bucket", "endpoint_url"),
    (403, "AccessDenied", Blind, "it needs s3:ListBucket", "grant s3:ListBucket"),
    (403, "InvalidAccessKeyId", Unreachable, "access key id is not known", "credentials"),
    (403, "SignatureDoesNotMatch", Unreachable, "secret access key", "credentials"),
    (400, "ExpiredToken", Unreachable, "session token has expired", "renew"),
    (403, "RequestTimeTooSkewed", Unreachable, "clocks", "NTP"),
    (503, "SlowDown", Unreachable, "SlowDown", "tried again"),
    (500, "InternalError", Unreachable, "InternalError", "tried again"),
    (501, "NotImplemented", Refused, "can't do that", "check"),
    (400, "InvalidArgument", Refused, "InvalidArgument", "documentation"),
]


@pytest.mark.parametrize(("status", "code", "kind", "words", "remedy"), CASES)
def test_each_code_has_its_error_and_remedy(status, code, kind, words, remedy):
    trouble = trouble_in(status, {}, xml(code))
    error = error_of(trouble, "b", "listing objects", "s3:ListBucket")
    assert type(error) is kind
    assert words in error.message
    assert remedy in error.remedy
    assert "secret-key" not in error.message


@pytest.mark.parametrize("code", ["PermanentRedirect", "AuthorizationHeaderMalformed"])
def test_a_bucket_elsewhere_is_said_to_be_where_the_server_says(code):
    by_body = trouble_in(400, {}, xml(code, "<Region>eu-west-1</Region>"))
    by_header = trouble_in(301, {"x-amz-bucket-region": "eu-west-1"}, b"")
    for trouble in (by_body, by_header):
        error = error_of(trouble, "b", "listing objects")
        assert isinstance(error, Blind)
        assert "eu-west-1" in error.remedy


def test_an_error_in_a_success_is_an_error():
    assert trouble_in(200, {}, xml("InternalError")) == Trouble(200, "InternalError")
    assert trouble_in(200, {}, b"<DeleteResult><Error><Key>k</Key><Code>X</Code></Error></DeleteResult>") is None
    assert trouble_in(204, {}, b"") is None


@pytest.mark.parametrize(("status", "code"), [(403, "AccessDenied"), (503, "ServiceUnavailable"), (502, "HTTP502")])
def test_an_answer_without_a_code_has_that_of_its_status(status, code):
    for body in (b"", b"<html>bad gateway</html>", b"no xml"):
        assert trouble_in(status, {}, body).code == code
    assert Trouble(502, "HTTP502").broken


def test_what_was_not_done_is_told_from_what_may_have_been_done():
    assert Trouble(503, "SlowDown").throttled
    assert not Trouble(503, "SlowDown").broken
    assert Trouble(500, "InternalError").broken
    assert not Trouble(501, "NotImplemented").broken
    assert not Trouble(403, "AccessDenied").broken
