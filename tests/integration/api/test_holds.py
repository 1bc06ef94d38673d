"""Holds through the API: placed, seen, released by one or by two, and what a double click or bad input comes to."""

import asyncio

import pytest

from retentiond.api import holds as resource
from retentiond.api.problems import refusal
from retentiond.errors import LedgerError
from retentiond.stores.postgres.store import PostgresStore
from tests.integration.api.conftest import served
from tests.services.api import tokens

NASTY = 'Robert\'); DROP TABLE retentiond.holds;-- "<script>alert(1)</script>" {{7*7}} %s \\ \u202e\U0001f600'


async def placed(api, by="carl", key=None, **more):
    return await api.post("holds", by, key, **{"matter": "2026-17", "reason": "subpoena", "accounts": ["7"], **more})


async def test_a_hold_is_active_when_it_is_answered_and_says_what_it_covers(lively):
    answer = await placed(lively, until="2030-01-01", review_by="2031-01-01T00:00:00Z", notice="sealed")
    assert answer.status == 201, answer.body
    hold = answer.json
    assert hold["state"] == "active"
    assert hold["effective_at"] >= hold["placed_at"]
    assert hold["scope"] == {"accounts": ["7"], "until": "2030-01-01T00:00:00.000000Z"}
    assert hold["placed_by"] == "carl"
    assert hold["records_matched"] == sum(each["records"] for each in hold["matches"].values()) > 0
    assert answer.headers["Location"] == f"/api/v1/holds/{hold['id']}"
    shown = await lively.get(f"holds/{hold['id']}")
    assert shown.items() <= hold.items()
    assert (await lively.get("holds"))["holds"] == [shown]
    assert [(e["event"], e["by"]) for e in await lively.ledger("hold")] == [("placed", "carl"), ("activated", "daemon")]


async def test_a_hold_that_is_not_active_in_time_is_answered_with_its_address(api, monkeypatch):
    monkeypatch.setattr(resource, "WAIT_SECONDS", 0.2)
    answer = await placed(api)
    assert (answer.status, answer.json["state"], answer.json["effective_at"]) == (202, "pending", None)
    assert (await api.get(answer.headers["Location"].removeprefix("/api/v1/")))["state"] == "pending"


async def test_a_hold_that_can_not_be_counted_for_a_defect_is_answered_as_placed(lively, monkeypatch):
    async def defect(*_, **__):
        raise KeyError("a defect")

    monkeypatch.setattr(PostgresStore, "matches", defect)
    answer = await placed(lively)
    assert (answer.status, answer.json["state"]) == (201, "active"), answer.body
    assert answer.json["targets_not_counted"]
    assert [hold["id"] for hold in (await lively.get("holds"))["holds"]] == [answer.json["id"]]


async def test_a_hold_that_can_not_be_read_is_told_with_its_remedy_and_is_no_defect(api, monkeypatch):
    monkeypatch.setattr(resource, "WAIT_SECONDS", 0.0)
    hold = (await placed(api)).json["id"]
    async with api.app.database.transaction() as tx:
        await tx.execute("""UPDATE retentiond.holds SET scope = '{"of_another_version": true}'""")
    for path in ("holds", f"holds/{hold}"):
        answer = await api.call("GET", path, "vera")
        assert (answer.status, answer.problem["kind"]) == (503, "unreadable_hold"), answer.body
        assert hold in answer.problem["detail"]
        assert "version of retentiond" in answer.problem["remedy"]


def test_a_ledger_that_takes_nothing_is_no_defect_of_the_api():
    told = refusal(LedgerError("it does not hold together", remedy="see `retentiond ledger verify`"))
    assert (told.status, told.detail, told.remedy) == (
        503,
        "it does not hold together",
        "see `retentiond ledger verify`",
    )


async def test_a_hold_is_released_and_reinstated_under_the_names_of_those_who_did_it(lively):
    hold = (await placed(lively)).json["id"]
    released = await lively.post(f"holds/{hold}/release", "cora", reason="closed")
    assert (released.status, released.json["state"], released.json["released_by"]) == (200, "releasing", "cora")
    assert released.json["erasable_at"]
    again = await lively.post(f"holds/{hold}/release", "carl", reason="closed")
    assert (again.status, again.problem["kind"]) == (409, "otherwise")
    back = await lively.post(f"holds/{hold}/reinstate", "carl", reason="appeal")
    assert (back.status, back.json["state"], back.json["released_by"]) == (200, "active", None)
    assert (await lively.post(f"holds/{hold}/reinstate", "carl", reason="appeal")).status == 409
    said = [(entry["event"], entry["by"]) for entry in await lively.ledger("hold")]
    assert said == [("placed", "carl"), ("activated", "daemon"), ("released", "cora"), ("reinstated", "carl")]


async def test_two_people_release_a_hold_and_neither_of_them_alone(env):
    async with served(tokens() | env | {"RETENTIOND_HOLDS__TWO_PERSON": "true"}, with_daemon=True) as api:
        hold = (await placed(api)).json["id"]
        for _ in range(2):
            asked = await api.post(f"holds/{hold}/release", "carl", reason="closed")
            assert (asked.status, asked.json["state"]) == (202, "active")
            assert asked.json["release_requested_by"] == "carl"
        done = await api.post(f"holds/{hold}/release", "cora", reason="agreed")
        assert (done.status, done.json["state"]) == (200, "releasing")
        assert (done.json["release_requested_by"], done.json["released_by"]) == ("carl", "cora")
        back = await api.post(f"holds/{hold}/reinstate", "carl", reason="appeal")
        assert (back.json["state"], back.json["release_requested_by"]) == ("active", None)
        await api.post(f"holds/{hold}/release", "cora", reason="closed")
        taken_back = await api.post(f"holds/{hold}/reinstate", "carl", reason="no")
        assert (taken_back.status, taken_back.json["release_requested_by"]) == (200, None)
        said = [(entry["event"], entry["by"]) for entry in await api.ledger("hold")][2:]
        assert said == [
            ("release_requested", "carl"),
            ("released", "cora"),
            ("reinstated", "carl"),
            ("release_requested", "cora"),
            ("release_withdrawn", "carl"),
        ]


async def test_the_key_of_a_release_that_was_asked_for_already_is_known_when_it_comes_again(env):
    async with served(tokens() | env | {"RETENTIOND_HOLDS__TWO_PERSON": "true"}, with_daemon=True) as api:
        hold = (await placed(api)).json["id"]
        for key in ("r1", "r2"):
            assert (await api.post(f"holds/{hold}/release", "carl", key, reason="closed")).status == 202
        other = await api.post(f"holds/{hold}/release", "carl", "r2", reason="another")
        assert (other.status, "Idempotency-Key" in other.problem["detail"]) == (422, True)
        await api.post(f"holds/{hold}/reinstate", "cora", reason="no")
        again = await api.post(f"holds/{hold}/release", "carl", "r2", reason="closed")
        assert (again.status, again.json["release_requested_by"]) == (202, None), "it was answered before that"
        said = [entry["event"] for entry in await api.ledger("hold")]
        assert said == ["placed", "activated", "release_requested", "release_withdrawn"]


async def test_of_two_who_release_a_hold_at_once_one_is_told_that_it_was_done(lively):
    hold = (await placed(lively)).json["id"]
    both = await asyncio.gather(*(lively.post(f"holds/{hold}/release", by, reason=by) for by in ("carl", "cora")))
    assert sorted(answer.status for answer in both) == [200, 409]
    assert [entry["event"] for entry in await lively.ledger("hold")].count("released") == 1


async def test_two_who_ask_for_a_release_at_once_have_released_it_together(env):
    async with served(tokens() | env | {"RETENTIOND_HOLDS__TWO_PERSON": "true"}, with_daemon=True) as api:
        hold = (await placed(api)).json["id"]
        both = await asyncio.gather(*(api.post(f"holds/{hold}/release", by, reason=by) for by in ("carl", "cora")))
        assert sorted(answer.status for answer in both) == [200, 202]
        found = await api.get(f"holds/{hold}")
        assert {found["release_requested_by"], found["released_by"]} == {"carl", "cora"}


async def test_a_double_click_places_one_hold_and_both_are_told_of_it(lively):
    answers = await asyncio.gather(*(placed(lively, key="k1") for _ in range(4)))
    assert {answer.status for answer in answers} == {201}, answers
    assert len({answer.json["id"] for answer in answers}) == 1
    assert (await placed(lively, key="k1")).json["id"] == answers[0].json["id"]
    assert len((await lively.get("holds"))["holds"]) == 1
    other = await placed(lively, key="k1", matter="another")
    assert (other.status, "Idempotency-Key" in other.problem["detail"]) == (422, True)
    assert (await placed(lively, by="cora", key="k1")).json["id"] != answers[0].json["id"]


async def test_a_double_click_releases_once_and_both_are_told_of_it(lively):
    hold = (await placed(lively)).json["id"]
    both = await asyncio.gather(
        *(lively.post(f"holds/{hold}/release", "carl", "r1", reason="closed") for _ in range(2))
    )
    assert [(answer.status, answer.json["state"]) for answer in both] == [(200, "releasing")] * 2
    assert [entry["event"] for entry in await lively.ledger("hold")].count("released") == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"matter": "1", "reason": "r"}, "empty"),
        ({"matter": "1", "reason": "r", "accounts": []}, "empty"),
        ({"matter": "1", "reason": "r", "everything": False}, "empty"),
        ({"matter": "1", "reason": "r", "everything": True, "accounts": ["1"]}, "everything"),
        ({"matter": "", "reason": "r", "accounts": ["1"]}, "matter"),
        ({"matter": " ", "reason": "r", "accounts": ["1"]}, "matter"),
        ({"reason": "r", "accounts": ["1"]}, "matter"),
        ({"matter": "1", "reason": "r", "accounts": "1"}, "accounts"),
        ({"matter": "1", "reason": "r", "accounts": [1]}, "accounts.0"),
        ({"matter": "1", "reason": "r", "accounts": [""]}, "accounts.0"),
        ({"matter": "1", "reason": "r", "accounts": ["a\x00b"]}, "accounts.0"),
        ({"matter": "1\x00", "reason": "r", "accounts": ["1"]}, "matter"),
        ({"matter": "1", "reason": "r", "acounts": ["1"]}, "acounts"),
        ({"matter": "1", "reason": "r", "scope": {"accounts": ["1"]}}, "scope"),
        ({"matter": "1", "reason": "r", "targets": ["nothing"]}, "nothing"),
        ({"matter": "1", "reason": "r", "classes": ["nothing"]}, "nothing"),
        ({"matter": "1", "reason": "r", "records": {"request_logs": []}}, "records"),
        ({"matter": "1", "reason": "r", "since": "yesterday"}, "yesterday"),
        ({"matter": "1", "reason": "r", "since": "2026-01-02", "until": "2026-01-01"}, "until"),
        ({"matter": "1", "reason": "r", "accounts": ["1"], "review_by": "soon"}, "soon"),
        ({"matter": "m" * 5000, "reason": "r", "accounts": ["1"]}, "matter"),
        ({"matter": "1", "reason": "r", "everything": "true"}, "everything"),
        ([], "body"),
    ],
)
async def test_a_hold_that_can_not_be_meant_is_refused_and_nothing_is_placed(api, body, field):
    answer = await api.call("POST", "holds", "carl", json=body)
    assert answer.status == 422, answer.body
    told = answer.problem
    assert field in told["detail"] + str(told.get("errors"))
    assert (await api.get("holds"))["holds"] == []
    assert not await api.ledger("hold")


async def test_texts_come_back_as_they_were_given_and_are_only_text(lively, company):
    await company.execute("CREATE TABLE notes (id text PRIMARY KEY)")
    answer = await placed(lively, matter=NASTY, reason=NASTY, accounts=[NASTY], notice=NASTY)
    assert answer.status == 201, answer.body
    hold = await lively.get(f"holds/{answer.json['id']}")
    assert (hold["matter"], hold["reason"], hold["notice"]) == (NASTY, NASTY, NASTY)
    assert hold["scope"] == {"accounts": [NASTY]}
    gone = await lively.post(f"holds/{hold['id']}/release", "carl", reason=NASTY)
    assert gone.json["release_reason"] == NASTY
    assert NASTY not in str(await lively.ledger())
    for path in (f"holds/{NASTY}", "holds/none", "holds/%00"):
        assert (await lively.call("GET", path, "vera")).status == 404
        assert (await lively.call("POST", f"{path}/release", "carl", json={"reason": "r"})).status == 404


async def test_holds_come_in_pages_of_their_states(api, monkeypatch):
    monkeypatch.setattr(resource, "WAIT_SECONDS", 0.0)
    ids = [(await placed(api, matter=str(number))).json["id"] for number in range(5)]
    found, after = [], None
    while True:
        page = await api.get("holds", limit=2, **({"after": after} if after else {}))
        found += [hold["id"] for hold in page["holds"]]
        if (after := page["next"]) is None:
            break
    assert found == ids
    assert len((await api.get("holds", state="pending"))["holds"]) == 5
    assert (await api.get("holds", state="active"))["holds"] == []
    assert (await api.call("GET", "holds", "vera", after="none")).status == 404
    assert (await api.call("GET", "holds", "vera", state="dead")).status == 422
