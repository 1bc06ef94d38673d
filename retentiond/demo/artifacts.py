"""What lies in the bucket of the demo: artifacts of a year and a half, by account and job.

Made data that is the same each time, save for its ages, which count back from now. It has what makes erasing objects
harder than erasing rows: keys of every kind, old versions below newer ones, a delete marker over what is still there,
an upload that nobody completed, a key that tells no account.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

BUCKET = "artifacts"
KEY = "{account}/{job}/{file:path}"
"""What the keys tell, as the target's configuration has it."""
HELD_ACCOUNT = 1204
"""Of the free plan; a hold of its own covers its artifacts."""
HELD_KEY = f"{HELD_ACCOUNT}/1/site.zip"

_ACCOUNTS = 20_000
_OBJECTS = 850
_OF_THE_HELD = 40
_OLDEST = timedelta(days=500)
_OLD = timedelta(days=400)
_FILES = ("site.zip", "build.log", "dist/app.js", "dist/app.css", "report.html")
_ODD_ACCOUNT = 1205
# None with a control character or a line feed, which moto's listing of versions and its routes can't do.
_ODD = (
    "a%20b.zip",
    "a+b & c.zip",
    " spaces .txt",
    "Müller/日本.png",
    "//x",
    "folder/",
    "<tag>'\".xml",
)
_LONGEST = 1024
"""Bytes of a key, by S3."""
_UNREADABLE = "index.html"


@dataclass(frozen=True, slots=True)
class Artifact:
    """An object (in the order of the versions of a key, oldest first), and how long ago it was written."""

    key: str
    age: timedelta
    size: int


@dataclass(frozen=True, slots=True)
class Remains:
    """What is no object: keys that a later deletion has put a marker over, and keys of uploads never completed."""

    deleted: tuple[str, ...]
    uploads: tuple[str, ...]


def artifacts() -> Iterator[Artifact]:
    """All of them."""
    random_ = random.Random(2026)
    for number in range(_OBJECTS):
        account = random_.randint(1, _ACCOUNTS)
        key, age = f"{account}/{number}/{random_.choice(_FILES)}", random_.random() * _OLDEST
        if number % 20 == 0:  # written over since: the older version is due before the newer one
            yield Artifact(key, age + _OLD, random_.randint(1, 200))
        yield Artifact(key, age, random_.randint(1, 200))
    yield Artifact(HELD_KEY, _OLD, 100)
    for number in range(1, _OF_THE_HELD):
        yield Artifact(f"{HELD_ACCOUNT}/{number + 1}/site.zip", number * _OLDEST / _OF_THE_HELD, 100)
    for key in odd_keys():
        yield Artifact(key, _OLD, 10)
    yield Artifact(_UNREADABLE, _OLD, 10)


def odd_keys() -> tuple[str, ...]:
    """Keys that an erasing program may stumble over; all of one account of the free plan."""
    prefix = f"{_ODD_ACCOUNT}/1/"
    return (*(prefix + name for name in _ODD), prefix + "x" * (_LONGEST - len(prefix)))


def remains() -> Remains:
    """What has to go with the objects."""
    odd = odd_keys()
    return Remains(deleted=(odd[0], odd[1]), uploads=(f"{_ODD_ACCOUNT}/2/never completed.zip",))
