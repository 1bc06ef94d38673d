"""Templates of keys: what they tell, that they tell it in one way only, and what is refused."""

import re
import string
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retentiond.stores.config import Unfit
from retentiond.stores.rulings import Untold
from retentiond.stores.template import Template

# What is claimed is no matter of time, and a busy machine is slow.
UNHURRIED = settings(deadline=None)


def at(*moment):
    return datetime(*moment, tzinfo=UTC)


def told(template, key, **more):
    parts = Template.parse(template, **more).match(key)
    return None if parts is None else dict(parts.fields)


def test_a_key_tells_its_account_tier_and_date():
    parts = Template.parse("b/{account}/{tier}/{date:%Y/%m/%d}/{file:path}").match("b/a1/pro/2026/02/28/x/y.log")
    assert (parts.account, parts.tier, parts.until) == ("a1", "pro", at(2026, 3, 1))
    assert parts.fields["file"] == "x/y.log"


@pytest.mark.parametrize(
    ("form", "text", "until"),
    [
        ("%Y", "2026", at(2027, 1, 1)),
        ("%Y-%m", "2026-12", at(2027, 1, 1)),
        ("%Y%m", "202601", at(2026, 2, 1)),
        ("%Y/%m/%d", "2024/02/29", at(2024, 3, 1)),
        ("%d.%m.%Y", "31.12.2026", at(2027, 1, 1)),
        ("year=%Y/month=%m/day=%d", "year=2026/month=05/day=17", at(2026, 5, 18)),
        ("%Y-%j", "2024-366", at(2025, 1, 1)),
        ("%Y/%m/%d/%H", "2026/05/17/23", at(2026, 5, 18)),
        ("%Y%m%dT%H%M", "20260517T0959", at(2026, 5, 17, 10)),
        ("%Y-%m-%dT%H:%M:%S", "2026-05-17T09:59:58", at(2026, 5, 17, 9, 59, 59)),
        ("100%%/%Y", "100%/2026", at(2027, 1, 1)),
    ],
)
def test_a_date_counts_from_the_end_of_what_it_names(form, text, until):
    assert Template.parse(f"{{date:{form}}}/{{f:path}}").match(f"{text}/x").until == until


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("%Y/%m/%d", "2026/02/30"),
        ("%Y/%m/%d", "2026/2/3"),
        ("%Y/%m/%d", "2026/13/01"),
        ("%Y/%m/%d", "0000/01/01"),
        ("%Y/%m/%d", "9999/12/31"),
        ("%Y", "9999"),
        ("%Y-%j", "2026-366"),
        ("%Y-%j", "2026-000"),
        ("%Y/%m/%d/%H", "2026/05/17/24"),
        ("%Y/%m/%d", "٢٠٢٦/٠٥/١٧"),
    ],
)
def test_a_date_that_there_is_not_fits_no_template(form, text):
    template = Template.parse(f"{{date:{form}}}/{{f:path}}")
    assert template.match(f"{text}/x") is None
    assert template.columns([f"{text}/x"]).accounts == [Untold.KEY]


@pytest.mark.parametrize(
    ("template", "key"),
    [
        ("{account}/{file:path}", "a"),
        ("{account}/{file:path}", "a/"),
        ("{account}/{file:path}", "/x"),
        ("{account}/{file:path}", "//x"),
        ("{account}/{file:path}", ""),
        ("{account}", "a/b"),
        ("{account}-{job}", "a-b-c/d"),
        ("{account}-{job}-x", "a-b-c-x"),
        ("b/{account}/x", "b/a/x\n"),
        ("b/{account}/x", "B/a/x"),
        ("{file:path}.zip", ".zip"),
        ("{file:path}.zip", "azip"),
    ],
)
def test_a_key_that_does_not_fit_tells_nothing(template, key):
    assert told(template, key) is None


@pytest.mark.parametrize(
    ("template", "key", "fields"),
    [
        ("{account}/{file:path}", "a//x", {"account": "a", "file": "/x"}),
        ("{account}/{file:path}", "a b+é%20/x\ny/", {"account": "a b+é%20", "file": "x\ny/"}),
        ("{{{account}}}/{f:path}", "{a}/b", {"account": "a", "f": "b"}),
        ("{a}-{b}", "x-y", {"a": "x", "b": "y"}),
        ("{a}-{b}", "x-y-z", {"a": "x", "b": "y-z"}),
        ("{account}--{job}", "a---b", {"account": "a", "job": "-b"}),
        ("{file:path}.zip", "a.zip.zip", {"file": "a.zip"}),
        ("x.{account}.*", "x.a.*", {"account": "a"}),
    ],
)
def test_keys_of_every_kind_are_read_to_the_letter(template, key, fields):
    assert told(template, key) == fields


def test_a_prefix_is_no_pattern_and_the_head_begins_every_key():
    template = Template.parse("t-{account}/{f:path}", prefix="a.b/")
    assert template.head == "a.b/t-"
    assert template.match("a.b/t-x/y").account == "x"
    assert template.match("aXb/t-x/y") is None
    assert Template.parse("{account}").head == ""


@pytest.mark.parametrize(
    ("template", "message", "position"),
    [
        ("{account}{job}", "nothing stands between account and job", 9),
        ("{date:%Y}{job}", "nothing stands between date and job", 9),
        ("{a:path}/{b}", "after the path a comes the field b", 9),
        ("{a:path}/x/{date:%Y}", "after the path a comes the field date", 11),
        ("{a}/{a}", "the field a stands twice", 4),
        ("{a}/{b", "a { that nothing closes", 4),
        ("{a}/b}", "a } that closes nothing", 5),
        ("{}/x", "{} is no field", 0),
        ("{A}", "{A} is no field", 0),
        ("{a b}", "{a b} is no field", 0),
        ("{a:int}", "there is no kind of field 'int'", 0),
        ("{account:path}", "account is one part of the key", 0),
        ("x/{tier:path}", "tier is one part of the key", 2),
        ("{date}", "a date needs a form", 1),
        ("{date:%y/%m/%d}", "a date can't be read by %y", 6),
        ("x{date:%Y/%b/%d}", "a date can't be read by %b", 10),
        ("{date:%Y/%-d}", "a date can't be read by %-", 9),
        ("{date:%Y%}", "a date can't be read by %", 8),
        ("{date:%Y%Y}", "%Y stands twice", 8),
        ("{date:%m/%d}", "names no day", 6),
        ("{date:%Y/%d}", "names no day", 6),
        ("{date:%Y/%m/%d/%M}", "names no day", 6),
        ("{date:%Y/%m/%j}", "names no day", 6),
        ("{date:day}", "names no day", 6),
    ],
)
def test_a_template_that_can_not_be_read_or_reads_in_two_ways_is_refused_with_the_position(template, message, position):
    with pytest.raises(Unfit) as caught:
        Template.parse(template)
    assert message in caught.value.message
    assert f"(at position {position})" in caught.value.message
    assert caught.value.remedy


def test_a_template_without_a_field_is_refused():
    for text in ("", "a/b", "{{a}}"):
        with pytest.raises(Unfit, match="has no field"):
            Template.parse(text)


# --- Against a reading that tries everything ---

FEW = "ab-./{"
LITERALS = st.text(FEW, min_size=1, max_size=3)
FORMS = {"%Y": r"\d{4}", "%Y%m": r"\d{6}", "%Y-%m-%d": r"\d{4}-\d\d-\d\d"}


@st.composite
def shapes(draw):
    """A template as (literal, None) and (name, kind), such as is not refused."""
    shape, names = [], iter(["account", "tier", "x", "y", "z"])
    count = draw(st.integers(1, 4))
    date_at = draw(st.one_of(st.none(), st.integers(0, count - 1)))
    path = draw(st.booleans())
    for n in range(count):
        if n or draw(st.booleans()):
            shape.append((draw(LITERALS), None))
        if n == date_at:
            shape.append(("date", draw(st.sampled_from(sorted(FORMS)))))
        elif path and n == count - 1:
            shape.append(("rest", "path"))
        else:
            shape.append((next(names), ""))
    if draw(st.booleans()):
        shape.append((draw(LITERALS), None))
    return shape


def text_of(shape):
    return "".join(
        name.replace("{", "{{").replace("}", "}}") if kind is None else f"{{{name}:{kind}}}" if kind else f"{{{name}}}"
        for name, kind in shape
    )


def readings(shape, key):
    """Every way in which the pieces, each as the documentation says it, can make up the key."""
    if not shape:
        return [] if key else [{}]
    (name, kind), rest = shape[0], shape[1:]
    if kind is None:
        return readings(rest, key[len(name) :]) if key.startswith(name) else []
    found = []
    for end in range(1, len(key) + 1):
        if allowed(kind, key[:end], rest[0][0] if rest else None):
            found += [{name: key[:end], **others} for others in readings(rest, key[end:])]
    return found


def allowed(kind, value, following):
    if kind == "path":
        return True
    if kind:
        return re.fullmatch(FORMS[kind], value, re.ASCII) is not None
    return "/" not in value and (following is None or following[0] not in value)


def values(shape):
    def of(name, kind, following):
        if kind == "path":
            return st.text(FEW + string.digits, min_size=1, max_size=6)
        if kind:
            return st.datetimes(at(1, 1, 1).replace(tzinfo=None), datetime(9998, 1, 1)).map(
                lambda moment: f"{moment.year:04}" + moment.strftime(kind[2:])
            )
        banned = {"/", following[0] if following else "/"}
        return st.text([each for each in FEW + "é\n" if each not in banned], min_size=1, max_size=4)

    after = [name for name, _ in shape[1:]] + [None]
    return st.fixed_dictionaries(
        {
            name: of(name, kind, following)
            for (name, kind), following in zip(shape, after, strict=True)
            if kind is not None
        }
    )


@UNHURRIED
@given(st.data())
def test_what_is_written_into_a_template_is_read_out_of_it_again(data):
    shape = data.draw(shapes())
    given_values = data.draw(values(shape))
    key = "".join(name if kind is None else given_values[name] for name, kind in shape)
    assert dict(Template.parse(text_of(shape)).match(key).fields) == given_values


@settings(UNHURRIED, max_examples=300)
@given(st.data())
def test_no_key_can_be_read_in_two_ways_and_columns_say_what_match_says(data):
    shape = data.draw(shapes())
    template = Template.parse(text_of(shape), prefix="p/")
    near = values(shape).map(lambda given: "".join(n if kind is None else given[n] for n, kind in shape))
    keys = data.draw(st.lists(st.one_of(st.text(FEW + "20-", max_size=9), near), min_size=1, max_size=6))
    columns = template.columns([f"p/{key}" for key in keys], account="mine")
    for n, key in enumerate(keys):
        ways = readings(shape, key)
        assert len(ways) <= 1
        parts = template.match(f"p/{key}")
        if parts is not None:
            assert dict(parts.fields) == ways[0]
            account = parts.account if "account" in template.names else "mine"
            assert columns.accounts[n] == account
            assert (columns.tiers[n] if columns.tiers else None) == parts.tier
            assert (columns.until[n] if columns.until else None) == parts.until
        else:
            assert columns.accounts[n] is Untold.KEY
            # Only a date that there is not makes the difference.
            assert not ways or "date" in ways[0]


def test_a_date_is_over_when_the_next_one_begins():
    template = Template.parse("{date:%Y-%m-%d}")
    day = at(2023, 12, 30)
    for _ in range(800):
        assert template.match(day.strftime("%Y-%m-%d")).until == day + timedelta(days=1)
        day += timedelta(days=1)
