"""The arithmetic of terms against PostgreSQL's own, thousands of generated cases to a query."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import asyncpg

from retentiond.domain.duration import Duration, cutoff, expires_at

CASES = 20_000
BEGIN = datetime(1996, 1, 1, tzinfo=UTC)
YEARS = timedelta(days=45 * 365)


def cases(seed: int) -> list[tuple[datetime, Duration]]:
    """Instants and terms, with ends of months, leap days and the shapes of terms that are hard on purpose."""
    chance = random.Random(seed)
    found = []
    for _ in range(CASES):
        moment = BEGIN + timedelta(microseconds=chance.randrange(int(YEARS.total_seconds()) * 1_000_000))
        if chance.random() < 0.5:
            moment = (moment.replace(day=1) + timedelta(days=chance.choice([-1, 0, 27, 28, 29, 30]))).replace(hour=23)
        months = chance.choice([0, 1, 2, 12, 13, 18, 84, chance.randrange(240)])
        days = chance.choice([0, 1, 10, 28, 29, 30, 31, chance.randrange(4000)])
        seconds = chance.choice([0, 0, 1, 3600, 36 * 3600, chance.randrange(400_000)])
        if months or days or seconds:
            found.append((moment, Duration(months, days, seconds * 1_000_000)))
    return found


async def rows(dsn: str, sql: str, moments: list[datetime], terms: list[Duration]) -> list[asyncpg.Record]:
    """What PostgreSQL says for each case: `sql` sees `at`, `months`, `days` and `time` (an interval of seconds)."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("SET TimeZone = 'UTC'")
        return await connection.fetch(
            f"""SELECT {sql} AS answer FROM (
                    SELECT at, make_interval(months => m) AS months, make_interval(days => d) AS days,
                           s * interval '1 second' AS time, n
                    FROM unnest($1::timestamptz[], $2::int[], $3::int[], $4::bigint[]) WITH ORDINALITY u(at, m, d, s, n)
                ) c ORDER BY n""",
            moments,
            [term.months for term in terms],
            [term.days for term in terms],
            [term.microseconds // 1_000_000 for term in terms],
        )
    finally:
        await connection.close()


async def test_the_cutoff_is_postgresqls_now_less_days_and_time_and_then_months(database):
    generated = cases(1)
    moments, terms = [case[0] for case in generated], [case[1] for case in generated]
    answers = await rows(database, "(at - (days + time)) - months", moments, terms)
    wrong = [
        (now, str(term), ours, row["answer"])
        for now, term, row in zip(moments, terms, answers, strict=True)
        if (ours := cutoff(now, term)) != row["answer"]
    ]
    assert wrong == []


async def test_the_end_of_a_term_is_postgresqls_anchor_plus_term(database):
    generated = cases(2)
    moments, terms = [case[0] for case in generated], [case[1] for case in generated]
    answers = await rows(database, "at + (months + days + time)", moments, terms)
    wrong = [
        (anchor, str(term), ours, row["answer"])
        for anchor, term, row in zip(moments, terms, answers, strict=True)
        if (ours := expires_at(anchor, term)) != row["answer"]
    ]
    assert wrong == []


async def test_nothing_before_a_cutoff_expires_before_postgresqls_anchor_plus_term(database):
    chance = random.Random(3)
    generated = cases(4)
    terms = [term for _, term in generated]
    nows = [now for now, _ in generated]
    # Anchors right before the cutoff are the ones that could be too early; the others are spread over two months.
    anchors = [
        cutoff(now, term) - timedelta(microseconds=chance.choice([1, 1, chance.randrange(1, 60 * 86_400_000_000)]))
        for now, term in generated
    ]
    answers = await rows(database, "at + (months + days + time)", anchors, terms)
    early = [
        (anchor, str(term), now, row["answer"])
        for anchor, term, now, row in zip(anchors, terms, nows, answers, strict=True)
        if row["answer"] > now
    ]
    assert early == []
