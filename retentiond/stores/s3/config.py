"""The configuration of objects in a bucket as a target."""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationInfo, field_validator

from retentiond.stores.config import FROZEN, TargetConfig, Unfit
from retentiond.stores.s3.template import ACCOUNT, TIER, Template

_BUCKET: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?", re.ASCII)
_AWS: Final = re.compile(r"(?:.+\.)?amazonaws\.com(?:\.cn)?", re.ASCII | re.IGNORECASE)
_LOOPBACK: Final = frozenset({"localhost", "::1", "127.0.0.1"})
_PORTS: Final = {"http": 80, "https": 443}
_ANY_KEY: Final = "{object:path}"


def _bucket(name: str) -> str:
    if name.startswith("arn:"):
        raise Unfit("this is an access point, which hides the bucket that it is of", "name the bucket itself")
    if not _BUCKET.fullmatch(name):
        remedy = "write the name alone, without s3:// and slashes; what follows a slash goes into prefix"
        raise Unfit("not the name of a bucket", remedy)
    return name


def _endpoint(url: str) -> str:
    remedy = "write an address such as https://s3.example.com or http://127.0.0.1:9000, without user, ? and #"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
        usable = usable and not (parts.query or parts.fragment or "@" in parts.netloc)
    except ValueError:
        usable = False
    if not usable:
        raise Unfit("not the address of an S3 endpoint", remedy)
    return url


def service_of(endpoint_url: str | None) -> str:
    """What tells the services apart that have buckets of their own: AWS whatever the region, else host, port, path."""
    if endpoint_url is None:
        return "aws"
    parts = urlsplit(endpoint_url)
    host = (parts.hostname or "").lower().rstrip(".")
    if _AWS.fullmatch(host):
        return "aws"
    place = "127.0.0.1" if host in _LOOPBACK else host
    return f"{place}:{parts.port or _PORTS[parts.scheme]}{parts.path.rstrip('/')}"


Bucket = Annotated[str, AfterValidator(_bucket)]
Tag = Annotated[str, Field(min_length=1, max_length=128)]


class Tags(BaseModel):
    """The tags of an object that its account or tier is read from; each object then costs a call of its own."""

    model_config = FROZEN

    account: Tag | None = None
    tier: Tag | None = None


class S3Target(TargetConfig):
    """Objects of one bucket below a prefix: what their keys tell, and how the endpoint is reached.

    `key` is the template of what follows `prefix`; `account` is whose all of them are. Without keys of its own for
    access the ordinary AWS chain has the credentials. With `pairs_with` a row of that Postgres target owns each object,
    whose key stands in its column `pair_key`. `uploads`: multipart uploads that nobody completed go as well.
    `native_holds` writes holds as the bucket's own legal holds too; `unfenced` erases also where the endpoint does not
    refuse requests that have expired.
    """

    no_verdict: ClassVar[frozenset[str]] = TargetConfig.no_verdict | {
        "endpoint_url", "access_key_id", "secret_access_key", "session_token", "addressing", "native_holds", "unfenced",
    }  # fmt: skip

    store: Literal["s3"]
    bucket: Bucket
    prefix: str = Field(default="", max_length=1024)
    key: str | None = None
    tags: Tags | None = None
    account: Annotated[str, Field(min_length=1)] | None = None
    pairs_with: str | None = None
    pair_key: str | None = Field(default=None, validate_default=True)
    endpoint_url: Annotated[str, AfterValidator(_endpoint)] | None = None
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = Field(default=None, validate_default=True)
    session_token: SecretStr | None = None
    addressing: Literal["auto", "path", "virtual"] = "auto"
    uploads: bool = True
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

    @field_validator("secret_access_key")
    @classmethod
    def _both_keys(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if "access_key_id" in info.data and (secret is None) != (info.data["access_key_id"] is None):
            missing = "secret_access_key" if secret is None else "access_key_id"
            raise Unfit(
                f"{missing} is not given, and the other is",
                "give both, or neither: then the AWS chain has them (variables, profile, role of the machine)",
            )
        return secret

    @field_validator("session_token")
    @classmethod
    def _token_of_keys(cls, token: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if token is not None and "access_key_id" in info.data and info.data["access_key_id"] is None:
            raise Unfit("it belongs to keys, and there are none", "give access_key_id and secret_access_key with it")
        return token

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
