"""What an answer of CloudWatch Logs comes to."""

import json

import pytest

from retentiond.errors import Blind, Refused, Unreachable
from retentiond.stores.cloudwatch.errors import error_of, trouble_in

REQUEST = {"x-amzn-requestid": "1"}


def said(code, message="", status=400, **headers):
    return trouble_in(status, headers, json.dumps({"__type": code, "message": message}).encode())


@pytest.mark.parametrize(("headers", "body"), [(REQUEST, b""), ({}, b"{}"), (REQUEST, b'{"logGroups": []}')])
def test_an_answer_of_the_service_is_one(headers, body):
    assert trouble_in(200, headers, body) is None


@pytest.mark.parametrize("body", [b"<html>Log in</html>", b"", b"[]", b"{", b'"text"'])
def test_what_the_service_did_not_say_is_no_success_and_may_follow(body):
    trouble = trouble_in(200, {}, body)
    assert trouble.may_follow
    assert not trouble.told


def test_the_code_stands_in_the_body_or_the_header_with_or_without_a_namespace():
    assert said("com.amazonaws.logs#ResourceNotFoundException").absent
    assert said("ResourceNotFoundException:http://internal.amazon.com/").absent
    header = {"x-amzn-errortype": "ThrottlingException"}
    assert trouble_in(400, header, b"").throttled


@pytest.mark.parametrize(
    ("code", "message", "late"),
    [
        ("RequestExpired", "", True),
        ("InvalidSignatureException", "Signature expired: 20260101T000000Z is now earlier than 2026…", True),
        ("InvalidSignatureException", "The request signature we calculated does not match", False),
        ("ExpiredTokenException", "The security token included in the request is expired", False),
        ("ResourceNotFoundException", "expired", False),
    ],
)
def test_a_signature_that_is_too_old_is_told_from_one_that_is_wrong(code, message, late):
    assert said(code, message, 403).late is late


@pytest.mark.parametrize(
    ("code", "status", "kind", "remedy"),
    [
        ("AccessDeniedException", 400, Blind, "grant logs:X"),
        ("ResourceNotFoundException", 400, Blind, ""),
        ("ThrottlingException", 400, Unreachable, "tried again"),
        ("OperationAbortedException", 400, Unreachable, "tried again"),
        ("ServiceUnavailableException", 500, Unreachable, "tried again"),
        ("UnrecognizedClientException", 400, Unreachable, "credentials"),
        ("RequestExpired", 400, Unreachable, "clocks"),
        ("InvalidParameterException", 400, Refused, "documentation"),
    ],
)
def test_each_is_an_error_of_ours_with_a_remedy_and_without_the_message(code, status, kind, remedy):
    error = error_of(said(code, "/app/account-4711", status), "listing", "logs:X")
    assert type(error) is kind
    assert remedy in (error.remedy or "")
    assert "4711" not in error.message + (error.remedy or "")


def test_what_is_throttled_was_not_done_and_what_failed_may_have_been():
    assert not said("ThrottlingException", status=400).may_follow
    assert not trouble_in(429, {}, b"").may_follow
    assert said("InternalFailure", status=500).may_follow
    assert trouble_in(504, {}, b"<html>waited enough</html>").may_follow
    assert not said("AccessDeniedException").may_follow
