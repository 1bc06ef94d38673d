"""The configuration of objects in a bucket as a target."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field, ValidationInfo, field_validator

from retentiond.stores.access import ACCESS_KEYS, BucketAccess, Tags, service_of
from retentiond.stores.config import TargetConfig, Unfit
from retentiond.stores.s3.inventory.config import InventoryConfig
from retentiond.stores.template import ACCOUNT, TIER, Template

__all__ = ["S3Target", "Tags", "service_of"]

_ANY_KEY: Final = "{object:path}"


class S3Target(BucketAccess, TargetConfig):
    """Objects of one bucket below a prefix: what their keys tell, and how the endpoint is reached.

    `key` is the template of what follows `prefix`; `account` is whose all of them are. With `pairs_with` a row of that
    Postgres target owns each object, whose key stands in its column `pair_key`. `uploads`: multipart uploads that
    nobody completed go as well. `inventory`: where reports of S3 Inventory say what there is. `native_holds` writes
    holds as the bucket's own legal holds too; `unfenced` erases also where the endpoint does not refuse requests that
    have expired.
    """

    no_verdict: ClassVar[frozenset[str]] = (
        TargetConfig.no_verdict
        | ACCESS_KEYS
        | {
            "inventory",
            "native_holds",
            "unfenced",
        }
    )

    store: Literal["s3"]
    key: str | None = None
    tags: Tags | None = None
    account: Annotated[str, Field(min_length=1)] | None = None
    pairs_with: str | None = None
    pair_key: str | None = Field(default=None, validate_default=True)
    uploads: bool = True
    inventory: InventoryConfig | None = None
    native_holds: bool = False
    unfenced: bool = False

    # Each on a field and not on the model, whose validators are silent as long as any field is at fault.

    @field_validator("key")
    @classmethod
    def _readable(cls, key: str | None, info: ValidationInfo) -> str | None:
        if key is not None and TIER in Template.parse(key, prefix=info.data.get("prefix", "")).names:
            _once("tier", info, constant=info.data.get("tier"))
        return key

    @field_validator("tags")
    @classmethod
    def _some_tag(cls, tags: Tags | None, info: ValidationInfo) -> Tags | None:
        if tags is not None and tags.account is None and tags.tier is None:
            raise Unfit("no tag is named", "write tags: {account: TAG}, {tier: TAG}, or both; or leave it out")
        if tags is not None and tags.tier is not None:
            _once("tier", info, constant=info.data.get("tier"), key=info.data.get("key"))
        if tags is not None and tags.account is not None:
            _once("account", info, key=info.data.get("key"))
        return tags

    @field_validator("account")
    @classmethod
    def _one_account(cls, account: str | None, info: ValidationInfo) -> str | None:
        if account is not None:
            _once("account", info, key=info.data.get("key"), tags=info.data.get("tags"))
        return account

    @field_validator("pair_key")
    @classmethod
    def _pair(cls, column: str | None, info: ValidationInfo) -> str | None:
        if "pairs_with" in info.data and (column is None) != (info.data["pairs_with"] is None):
            missing = "pair_key" if column is None else "pairs_with"
            raise Unfit(
                f"pairs_with and pair_key belong together, and {missing} is not given",
                "name the target that has the rows and its column with the objects' keys, or neither",
            )
        return column

    def template(self) -> Template:
        """What its keys tell; without `key` every key below the prefix fits, and tells nothing."""
        return Template.parse(self.key or _ANY_KEY, prefix=self.prefix)

    @property
    def knows_account(self) -> bool:
        """Whether objects have an account; where nothing else names it, it is that of the owning row."""
        tagged = self.tags is not None and self.tags.account is not None
        return self.account is not None or tagged or self.pairs_with is not None or ACCOUNT in self.template().names

    @property
    def has_tier(self) -> bool:
        """Whether objects name their own tier, by key or tag."""
        return (self.tags is not None and self.tags.tier is not None) or TIER in self.template().names

    def records(self) -> tuple[str, ...]:
        """The service, the bucket, and what all keys begin with."""
        return (self.store, service_of(self.endpoint_url), self.bucket, self.template().head)

    def overlaps(self, other: TargetConfig) -> bool:
        """Whether the keys of one begin with those of the other."""
        if not isinstance(other, S3Target):
            return False
        *place, mine = self.records()
        *its_place, theirs = other.records()
        return place == its_place and (mine.startswith(theirs) or theirs.startswith(mine))

    def refuse(self, action: str) -> Unfit | None:
        """An object has no columns."""
        if action == "anonymise":
            return Unfit(
                "anonymise does not apply to objects: they are deleted whole", "set the target's action to delete"
            )
        return super().refuse(action)


def _once(what: str, info: ValidationInfo, *, constant: object = None, key: object = None, tags: object = None) -> None:
    """Refuse a second source of the account or the tier; what is itself at fault is no source."""
    prefix = info.data.get("prefix", "")
    others = {
        what: constant is not None,
        "key": isinstance(key, str) and what in Template.parse(key, prefix=prefix).names,
        "tags": isinstance(tags, Tags) and getattr(tags, what) is not None,
    }
    for other, given in others.items():
        if given:
            raise Unfit(f"the objects' {what} is also given by `{other}`", f"name it by `{other}` or here, not by both")
