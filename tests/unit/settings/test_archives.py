"""Where a table's records may be archived: within the regions of the target, and nowhere else."""

import pytest

from retentiond.errors import ConfigurationError
from retentiond.settings import load

TARGET = {
    "store": "postgres",
    "class": "operational_logs",
    "dsn": "postgresql://u:hunter2@db/app",
    "table": "public.logs",
    "anchor": "created_at",
    "action": "archive",
}
ELSEWHERE = "https://s3.example.com"


def loaded(archive, **more):
    import json

    document = {"targets": {"logs": TARGET | {"archive": {"bucket": "kept"} | archive} | more}}
    return load({"RETENTIOND_CONFIG": json.dumps(document)}).targets["logs"]


def only(archive, **more):
    with pytest.raises(ConfigurationError) as caught:
        loaded(archive, **more)
    (problem,) = caught.value.problems
    assert problem.remedy
    return problem


@pytest.mark.parametrize(
    ("archive", "target"),
    [
        ({"region": "eu-west-1"}, {"region": "eu-central-1"}),
        ({"region": "eu-west-1"}, {"region_group": "eu"}),
        ({"region": "us-east-1"}, {"region": "us-west-2"}),
        ({"region": "eu-west-2"}, {"region": "eu-west-2"}),
        ({"region": "eu-west-2"}, {"region_group": "uk"}),
        ({"region": "ap-southeast-1", "region_group": "ap"}, {"region": "ap-northeast-1"}),
        ({"region_group": "eu", "endpoint_url": ELSEWHERE}, {"region": "eu-west-1"}),
        ({"region_group": "eu", "region": "us-east-1", "endpoint_url": ELSEWHERE}, {"region": "eu-west-1"}),
        ({"region_group": "home", "region": "nowhere"}, {"region_group": "home"}),
    ],
)
def test_an_archive_within_the_target_s_regions_is_taken(archive, target):
    assert loaded(archive, **target).archive.bucket == "kept"


@pytest.mark.parametrize(
    ("archive", "target", "message", "remedy"),
    [
        ({"region": "us-east-1"}, {"region": "eu-west-1"}, "lies in us", "lies in eu"),
        ({"region": "eu-west-2"}, {"region": "eu-west-1"}, "lies in uk", "lies in eu"),
        ({"region": "eu-west-1"}, {"region": "eu-central-2"}, "lies in eu", "lies in ch"),
        ({"region": "us-gov-west-1"}, {"region": "us-east-1"}, "lies in us-gov", "lies in us"),
        ({"region": "eu-west-1"}, {}, "is not known", "region"),
        ({"region": "eu-west-1"}, {"region": "frankfurt"}, "is not known", "region_group"),
        ({}, {"region": "eu-west-1"}, "is not known", "archive.region"),
        ({"region": "auto"}, {"region": "eu-west-1"}, "is not known", "archive.region"),
        # What is called so elsewhere may lie anywhere.
        ({"region": "eu-west-1", "endpoint_url": ELSEWHERE}, {"region": "eu-west-1"}, "is not known", "region_group"),
        ({}, {}, "is not known", "region"),
    ],
)
def test_an_archive_elsewhere_or_nobody_knows_where_is_refused(archive, target, message, remedy):
    problem = only(archive, **target)
    assert problem.key == "targets.logs.archive"
    assert message in problem.message
    assert remedy in problem.remedy


def test_at_aws_nobody_can_say_that_a_region_is_of_another_group():
    problem = only({"region": "us-east-1", "region_group": "eu"}, region="eu-west-1")
    assert problem.key == "targets.logs.archive.region_group"
    assert "us-east-1 is one of us" in problem.message


def test_an_archive_that_nothing_is_written_to_is_refused():
    problem = only({"region": "eu-west-1"}, region="eu-west-1", action="delete")
    assert problem.key == "targets.logs.action"
    assert "archive is given, but the action is delete" in problem.message


def test_secrets_of_an_archive_are_never_shown():
    settings_target = loaded(
        {"region": "eu-west-1", "access_key_id": "AKIAHUNTER2", "secret_access_key": "hunter2"}, region="eu-west-1"
    )
    assert "hunter2" not in repr(settings_target).lower()


def test_where_it_is_archived_is_no_part_of_the_policy():
    import json

    def digest(bucket):
        document = {
            "targets": {"logs": TARGET | {"region": "eu-west-1", "archive": {"bucket": bucket, "region": "eu-west-1"}}}
        }
        return load({"RETENTIOND_CONFIG": json.dumps(document)}).digest_document()

    assert digest("one") == digest("other")
