"""How a server of log records is reached by HTTP: what the kinds of such stores have in common."""

from __future__ import annotations

from typing import Annotated, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, SecretStr, ValidationInfo, field_validator

from retentiond.stores.config import FROZEN, Unfit

HTTP_KEYS: Final = frozenset({"url", "username", "password", "token", "api_key", "ca_file"})
"""The keys that say how a server is reached, and nothing of what is in it."""
_PORTS: Final = {"http": 80, "https": 443}


def _address(url: str) -> str:
    remedy = "write an address such as https://logs.example.com:9200, without user, ? and #"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in _PORTS and bool(parts.hostname) and parts.port != 0
        usable = usable and not (parts.query or parts.fragment or "@" in parts.netloc)
    except ValueError:
        usable = False
    if not usable:
        raise Unfit("not the address of a server", remedy)
    return url.rstrip("/")


def server_of(url: str) -> str:
    """What tells servers apart: host, port and path."""
    parts = urlsplit(url)
    return f"{(parts.hostname or '').lower().rstrip('.')}:{parts.port or _PORTS[parts.scheme]}{parts.path}"


class HttpAccess(BaseModel):
    """Where a server is, and who we are there: by name and password, by a token, by an API key, or as nobody."""

    model_config = FROZEN

    url: Annotated[str, AfterValidator(_address)]
    username: str | None = None
    password: SecretStr | None = Field(default=None, validate_default=True)
    token: SecretStr | None = None
    api_key: SecretStr | None = Field(default=None, validate_default=True)
    ca_file: str | None = None

    # Each on a field and not on the model, whose validators are silent as long as any field is at fault.

    @field_validator("password")
    @classmethod
    def _both(cls, password: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if "username" in info.data and (password is None) != (info.data["username"] is None):
            missing = "password" if password is None else "username"
            raise Unfit(f"{missing} is not given, and the other is", "give both, or neither")
        return password

    @field_validator("api_key")
    @classmethod
    def _one_way(cls, api_key: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        given = [info.data.get("username"), info.data.get("token"), api_key]
        if sum(each is not None for each in given) > 1:
            raise Unfit("more than one of username, token and api_key is given", "log in by one of them")
        return api_key
