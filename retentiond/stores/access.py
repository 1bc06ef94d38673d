"""How AWS, or what speaks its API, is reached: the settings that targets there and the archive of a table share."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationInfo, field_validator

from retentiond.stores.config import FROZEN, Unfit

_BUCKET: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,253}[A-Za-z0-9])?", re.ASCII)
_AWS: Final = re.compile(r"(?:.+\.)?amazonaws\.com(?:\.cn)?", re.ASCII | re.IGNORECASE)
_LOOPBACK: Final = frozenset({"localhost", "::1", "127.0.0.1"})
_PORTS: Final = {"http": 80, "https": 443}
AWS: Final = "aws"
ACCESS_KEYS: Final = frozenset({"endpoint_url", "access_key_id", "secret_access_key", "session_token", "addressing"})
"""The keys that say how a bucket is reached, and nothing of what is in it."""


def bucket_name(name: str) -> str:
    """The name, if it can be one of a bucket; raises Unfit."""
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
        raise Unfit("not the address of an endpoint", remedy)
    return url


def service_of(endpoint_url: str | None) -> str:
    """What tells the services apart that have buckets of their own: AWS whatever the region, else host, port, path."""
    if endpoint_url is None:
        return AWS
    parts = urlsplit(endpoint_url)
    host = (parts.hostname or "").lower().rstrip(".")
    if _AWS.fullmatch(host):
        return AWS
    place = "127.0.0.1" if host in _LOOPBACK else host
    return f"{place}:{parts.port or _PORTS[parts.scheme]}{parts.path.rstrip('/')}"


class EndpointAccess(BaseModel):
    """Where an endpoint of AWS, or one that speaks its API, is, and who we are there.

    Without keys of its own for access the ordinary AWS chain has the credentials.
    """

    model_config = FROZEN

    endpoint_url: Annotated[str, AfterValidator(_endpoint)] | None = None
    access_key_id: SecretStr | None = None
    secret_access_key: SecretStr | None = Field(default=None, validate_default=True)
    session_token: SecretStr | None = None

    # Each on a field and not on the model, whose validators are silent as long as any field is at fault.

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


class BucketAccess(EndpointAccess):
    """A bucket, and where its keys begin."""

    bucket: Annotated[str, AfterValidator(bucket_name)]
    prefix: str = Field(default="", max_length=1024)
    addressing: Literal["auto", "path", "virtual"] = "auto"


Tag = Annotated[str, Field(min_length=1, max_length=128)]


class Tags(BaseModel):
    """The tags of a record, or of what holds it, that its account or tier is read from."""

    model_config = FROZEN

    account: Tag | None = None
    tier: Tag | None = None
