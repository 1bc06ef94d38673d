"""The expression as a signal, asked of a fake Prometheus."""

import pytest

from retentiond.errors import Blind, Unreachable
from retentiond.sweep.promql import ask
from retentiond.sweep.spec import Query
from tests.services.prometheus import fake_prometheus


@pytest.fixture
async def fake():
    async with fake_prometheus() as found:
        yield found


def query(fake, token=None):
    return Query(fake.url, "max(node_load1)", 4, token)


async def test_the_largest_sample_counts_and_a_scalar_is_one(fake):
    fake.value = "1.5 3.25 2"
    assert await ask(query(fake)) == 3.25
    fake.kind, fake.value = "scalar", "+Inf"
    assert await ask(query(fake)) == float("inf")
    assert fake.asked[0] == ("max(node_load1)", None)


async def test_an_answer_that_comes_in_parts_is_read_to_its_end(fake):
    fake.body = (
        '{"status": "success", "data": {"resultType": "vector", "result": [{"value": [1, "1"]}, {"value": [1, "7"]}]}}'
    )
    fake.chunks = 5
    assert await ask(query(fake)) == 7


async def test_an_answer_without_an_end_is_none(fake):
    fake.body, fake.chunks = " " * 1_100_000, 4
    with pytest.raises(Unreachable, match="more than 1000000 bytes"):
        await ask(query(fake))


async def test_the_token_goes_as_a_bearer_and_is_in_no_error(fake):
    fake.status = 401
    with pytest.raises(Unreachable) as caught:
        await ask(query(fake, "q9Z7Kx"))
    assert fake.asked == [("max(node_load1)", "Bearer q9Z7Kx")]
    assert "q9Z" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"value": None}, "no sample"),
        ({"value": "NaN"}, "NaN"),
        ({"value": "1 NaN"}, "NaN"),
        ({"status": 401}, "401"),
        ({"status": 400, "body": "a proxy"}, "400"),
        ({"status": 503, "body": "<html>upstream"}, "503"),
        ({"body": "{"}, "no JSON"),
        ({"body": "[]"}, "200"),
        ({"body": '{"status": "success"}'}, "None"),
        (
            {"body": '{"status": "success", "data": {"resultType": "vector", "result": [{"value": [1, "much"]}]}}'},
            "number",
        ),
        ({"body": '{"status": "success", "data": {"resultType": "vector", "result": [7]}}'}, "number"),
        ({"status": 302, "body": ""}, "302"),
    ],
)
async def test_whatever_is_no_number_is_no_answer(fake, answer, said):
    for name, value in answer.items():
        setattr(fake, name, value)
    with pytest.raises(Unreachable) as caught:
        await ask(query(fake))
    assert said in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ({"status": 400}, "refuses the expression: parse error"),
        ({"status": 422}, "refuses the expression"),
        ({"kind": "matrix"}, "matrix"),
    ],
)
async def test_an_expression_that_is_refused_is_told_from_a_prometheus_that_does_not_answer(fake, answer, said):
    for name, value in answer.items():
        setattr(fake, name, value)
    with pytest.raises(Blind) as caught:
        await ask(query(fake))
    assert said in caught.value.message
    assert "expression" in caught.value.remedy


async def test_nobody_there_is_no_answer():
    with pytest.raises(Unreachable, match="does not answer"):
        await ask(Query("http://127.0.0.1:1", "e", 0))
