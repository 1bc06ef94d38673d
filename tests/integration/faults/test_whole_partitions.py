"""Partitions in which every record is due are dropped whole, and no record goes that would not have gone by rows."""

import pytest

from tests.services.parted import COLUMNS, EACH, OLD, RECORDS, YOUNG, attached, noted, parted, tables, whole

DEFAULT = "CREATE TABLE logs_rest PARTITION OF logs DEFAULT;"


@pytest.fixture(params=["rig", "apart"], ids=["control state beside it", "control state apart"])
def either(request):
    return request.getfixturevalue(request.param)


async def require_rest(rig, *kept, dropped=OLD, default=False):
    """The partitions that were to go are gone, and of the other old ones all rows but the kept."""
    assert await tables(rig) == sorted([*set(OLD) - set(dropped), YOUNG, *(["logs_rest"] if default else [])])
    assert await attached(rig) == await tables(rig)
    assert await rig.ids() == [*kept, *range(9001, 9001 + EACH)]
    assert await noted(rig) == []
    assert await whole(rig) == len(dropped)
    await rig.require_told(logs=3 * EACH - len([each for each in kept if each < 9000]))
    await rig.require_settled()


async def test_partitions_in_which_all_is_due_are_dropped(either):
    await parted(either)
    outcome = await either.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 3 * EACH)
    assert outcome.by_tier == {"free": 3 * EACH // 2, "pro": 3 * EACH // 2}
    await require_rest(either)


async def test_the_entry_of_dropped_partitions_has_bounds_counts_and_anchors_and_no_digest(apart):
    await parted(apart)
    oldest, newest = await apart.db.fetchrow("SELECT min(created_at), max(created_at) FROM logs WHERE id < 9000")
    size = await apart.db.fetchval("SELECT sum(pg_column_size(ip) + 24) FROM logs WHERE id < 9000")
    await apart.only()
    (entry,) = [each for each in await apart.ledger() if each.get("partitions")]
    assert len(entry["partitions"]) == 3
    assert all(bounds.startswith("FOR VALUES FROM ('20") for bounds in entry["partitions"])
    assert (entry["ids_digest"], entry["verified"]) == (None, "counted under lock")
    assert entry["counts"]["erased"] == entry["counts"]["selected"] == 3 * EACH
    assert entry["tiers"] == {"free": {"erased": 30}, "pro": {"erased": 30}}
    assert entry["bytes"] == size
    assert entry["oldest"][:19] == oldest.isoformat()[:19]
    assert entry["newest"][:19] == newest.isoformat()[:19]


async def test_with_a_default_partition_they_are_dropped_as_they_are_and_the_default_one_never(either):
    await parted(either, more=DEFAULT)
    await either.db.execute("INSERT INTO logs VALUES (5000, 1, now() - interval '2000 days')")
    outcome = await either.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 3 * EACH + 1)
    assert await tables(either) == ["logs_p9", "logs_rest"]
    assert await whole(either) == 3
    await either.require_told(logs=3 * EACH + 1)


async def test_the_newest_partition_is_never_dropped_however_old(rig):
    await parted(rig)
    await rig.db.execute("DROP TABLE logs_p9")
    assert (await rig.only()).changed == 3 * EACH
    assert await tables(rig) == ["logs_p2"]
    assert await whole(rig) == 2


@pytest.mark.parametrize("default", ["", DEFAULT])
@pytest.mark.parametrize(
    ("statement", "kept"),
    [
        ("UPDATE logs SET account_id = 3 WHERE id = 1007", 1007),
        ("UPDATE logs SET account_id = 77 WHERE id = 1007", 1007),
        (
            (
                "INSERT INTO accounts VALUES (5, 'free', NULL, '{\"operational_logs\": \"nonsense\"}');"
                "UPDATE logs SET account_id = 5 WHERE id = 1007"
            ),
            1007,
        ),
    ],
    ids=["an account with a longer term", "an unknown account", "a malformed override"],
)
async def test_one_record_that_is_not_due_keeps_its_partition_and_the_rest_goes_by_rows(
    apart, statement, kept, default
):
    apart.policy = {"classes": {"operational_logs": {"ttl": {"free": "P90D", "pro": "P365D", "enterprise": "P7Y"}}}}
    await parted(apart, more=default)
    await apart.db.execute(statement)
    outcome = await apart.only()
    assert outcome.outcome == "drained"
    await require_rest(apart, kept, dropped=("logs_p0", "logs_p2"), default=bool(default))


@pytest.mark.parametrize("default", ["", DEFAULT])
@pytest.mark.parametrize("scope", [{"records": {"logs": ('["1007", "{at}"]',)}}, {"accounts": ("9",)}, {"since": 1}])
async def test_one_held_record_keeps_its_partition_and_the_rest_goes_by_rows(apart, scope, default):
    await parted(apart, more=default)
    await apart.db.execute("INSERT INTO accounts VALUES (9, 'free'); UPDATE logs SET account_id = 9 WHERE id = 1007")
    at = await apart.db.fetchval("SELECT created_at FROM logs WHERE id = 1007")
    if "since" in scope:
        later = await apart.db.fetchval("SELECT $1::timestamptz + interval '1 minute'", at)
        scope = {"since": at, "until": later}
    if "records" in scope:
        text = await apart.db.fetchval("SELECT $1::timestamptz::text", at)
        scope = {"records": {"logs": (f'["1007", "{text}"]',)}}
    async with apart.app() as app:
        await apart.hold(app, **scope)
    outcome = await apart.only()
    assert (outcome.outcome, outcome.held) == ("drained", 1)
    await require_rest(apart, 1007, dropped=("logs_p0", "logs_p2"), default=bool(default))


async def test_a_legal_minimum_keeps_partitions_until_its_term_is_over(apart):
    await parted(apart, class_="audit_log")
    outcome = await apart.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 0)
    assert await tables(apart) == [*OLD, YOUNG]


async def test_empty_partitions_are_left_to_their_owner(apart):
    await parted(apart, records="INSERT INTO logs VALUES (1, 1, now() - interval '750 days');")
    assert (await apart.only()).changed == 1
    assert await tables(apart) == ["logs_p0", "logs_p2", YOUNG]


async def test_a_sub_partitioned_partition_goes_with_all_of_its_parts(apart):
    await parted(
        apart,
        more="DROP TABLE logs_p1; CREATE TABLE logs_p1 PARTITION OF logs FOR VALUES FROM (current_date - interval '800 days')"
        " TO (current_date - interval '700 days') PARTITION BY HASH (id);"
        "CREATE TABLE logs_p1_0 PARTITION OF logs_p1 FOR VALUES WITH (MODULUS 2, REMAINDER 0);"
        "CREATE TABLE logs_p1_1 PARTITION OF logs_p1 FOR VALUES WITH (MODULUS 2, REMAINDER 1);",
        records="",
    )
    await apart.db.execute(RECORDS)
    outcome = await apart.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 3 * EACH), outcome.error
    await require_rest(apart)


@pytest.mark.parametrize(
    ("statement", "told"),
    [
        (
            (
                "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';"
                "CREATE TRIGGER no BEFORE DELETE ON logs FOR EACH ROW EXECUTE FUNCTION no()"
            ),
            "trigger on deletes",
        ),
        (
            (
                "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN OLD; END';"
                "CREATE TRIGGER no AFTER DELETE ON logs_p1 FOR EACH STATEMENT EXECUTE FUNCTION no()"
            ),
            "trigger on deletes",
        ),
        ("CREATE RULE no AS ON DELETE TO logs_p1 DO ALSO NOTHING", "rules"),
        ("CREATE VIEW seen AS SELECT * FROM logs_p1", "view"),
        ("ALTER TABLE logs_p1 ENABLE ROW LEVEL SECURITY", "row level security"),
        ("CREATE PUBLICATION told FOR TABLE logs_p1", "publication"),
        ("CREATE PUBLICATION told FOR TABLE logs", "publication"),
        (
            "CREATE TABLE child (log bigint, at timestamptz, FOREIGN KEY (log, at) REFERENCES logs_p1)",
            "refer to it",
        ),
    ],
    ids=[
        "row trigger",
        "statement trigger",
        "rule",
        "view",
        "row level security",
        "published",
        "root published",
        "foreign key",
    ],
)
async def test_what_deleting_rows_would_have_done_is_done_so_they_go_by_rows(apart, statement, told):
    await parted(apart)
    await apart.db.execute(statement)
    outcome = await apart.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 3 * EACH), outcome.error
    assert "logs_p1" in await tables(apart)
    await apart.require_told(logs=3 * EACH)
    async with apart.app() as app:
        store = await app.engine.open(app.spec.target("logs"))
        findings = [each for each in await store.check() if told in each.message]
    # Of foreign keys the findings are those that there are anyway.
    wanted = [] if told == "refer to it" else ["info"]
    assert [each.severity for each in findings if "not dropped" in each.message] == wanted


async def test_a_role_that_is_not_the_owner_erases_by_rows_and_check_says_why(apart, limited):
    await parted(apart)
    await limited("GRANT SELECT, DELETE, UPDATE ON logs TO {role}", "GRANT SELECT ON accounts TO {role}")
    outcome = await apart.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 3 * EACH), outcome.error
    assert await tables(apart) == [*OLD, YOUNG]
    assert await whole(apart) == 0
    async with apart.app() as app:
        store = await app.engine.open(app.spec.target("logs"))
        (finding,) = [each for each in await store.check() if "not dropped" in each.message]
    assert "rights of its owner, postgres" in finding.message


@pytest.mark.parametrize(
    ("anchor", "value", "settings"),
    [
        ("date", "(now() - {d} * interval '1 day')::date", {}),
        ("timestamp", "now()::timestamp - {d} * interval '1 day'", {"timezone": "Asia/Tokyo"}),
        ("bigint", "(extract(epoch FROM now()) - {d} * 86400)::bigint", {"unit": "s"}),
        ("numeric", "(extract(epoch FROM now()) - {d} * 86400)::numeric * 1000", {"unit": "ms"}),
    ],
)
async def test_anchors_of_every_type_that_ranges_can_be_of(apart, anchor, value, settings):
    await parted(apart, records="")
    literal = {k: await apart.db.fetchval(f"SELECT ({value.format(d=k)})::text") for k in (900, 800, 700, 30)}
    await apart.db.execute(
        f"DROP TABLE logs; CREATE TABLE logs ({COLUMNS.replace('timestamptz', anchor)}) PARTITION BY RANGE (created_at);"
        f"CREATE TABLE logs_p0 PARTITION OF logs FOR VALUES FROM ('{literal[900]}') TO ('{literal[800]}');"
        f"CREATE TABLE logs_p1 PARTITION OF logs FOR VALUES FROM ('{literal[800]}') TO ('{literal[700]}');"
        f"CREATE TABLE logs_p9 PARTITION OF logs FOR VALUES FROM ('{literal[30]}') TO (MAXVALUE);"
        f"INSERT INTO logs SELECT i, 1, {value.format(d='(900 - i)')} FROM generate_series(1, 199) i;"
        f"INSERT INTO logs SELECT 900 + i, 1, {value.format(d=1)} FROM generate_series(1, 9) i;"
    )
    rig_settings = {**apart.targets["logs"], **settings}
    apart.targets["logs"] = rig_settings
    outcome = await apart.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 199), outcome.error
    assert await tables(apart) == [YOUNG]
    await apart.require_told(logs=199)


async def test_ranges_over_several_columns_that_begin_with_the_anchor(apart):
    await parted(apart, records="")
    await apart.db.execute(
        f"DROP TABLE logs; CREATE TABLE logs ({COLUMNS}) PARTITION BY RANGE (created_at, id);"
        "CREATE TABLE logs_p0 PARTITION OF logs FOR VALUES FROM ('2020-01-01', MINVALUE) TO ('2021-01-01', 500);"
        "CREATE TABLE logs_p9 PARTITION OF logs FOR VALUES FROM ('2021-01-01', 500) TO (MAXVALUE, MAXVALUE);"
        "INSERT INTO logs SELECT i, 1, '2020-06-01' FROM generate_series(1, 30) i"
    )
    outcome = await apart.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 30), outcome.error
    assert await tables(apart) == [YOUNG]


async def test_a_partition_of_a_list_or_of_another_column_goes_by_rows(apart):
    await parted(apart, records="")
    await apart.db.execute(
        f"DROP TABLE logs; CREATE TABLE logs ({COLUMNS}) PARTITION BY RANGE (id);"
        "CREATE TABLE logs_p0 PARTITION OF logs FOR VALUES FROM (0) TO (100);"
        "CREATE TABLE logs_p9 PARTITION OF logs FOR VALUES FROM (100) TO (200);"
        "INSERT INTO logs SELECT i, 1, '2020-06-01' FROM generate_series(1, 30) i"
    )
    assert (await apart.only()).changed == 30
    assert await tables(apart) == ["logs_p0", YOUNG]


async def test_partitions_with_the_columns_in_another_order_go_too(apart):
    await parted(apart)
    await apart.db.execute(
        "ALTER TABLE logs DETACH PARTITION logs_p1;"
        "CREATE TABLE logs_q1 (ip text, gone int, created_at timestamptz NOT NULL, id bigint NOT NULL,"
        " account_id bigint);"
        "ALTER TABLE logs_q1 DROP COLUMN gone; INSERT INTO logs_q1 SELECT ip, created_at, id, account_id FROM logs_p1;"
        "DROP TABLE logs_p1; ALTER TABLE logs_q1 RENAME TO logs_p1"
    )
    low, high = await apart.db.fetchrow("SELECT min(created_at)::text, (max(created_at) + '1 day')::text FROM logs_p1")
    await apart.db.execute(f"ALTER TABLE logs ATTACH PARTITION logs_p1 FOR VALUES FROM ('{low}') TO ('{high}')")
    await apart.only()
    await require_rest(apart)


async def test_the_directory_in_another_database_is_asked_about_all_accounts_of_a_partition(apart, postgres_server):
    await parted(apart)
    await apart.db.execute("INSERT INTO accounts VALUES (9, 'free'); UPDATE logs SET account_id = 77 WHERE id = 1007")
    name = apart.control.rsplit("/", 1)[1]
    async with apart.control_connection() as control:
        await control.execute(
            "CREATE TABLE accounts (id bigint PRIMARY KEY, tier text, deleted_at timestamptz, retention jsonb);"
            "INSERT INTO accounts VALUES (1, 'free'), (2, 'pro'), (9, 'free')"
        )
    apart.accounts = {"dsn": postgres_server.dsn(name)}
    apart.policy = {"classes": {"operational_logs": {"ttl": {"free": "P90D", "pro": "P365D", "enterprise": "P7Y"}}}}
    outcome = await apart.only()
    assert outcome.outcome == "drained", outcome.error
    await require_rest(apart, 1007, dropped=("logs_p0", "logs_p2"))


async def test_the_guard_counts_the_records_of_partitions(apart):
    apart.guards = {"max_fraction": 0.25, "min_records": 10}
    await parted(apart)
    assert (await apart.only()).outcome == "guarded"
    assert await tables(apart) == [*OLD, YOUNG]


async def test_in_plan_mode_partitions_are_counted_and_stay(apart):
    await parted(apart)
    outcome = await apart.only(mode="plan")
    assert (outcome.would, outcome.changed) == (3 * EACH, 0)
    assert await attached(apart) == [*OLD, YOUNG]


async def test_a_partition_as_the_target_itself_is_never_dropped(apart):
    await parted(apart, table="public.logs_p1")
    assert (await apart.only()).changed == EACH
    assert await tables(apart) == [*OLD, YOUNG]


@pytest.mark.parametrize("nobody", [False, True], ids=["all have accounts", "one has none"])
async def test_an_account_that_the_directory_has_twice_does_not_make_up_for_a_record_that_is_not_due(apart, nobody):
    """As many records are counted as there are: the ten of account 1 twice, the ten of the other not at all."""
    await parted(apart)
    if nobody:
        await apart.db.execute("UPDATE logs SET account_id = NULL WHERE id = 9")
    await apart.db.execute(
        "UPDATE logs SET account_id = 3 WHERE account_id = 2 AND id < 1000;"
        "CREATE VIEW twice AS SELECT * FROM accounts UNION ALL SELECT * FROM accounts WHERE id = 1"
    )
    apart.accounts = {"table": "public.twice"}
    apart.policy = {"classes": {"operational_logs": {"ttl": {"free": "P90D", "pro": "P365D", "enterprise": "P7Y"}}}}
    await apart.only()
    kept = await apart.db.fetchval("SELECT count(*) FROM logs WHERE account_id = 3")
    assert kept >= EACH // 2 - 1, "of what is not due nothing went"
    assert "logs_p0" in await attached(apart)


OURS = [
    "part",
    "upper",
    "records",
    "bytes",
    "oldest",
    "newest",
    "n",
    "due",
    "once",
    "id_",
    "tier",
    "in_grace",
    "r",
    "a",
]


@pytest.mark.parametrize("evidence", ["by rows after it", "all"])
async def test_columns_that_are_called_as_statements_call_what_they_reckon_are_in_nobodys_way(apart, evidence):
    """A name that the table has as well would be ambiguous, or the table's own."""
    named = ", ".join(f'"{name}" text' for name in OURS)
    apart.policy = {"classes": {"operational_logs": {"ttl": {"free": "P90D", "pro": "P365D", "enterprise": "P7Y"}}}}
    await parted(apart, columns=f"{COLUMNS}, {named}")
    kept = 0
    if evidence == "by rows after it":
        await apart.db.execute("UPDATE logs SET account_id = 3 WHERE id = 1007")
        kept = 1
    outcome = await apart.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 3 * EACH - kept), outcome.error
    assert await whole(apart) == 3 - kept
    await apart.require_told(logs=3 * EACH - kept)


@pytest.mark.parametrize("name", OURS)
async def test_an_account_column_that_is_called_so_is_in_nobodys_way_either(apart, name):
    await parted(apart)
    await apart.db.execute(f'ALTER TABLE logs RENAME account_id TO "{name}"')
    apart.target("logs", account=name)
    outcome = await apart.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 3 * EACH), outcome.error
    assert await whole(apart) == 3


@pytest.mark.parametrize("name", OURS)
async def test_an_anchor_that_is_called_so_is_in_nobodys_way_either(apart, name):
    await parted(apart)
    await apart.db.execute(f'ALTER TABLE logs RENAME created_at TO "{name}"')
    apart.target("logs", anchor=name)
    outcome = await apart.only()
    assert (outcome.outcome, outcome.changed) == ("drained", 3 * EACH), outcome.error
    assert await whole(apart) == 3
