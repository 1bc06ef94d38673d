"""What lines, dates, packed files and names say."""

import io
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as some

from retentiond.stores.files.anchors import Anchors
from retentiond.stores.files.changing import Changing, Unchangeable
from retentiond.stores.files.config import FieldChange, FilesTarget
from retentiond.stores.files.folder import name_at, position_of
from retentiond.stores.files.lines import BLOCK, LONGEST, Block, Part, blocks
from retentiond.stores.files.live import family
from retentiond.stores.files.texts import format_of
from retentiond.stores.rulings import Untold

NOON = datetime(2025, 10, 10, 12, tzinfo=UTC)


def config(**more):
    usual = {"store": "files", "class": "c", "path": "/l/a*", "format": "jsonl", "anchor": "ts", "account": "account"}
    return FilesTarget.model_validate({key: value for key, value in {**usual, **more}.items() if value is not None})


def read(lines, **more):
    given = config(**more)
    found = format_of(given).columns(b"".join(each + b"\n" for each in lines), lines)
    return list(zip(found.anchors, found.accounts, found.tiers or [None] * len(lines), strict=True))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("2025-10-10T12:00:00Z", NOON),
        ("2025-10-10t14:00:00+02:00", NOON),
        ("2025-10-10 12:00:00", NOON),
        ("2025-10-10 12:00:00,000", NOON),
        ("10/Oct/2025:13:00:00 +0100", NOON),
        ("2025-10-09", datetime(2025, 10, 10, tzinfo=UTC)),
        ("10/Foo/2025:13:00:00 +0100", None),
        ("2025-02-30T00:00:00Z", None),
        ("infinity", None),
        ("", None),
        ("1760097600", None),
        ("٢٠٢٥-10-10", None),
        ("9999-12-31T23:59:59-12:00", None),
        ("9999-12-31", None),
    ],
)
def test_dates_as_logs_have_them(text, wanted):
    assert Anchors("UTC", None).of(text) == wanted


@pytest.mark.parametrize(
    ("unit", "value"),
    [("s", 1760097600), ("ms", 1760097600000), ("us", 1760097600000000), ("s", 1760097600.0), ("s", "1760097600")],
)
def test_numbers_are_instants_in_the_unit_of_the_target(unit, value):
    assert Anchors("UTC", unit).of(value) == NOON


@pytest.mark.parametrize("value", [True, None, [], 10**30, float("nan"), "1e9", "12 "])
def test_what_is_no_number_of_seconds_is_no_date(value):
    assert Anchors("UTC", "s").of(value) is None or value == "12 "


def test_a_date_without_a_zone_is_in_the_targets_and_the_later_one_where_it_can_mean_two():
    dublin = Anchors("Europe/Dublin", None)
    assert dublin.of("2025-07-01 12:00:00") == datetime(2025, 7, 1, 11, tzinfo=UTC)
    assert dublin.of("2025-10-26 01:30:00") == datetime(2025, 10, 26, 1, 30, tzinfo=UTC)
    assert dublin.of("2025-07-01") == datetime(2025, 7, 1, 23, tzinfo=UTC)


def test_accounts_of_json_lines():
    lines = [
        b'{"ts": "2025-10-10T12:00:00Z", "account": "7"}',
        b'{"account": 7, "ts": "2025-10-10T12:00:00Z", "other": {"account": "8"}}',
        b'{"account": null, "ts": "2025-10-10T12:00:00Z"}',
        b'{"ts": "2025-10-10T12:00:00Z"}',
        b'{"account": true, "ts": "2025-10-10T12:00:00Z"}',
        b'{"account": {"id": 7}, "ts": "2025-10-10T12:00:00Z"}',
        b'{"account": "9", "ts": "2025-10-10 12:00:00"}',
        b'{"account": "9", "ts": null}',
    ]
    whole = read(lines)
    assert whole == [one for each in lines for one in read([each])], "at once and one by one"
    assert [account for _, account, _ in whole] == ["7", "7", None, Untold.FIELD, Untold.LINE, Untold.LINE, "9", "9"]
    assert [anchor for anchor, _, _ in whole] == [NOON] * 7 + [None]
    assert read(lines[3:4], account_optional=True)[0][1] is None
    assert read(lines[:1], account=None)[0][1] is None


_PIECES = [
    b'{"ts": "2025-10-10T12:00:00Z", "account": "7"}',
    b'{"ts": "2025-10-10T12:00:00Z", "account": "8"}',
    b'{"ts": "2025-10-10 12:00:00", "account": "9"}',
    b'{"ts": "2025-10-10T12:00:00Z",',
    b' "account": "7"}',
    b"{",
    b"}",
    b" ",
    b"\r",
    b",",
]


@given(some.lists(some.lists(some.sampled_from(_PIECES), max_size=3).map(b"".join), max_size=8))
def test_no_line_is_read_as_anothers_whatever_stands_in_lines_beside_it(lines):
    """Empty lines, several objects in a line, and objects over several lines, in any mix."""
    assert read(lines) == [one for each in lines for one in read([each])]


def test_a_line_of_two_objects_beside_an_empty_one_gives_neither_to_the_other():
    one, other = _PIECES[:2]
    assert read([one + other, b""]) == [(None, Untold.LINE, None)] * 2


def test_fields_in_an_object_of_the_line_and_names_that_are_no_identifiers():
    line = b'{"@timestamp": "2025-10-10T12:00:00Z", "user": {"id": 5, "plan-name": "pro"}}'
    more = {"anchor": "@timestamp", "account": "user.id", "tier_field": "user.plan-name"}
    assert read([line], **more) == [(NOON, "5", "pro")]
    assert read([b'{"@timestamp": "2025-10-10T12:00:00Z", "user": null}'], **more) == [(NOON, Untold.FIELD, None)]
    assert read([line, b'{"@timestamp": "2025-10-10T12:00:00Z"}'], **more)[1] == (NOON, Untold.FIELD, None)


def test_numbers_as_dates_of_json_lines():
    assert read([b'{"ts": 1760097600, "account": "7"}'], unit="s") == [(NOON, "7", None)]
    assert read([b'{"ts": "1760097600", "account": "7"}'], unit="s") == [(NOON, "7", None)]


def test_logfmt():
    more = {"format": "logfmt"}
    assert read([b'ts=2025-10-10T12:00:00Z account=7 msg="a b=\\"c\\" account=8" flag'], **more) == [(NOON, "7", None)]
    assert read([b"ts=2025-10-10T12:00:00Z account="], **more) == [(NOON, None, None)]
    assert read([b"ts=2025-10-10T12:00:00Z"], **more)[0][1] is Untold.FIELD
    for bad in (b"ts=2025-10-10T12:00:00Z account=7 account=8", b'ts="open', b"", b'a=b"c"', b"=x"):
        assert read([bad], **more) == [(None, Untold.LINE, None)]


def test_the_combined_format():
    more = {"format": "combined", "anchor": "time_local", "account": "remote_user"}
    line = (
        b'192.0.2.7 - 4711 [10/Oct/2025:13:00:00 +0100] "GET /a?\\"b\\" HTTP/1.1" 200 512 "-" "Mozilla/5.0 [x] (y)" "z"'
    )
    assert read([line], **more) == [(NOON, "4711", None)]
    assert read([line + b"\r"], **more) == [(NOON, "4711", None)]
    assert read([line.replace(b" 4711 ", b" - ")], **more) == [(NOON, None, None)]
    assert read([line[: line.index(b' "-"')]], **more) == [(NOON, "4711", None)]
    assert read([b"x" + line[30:]], **more) == [(None, Untold.LINE, None)]


def test_a_pattern_of_ones_own():
    more = {
        "format": "regex",
        "pattern": r"(?P<ts>\S+) (?:(?P<account>\d+) )?\[(?P<plan>\w*)\] .*",
        "tier_field": "plan",
    }
    lines = [b"2025-10-10T12:00:00Z 7 [pro] hello", b"2025-10-10T12:00:00Z [] hello", b"nothing"]
    assert read(lines, **more) == [
        (NOON, "7", "pro"),
        (NOON, Untold.FIELD, None),
        (None, Untold.LINE, None),
    ]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_blocks_are_whole_lines_however_they_are_read(size):
    content = b"".join(b"x" * n + b"\n" for n in range(100)) + b"torn"
    stream = io.BytesIO(content)
    found = list(blocks(lambda _: stream.read(size)))
    assert b"".join(each.content for each in found) == content + b"\n"
    assert [each.torn for each in found] == [False] * (len(found) - 1) + [True]
    assert sum(len(each.lines()) for each in found) == 101


@pytest.mark.parametrize("length", [LONGEST - 1, LONGEST + 1, LONGEST * 2, LONGEST + BLOCK])
@pytest.mark.parametrize("end", [b"\n", b"\nafter\n", b"", b"\nafter"])
def test_a_line_that_is_too_long_comes_in_parts_and_what_is_around_it_in_blocks(length, end):
    content = b"before\n" + b"x" * length + end
    found = list(blocks(io.BytesIO(content).read))
    whole = b"".join(each.content for each in found)
    assert whole == content + (b"\n" if isinstance(found[-1], Block) and found[-1].torn else b"")
    parts = [each for each in found if isinstance(each, Part)]
    assert sum(each.last for each in parts) == (1 if parts else 0)
    lines = [line for each in found if isinstance(each, Block) for line in each.lines()]
    assert [each for each in lines if len(each) <= LONGEST // 2] == [b"before"] + [b"after"] * (b"after" in end)


def changing(format_="jsonl", **fields):
    given = config(
        format=format_,
        anchor="time_local" if format_ == "combined" else "ts",
        account=None,
        action="anonymise",
        anonymise={"fields": fields},
    )
    return Changing(format_of(given), given.anonymise.fields, b"k" * 32)


def test_a_line_is_changed_once():
    rules = changing(ip={"truncate_ip": True}, agent=None, mail={"hash": True}, session={"drop": True}, kind="web")
    line = b'{"ts":"t","ip":"192.0.2.77","agent":"x","mail":"a@b","session":1,"kind":"app","n":1.50}'
    found = rules.changed(line)
    assert found.startswith(b'{"ts":"t","ip":"192.0.2.0","agent":null,"mail":"hmac:')
    assert found.endswith(b'"kind":"web","n":1.5}')
    assert rules.changed(found) is None
    assert rules.changed(b'{"ts":"t"}') is None, "what is not there need not go"


def test_addresses_of_both_kinds_are_cut_and_what_is_none_can_not_be():
    rules = changing(ip={"truncate_ip": True})
    assert rules.changed(b'{"ip":"2001:db8:1:2::3"}') == b'{"ip":"2001:db8:1::"}'
    assert rules.changed(b'{"ip":null}') is None
    for bad in (b'{"ip":"unknown"}', b'{"ip":[1]}', b"no JSON"):
        with pytest.raises(Unchangeable):
            rules.changed(bad)


def test_a_hash_that_somebody_else_made_is_hashed():
    rules = changing(mail={"hash": True})
    forged = b'{"mail":"hmac:' + b"0" * 64 + b":" + b"0" * 16 + b'"}'
    assert rules.changed(forged) not in (None, forged)


def test_fields_of_texts_are_changed_in_their_place():
    combined = changing("combined", remote_addr={"truncate_ip": True}, http_user_agent=None)
    line = b'192.0.2.7 - - [10/Oct/2025:13:00:00 +0100] "GET / HTTP/1.1" 200 5 "-" "Mozilla (x)"'
    found = combined.changed(line)
    assert found == b'192.0.2.0 - - [10/Oct/2025:13:00:00 +0100] "GET / HTTP/1.1" 200 5 "-" "-"'
    assert combined.changed(found) is None
    logfmt = changing("logfmt", ip={"truncate_ip": True}, user=None, session={"drop": True})
    found = logfmt.changed(b'ts=1 ip=192.0.2.7 user="a b" session=5 msg="x y"')
    assert found == b'ts=1 ip=192.0.2.0 user="" msg="x y"'
    assert logfmt.changed(found) is None
    assert FieldChange(method="null").value is None


def test_the_names_that_rotation_gives_are_of_one_family():
    names = ["app.log", "app.log.1", "app.log.12.gz", "app.log-20250101", "app.log-20250101.zst", "app.log-2025-01-01"]
    assert {family(each) for each in names} == {"app.log"}
    assert family("app-2025-01-01T10-00.log") == "app.log"
    assert family("error.log") != family("app.log")


def test_positions_carry_any_name():
    for name in ("a\nb", "\udcff", "a%b", "é"):
        assert name_at(position_of(name)) == name
        assert position_of(name).isascii()
