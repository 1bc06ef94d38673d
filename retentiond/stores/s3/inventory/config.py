"""Where the reports of an S3 Inventory lie, and how old one may be."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, InstanceOf, PlainSerializer, field_validator

from retentiond.domain.duration import Duration, parse_duration
from retentiond.errors import DurationError
from retentiond.stores.access import bucket_name
from retentiond.stores.config import FROZEN, Unfit

_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)
_REMEDY: Final = "write days or hours, such as P3D for daily reports and P9D for weekly ones"


def _age(given: object) -> object:
    if isinstance(given, Duration):
        return given
    if not isinstance(given, str):
        raise Unfit("not a duration", _REMEDY)
    try:
        found = parse_duration(given)
    except DurationError as error:
        raise Unfit(error.message, _REMEDY) from None
    if found.months:
        raise Unfit("months and years are no age of a report", _REMEDY)
    return found


def _id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise Unfit(
            "not the id of an inventory configuration",
            "write it as `aws s3api list-bucket-inventory-configurations` has it",
        )
    return text


class InventoryConfig(BaseModel):
    """One inventory configuration of the target's bucket, by its `id`, and the bucket and prefix that it writes to.

    The reports lie below `prefix/SOURCE-BUCKET/id/`; without `bucket` in the target's own. AWS asks for a bucket in the
    same region (https://docs.aws.amazon.com/AmazonS3/latest/userguide/configure-inventory.html), so it is reached like
    the target's. `max_age` counts from when the report was begun; with an older one the bucket is listed.
    """

    model_config = FROZEN

    id: Annotated[str, AfterValidator(_id)]
    bucket: Annotated[str, AfterValidator(bucket_name)] | None = None
    prefix: str = Field(default="", max_length=512)
    max_age: Annotated[InstanceOf[Duration], BeforeValidator(_age), PlainSerializer(str, return_type=str)] = Duration(
        days=3
    )  # daily ones are begun a day apart, and a large one is written for many hours

    @field_validator("prefix")
    @classmethod
    def _no_manifest(cls, prefix: str) -> str:
        if prefix.endswith(("manifest.json", "manifest.checksum")):
            raise Unfit(
                "this names one report, and there will be newer ones",
                "write the destination prefix of the inventory configuration alone, and its id into inventory.id",
            )
        return prefix

    def location(self, source: str) -> str:
        """What the keys of the reports on that bucket begin with, slash and all."""
        prefix = self.prefix.rstrip("/")
        return f"{prefix}/{source}/{self.id}/" if prefix else f"{source}/{self.id}/"
