"""The configuration of a table as a target, and of the account directory."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)

from retentiond.stores.archive import ArchivePlace
from retentiond.stores.config import FROZEN, TargetConfig, Unfit, group_of, zone
from retentiond.stores.health import HealthyPace

_IDENTIFIER: Final = r'(?:"(?:[^"\x00]|"")+"|[^\W\d][\w$]*)'
_TABLE: Final = re.compile(rf"(?:({_IDENTIFIER})\.)?({_IDENTIFIER})")
_LOOPBACK: Final = {"", "localhost", "::1"}


def parse_table(text: str) -> tuple[str | None, str]:
    """Schema (None where none is given) and name of a table, as PostgreSQL reads them; Unfit where it could not.

    A name without quotes is folded to lower case; `"Logs"` is kept as it is.
    """
    found = _TABLE.fullmatch(text)
    if found is None:
        raise Unfit(
            "not the name of a table",
            'write table or schema.table, with names in double quotes where they need it: public."Request Logs"',
        )
    schema, name = found.groups()
    return (None if schema is None else _fold(schema)), _fold(name)


def _fold(identifier: str) -> str:
    return identifier[1:-1].replace('""', '"') if identifier.startswith('"') else identifier.lower()


def _table(text: str) -> str:
    parse_table(text)
    return text


def _dsn(secret: SecretStr) -> SecretStr:
    """Checks the address's form without ever quoting it: it holds a password."""
    remedy = "write postgresql://user:password@host:port/database, special characters of the password as %40 and so on"
    try:
        parts = urlsplit(secret.get_secret_value())
        usable = parts.scheme in ("postgres", "postgresql") and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise Unfit("not the address of a Postgres database (the value is not shown: it is a secret)", remedy)
    return secret


Table = Annotated[str, AfterValidator(_table)]
Dsn = Annotated[SecretStr, AfterValidator(_dsn)]
Column = Annotated[str, Field(min_length=1, max_length=63)]


def database_of(dsn: SecretStr) -> tuple[str, str, str]:
    """Host, port and database of an address, normalised and without its password, to tell databases apart."""
    parts = urlsplit(dsn.get_secret_value())
    asked = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    host = unquote(parts.hostname or asked.get("host", "")).lower()
    port = str(parts.port or asked.get("port", "5432"))
    user = unquote(parts.username or asked.get("user", ""))
    name = unquote(parts.path.lstrip("/")) or asked.get("dbname") or asked.get("database") or user
    return "127.0.0.1" if host in _LOOPBACK else host, port, name


class AnonymiseColumn(BaseModel):
    """What becomes of one column: null, a constant, a keyed hash of it, or its address cut to /24 or /48.

    Written as `null`, as the constant itself, as `{hash: true}` or `{truncate_ip: true}`. `value` is the constant as
    the text that PostgreSQL casts to the column's type.
    """

    model_config = FROZEN

    method: Literal["null", "constant", "hash", "truncate_ip"]
    value: str | None = None


def _anonymise_column(given: object) -> object:
    if given is None:
        return AnonymiseColumn(method="null")
    if isinstance(given, bool):
        return AnonymiseColumn(method="constant", value=str(given).lower())
    if isinstance(given, (str, int, float)):
        return AnonymiseColumn(method="constant", value=str(given))
    if given == {"hash": True}:
        return AnonymiseColumn(method="hash")
    if given == {"truncate_ip": True}:
        return AnonymiseColumn(method="truncate_ip")
    raise Unfit("not a way to anonymise a column", "write null, a constant, {hash: true} or {truncate_ip: true}")


class Anonymise(BaseModel):
    """How a record is anonymised: what becomes of each column that is named, and a column that marks it as done.

    Without a marker the changed values themselves are the mark.
    """

    model_config = FROZEN

    columns: dict[Column, Annotated[AnonymiseColumn, BeforeValidator(_anonymise_column)]] = Field(default_factory=dict)
    marker: Column | None = None


def _key(given: object) -> object:
    return (given,) if isinstance(given, str) else given


class PostgresTarget(TargetConfig):
    """A table: which column dates its records, and how their account and tier are known.

    `unit` is that of a numeric anchor, `timezone` that of a naive one; `key` are the columns that tell records apart
    (the primary key by default); `vacuum` lets a large sweep end with one. With `native_holds` the database itself
    keeps what a hold covers. `partitions` says whether one in which every record is due is dropped; `archive` where
    records are kept that are archived before they are deleted.
    """

    actions: ClassVar[frozenset[str]] = frozenset({"delete", "anonymise", "archive"})
    no_verdict: ClassVar[frozenset[str]] = TargetConfig.no_verdict | {
        "dsn", "vacuum", "native_holds", "partitions", "archive",
    }  # fmt: skip

    store: Literal["postgres"]
    dsn: Dsn
    table: Table
    anchor: Column
    account: Column | None = None
    key: Annotated[tuple[Column, ...], BeforeValidator(_key), Field(min_length=1)] | None = None
    tier_column: Column | None = None
    timezone: str = "UTC"
    unit: Literal["s", "ms", "us"] | None = None
    anonymise: Anonymise | None = None
    archive: ArchivePlace | None = None
    pace: HealthyPace = HealthyPace()
    vacuum: bool = False
    native_holds: bool = False
    partitions: Literal["drop", "rows"] = "drop"

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        zone(value)
        return value

    @field_validator("tier_column")
    @classmethod
    def _one_tier(cls, column: str | None, info: ValidationInfo) -> str | None:
        """On the field and not the model, whose validators are silent as long as any field is at fault."""
        if column is not None and info.data.get("tier") is not None:
            raise Unfit("both tier and tier_column are given", "keep tier (a constant) or tier_column, not both")
        return column

    @field_validator("archive")
    @classmethod
    def _within_its_regions(cls, place: ArchivePlace | None, info: ValidationInfo) -> ArchivePlace | None:
        if place is not None and {"region", "region_group"} <= info.data.keys():
            place.require_within(info.data["region_group"] or group_of(info.data["region"]))
        return place

    def records(self) -> tuple[str, ...]:
        """The table in its database. A name without a schema is taken to be in `public`."""
        schema, name = parse_table(self.table)
        return (self.store, *database_of(self.dsn), schema or "public", name)

    def rules(self) -> Mapping[str, AnonymiseColumn]:
        """What becomes of each column when a record is anonymised; empty: the account reference is removed."""
        return self.anonymise.columns if self.anonymise else {}

    def refuse(self, action: str) -> Unfit | None:
        """What an action needs; and what is given for one that is not taken means that records go unawares."""
        if action == "anonymise" and not self.rules() and self.account is None:
            return Unfit(
                "the action is anonymise, but nothing says what to change",
                "add anonymise: {columns: {NAME: null}}, or account: so that the account reference is removed",
            )
        if action != "anonymise" and self.anonymise is not None:
            return Unfit(
                f"anonymise is given, but the action is {action}", "set action: anonymise, or take anonymise out"
            )
        if action == "archive" and self.archive is None:
            return Unfit(
                "the action is archive, but nothing says where records are kept",
                "add archive: {bucket: NAME, region: REGION}, or set action: delete",
            )
        if action != "archive" and self.archive is not None:
            return Unfit(f"archive is given, but the action is {action}", "set action: archive, or take archive out")
        return super().refuse(action)


class AccountsConfig(BaseModel):
    """The account directory: a table, or a query giving the same columns (2-semantics, "Tiers")."""

    model_config = FROZEN

    dsn: Dsn
    table: Table | None = None
    query: str | None = Field(default=None, validate_default=True)
    id: Column = "id"
    tier: Column = "tier"
    deleted_at: Column | None = None
    overrides: Column | None = None
    tier_changed_at: Column | None = None
    tier_map: dict[str, str] = Field(default_factory=dict)
    missing: Literal["unknown", "deleted"] = "unknown"

    @field_validator("query")
    @classmethod
    def _one_relation(cls, query: str | None, info: ValidationInfo) -> str | None:
        """On the field for the same reason as `tier_column`'s."""
        if "table" in info.data and (info.data["table"] is None) == (query is None):
            fault = "neither table nor query is given" if query is None else "both table and query are given"
            raise Unfit(fault, "give exactly one of accounts.table and accounts.query")
        return query
