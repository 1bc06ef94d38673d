"""Made policies, scopes of holds, anchors and accounts, for the tests that hold the ways of judging against each other."""

import json
from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from retentiond.domain.duration import cutoff, parse_term

NOW = datetime(2026, 3, 31, 8, 0, tzinfo=UTC)
TERMS = ["P30D", "P90D", "P1M", "P1M1D", "P365D", "P1Y", "P7Y", "PT36H", "forever"]
TIERS = ["free", "pro", "enterprise"]
RAW_TIERS = [*TIERS, "hobby", "gold", None]
OVERRIDES = [
    None,
    {"logs": "P7Y"},
    {"logs": "P10D"},
    {"logs": "P99Y"},
    {"logs": "ninety days"},
    {"logs": None},
    {"logs": 5},
    {"other": "P1D"},
    ["logs"],
    "text",
]


@st.composite
def policies(draw):
    one = st.sampled_from(TERMS)
    ttl = draw(st.one_of(one, st.fixed_dictionaries(dict.fromkeys(TIERS, one))))
    bounds = st.sampled_from([{}, {"max": "P7Y"}, {"min": "P5D", "max": "P8Y"}, {"max": "forever"}])
    data_class = {"ttl": ttl, "minimum": draw(st.booleans())}
    # An override that could cut a legal minimum short is refused with the policy, so there is none to judge by.
    free = isinstance(ttl, dict) and not data_class["minimum"]
    override = draw(st.dictionaries(st.sampled_from(TIERS), bounds, max_size=2)) if free else {}
    if override:
        data_class["override"] = override
    if draw(st.booleans()) and draw(st.booleans()):
        data_class["after"] = "account_deleted"
    return {
        "tiers": TIERS,
        "downgrade_grace": draw(st.sampled_from(["P30D", "none"])),
        "deletion_grace": "P30D",
        "unknown_tier": draw(st.sampled_from(["longest", "free"])),
        "no_account": draw(st.sampled_from(["free", None])),
        "classes": {"logs": data_class},
    }


SCOPES = st.sampled_from(
    [
        {"accounts": ["007", "12"]},
        {"accounts": ["not-a-number"]},
        {"records": {"logs": ["0003", "5", "9"]}},
        {"prefixes": {"logs": ["1"]}},
        {"records": {"other": ["1"]}},
        {"since": "2020-01-01T00:00:00Z", "until": "2025-06-01T00:00:00Z"},
        {"accounts": ["3"], "until": "2025-01-01T00:00:00Z"},
        {"classes": ["logs"], "accounts": ["4", "5"]},
        {"classes": ["other"]},
        {"targets": ["other"]},
        {"everything": True},
    ]
)


def anchors(chance, policy):
    """Any kind of anchor, most of them within a second or a microsecond of a cutoff."""
    edges = [edge for term in TERMS if (edge := cutoff(NOW, parse_term(term))) is not None]
    near = timedelta(microseconds=chance.choice([0, 1, -1, 1_000_000, -1_000_000]))
    return chance.choice(
        [
            None,
            "infinity",
            "-infinity",
            (chance.choice(edges) + near).isoformat(),
            (chance.choice(edges) + near).isoformat(),
            (NOW - timedelta(hours=chance.randrange(90_000))).isoformat(),
        ]
    )


def accounts_of(chance):
    deleted = [None, None, None, *(NOW - timedelta(days=days) for days in (1, 29, 30, 31, 400, 3000))]
    changed = [None, None, *(NOW - timedelta(days=days) for days in (1, 29, 30, 31, 400))]
    return [
        (
            n,
            chance.choice(RAW_TIERS),
            chance.choice(deleted),
            json.dumps(chance.choice(OVERRIDES)) if chance.random() < 0.6 else None,
            chance.choice(changed),
        )
        for n in range(1, 16)
    ]
