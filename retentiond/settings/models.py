"""The settings as frozen models: each key with its unit, its default and why, and what `load` returns.

Durations that calendars bear on are `Duration`s; short spans are seconds, written as a number or as a duration.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path as FilePath
from typing import Annotated, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
    InstanceOf,
    PlainSerializer,
    SecretStr,
    SerializeAsAny,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from retentiond.domain.duration import Duration, parse_duration
from retentiond.domain.policy import Policy
from retentiond.errors import DurationError
from retentiond.settings.sources import origin
from retentiond.stores.config import FROZEN, TargetConfig, Unfit
from retentiond.stores.postgres.config import AccountsConfig, Dsn

HIDDEN: Final = "********"
LogFormat = Literal["json", "console"]
LogLevel = Literal["debug", "info", "warning", "error"]
Role = Literal["viewer", "operator", "counsel", "privacy", "admin"]


def _duration(given: object) -> object:
    if isinstance(given, Duration):
        return given
    if not isinstance(given, str):
        raise Unfit("a duration was expected", "write an ISO 8601 duration such as P7D or PT12H")
    try:
        return parse_duration(given)
    except DurationError as error:
        raise Unfit(error.message, "write an ISO 8601 duration such as P7D or PT12H") from None


def _seconds(given: object) -> object:
    """Seconds from a number, its text, or a duration without months, whose length is not fixed."""
    if not isinstance(given, str) or not given.startswith("P"):
        return given
    duration = _duration(given)
    if not isinstance(duration, Duration) or duration.months:
        raise Unfit(f"{given} has no fixed length", "write seconds, or a duration of days, hours, minutes and seconds")
    return duration.nominal() / 1e6


def _absolute(given: object) -> object:
    if isinstance(given, str) and not FilePath(given).is_absolute():
        raise Unfit("the path is not absolute", "write it from the root on, such as /var/lib/retentiond")
    return given


def _lower(given: object) -> object:
    return given.lower() if isinstance(given, str) else given


Span = Annotated[InstanceOf[Duration], BeforeValidator(_duration), PlainSerializer(str, return_type=str)]
Seconds = Annotated[float, BeforeValidator(_seconds), Field(gt=0)]
Folder = Annotated[FilePath, BeforeValidator(_absolute)]
Fraction = Annotated[float, Field(ge=0, le=1)]


class Control(BaseModel):
    """The control database. Without `dsn` it is an embedded one; `id` pins which one it must be."""

    model_config = FROZEN

    dsn: Dsn | None = None
    id: str | None = None


class Guards(BaseModel):
    """When erasing stops until someone approves (4-safety, "Guards")."""

    model_config = FROZEN

    max_fraction: Fraction = 0.25  # of a target's records in one sweep; 1.0 switches it off
    min_records: int = Field(default=500, ge=0)  # below it the fraction guard does not ask
    max_records: int | None = Field(default=None, ge=0)
    max_accounts_shortened: Fraction = 0.05  # of the directory's accounts since the last sweep
    min_accounts_shortened: int = Field(default=20, ge=0)
    max_clock_skew: Seconds = 60.0
    max_clock_jump: Span = Duration(days=7)  # a long weekend must not need a human
    allow_short_ttl: bool = False  # terms under a day


class Holds(BaseModel):
    """Legal holds. `late_effect_grace`: how long a request accepted in time may still take effect (seconds)."""

    model_config = FROZEN

    release_grace: Span = Duration(days=7)
    two_person: bool = False
    late_effect_grace: Seconds = 120.0


class Erasure(BaseModel):
    """What account erasures say of backups: how long they are replayed, and when the last copy is gone."""

    model_config = FROZEN

    replay_horizon: Span | None = None
    backup_horizon: Span | None = None


class Ledger(BaseModel):
    """`key` signs checkpoints; without it one is made in the state folder at first start."""

    model_config = FROZEN

    key: SecretStr | None = None


def _token_digest(given: object) -> object:
    found = _lower(given)
    if found == _OF_NOTHING:
        raise Unfit("it is the SHA-256 of an empty text", "run `retentiond token new NAME --role ROLE`")
    return found


def _network(given: object) -> object:
    try:
        return str(ip_network(given, strict=False)) if isinstance(given, str) else given
    except ValueError:
        raise Unfit("an address or a network was expected", "write one such as 10.0.0.7 or 10.0.0.0/8") from None


_OF_NOTHING: Final = hashlib.sha256(b"").hexdigest()
_PRINCIPAL: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}", re.ASCII)
_OURS: Final = ("daemon", "lapsed")
"""Names that the ledger has for what nobody did."""


def is_principal(name: str) -> bool:
    """Whether a token may be called so."""
    return _PRINCIPAL.fullmatch(name) is not None and name.lower() not in _OURS


class Token(BaseModel):
    """Who may use the API: a role, and the SHA-256 of the token in hexadecimal."""

    model_config = FROZEN

    role: Role
    sha256: Annotated[str, BeforeValidator(_token_digest), Field(pattern=r"^[0-9a-f]{64}$")]


class Tls(BaseModel):
    """The PEM files of the certificate, with its chain, and of its key; read again when they change."""

    model_config = FROZEN

    certificate: Folder
    key: Folder


class Http(BaseModel):
    """Where HTTP is served, and the tokens by name.

    `trusted_proxies` are the addresses whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    """

    model_config = FROZEN

    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8087, ge=0, le=65_535)
    tokens: dict[str, Token] = Field(default_factory=dict)
    tls: Tls | None = None
    trusted_proxies: tuple[Annotated[str, BeforeValidator(_network)], ...] = ()
    max_connections: int = Field(default=1_000, ge=1, le=100_000)

    @model_validator(mode="after")
    def _each_its_own(self) -> Self:
        """Two names for one token would be two people where a release takes two."""
        seen: dict[str, str] = {}
        for name, token in self.tokens.items():
            if not is_principal(name):
                raise Unfit(
                    f"tokens: {name!r} can't be the name of a token",
                    "use letters, digits and . _ @ + -, at most 64 of them, and no name of the daemon's own",
                )
            if token.sha256 in seen:
                raise Unfit(f"tokens: {seen[token.sha256]} and {name} have the same token", "make one for each of them")
            seen[token.sha256] = name
        return self


class Sweep(BaseModel):
    """How soon after a sweep the next may be looked for, and when it must be (seconds)."""

    model_config = FROZEN

    min_interval: Seconds = 60.0
    max_interval: Seconds = 21_600.0

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_interval > self.max_interval:
            raise Unfit("min_interval is above max_interval", "lower sweep.min_interval or raise sweep.max_interval")
        return self


class Workers(BaseModel):
    """How much one process works on at the same time: whole targets, and shards of large ones.

    `connections`: how many it may have to one address of targets, however many targets are there; four more are kept
    for holds, and the account directory has twelve of its own.
    """

    model_config = FROZEN

    concurrency: int = Field(default=16, ge=2, le=256)
    connections: int = Field(default=24, ge=4, le=1024)


@dataclass(frozen=True, slots=True)
class Beside:
    """What comes with the settings and is no key: `sources` by path, the policy as it was written, the rest."""

    sources: Mapping[tuple[str, ...], str]
    policy_document: Mapping[str, object]
    user_folder: FilePath
    policy_approved: str | None = None
    log_format: LogFormat = "json"
    log_level: LogLevel = "info"


class Settings(BaseSettings):
    """The effective configuration. Made by `load`; nothing here reads the environment."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)

    mode: Literal["plan", "enforce"] = "plan"
    control: Control = Control()
    state_dir: Folder | None = None
    shutdown_grace: Seconds = 20.0
    policy: Annotated[InstanceOf[Policy], PlainSerializer(Policy.document)]
    accounts: AccountsConfig | None = None
    targets: dict[str, SerializeAsAny[InstanceOf[TargetConfig]]] = Field(default_factory=dict)
    guards: Guards = Guards()
    holds: Holds = Holds()
    erasure: Erasure = Erasure()
    ledger: Ledger = Ledger()
    http: Http = Http()
    sweep: Sweep = Sweep()
    workers: Workers = Workers()

    beside: InstanceOf[Beside] = Field(exclude=True, repr=False)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - it is in the merged document
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - there is none
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - secrets are in the merged document
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The merged document is the only source: pydantic's own would read the environment a second time."""
        return (init_settings,)

    @property
    def policy_approved(self) -> str | None:
        """The digest that `RETENTIOND_POLICY_APPROVED` approves."""
        return self.beside.policy_approved

    @property
    def log_format(self) -> LogFormat:
        """How logs are written."""
        return self.beside.log_format

    @property
    def log_level(self) -> LogLevel:
        """From which level on: debug, info, warning or error."""
        return self.beside.log_level

    def state_folder(self) -> FilePath:
        """Where state is kept: `state_dir`, else this user's own folder for it. Absolute; not created here."""
        return self.state_dir or self.beside.user_folder

    def source_of(self, key: str) -> str:
        """Where the value of a dotted key came from; `default` where nothing gave one."""
        return origin(self.beside.sources, key) or "default"

    def describe(self) -> dict[str, object]:
        """The effective configuration as plain values, every secret as `********`, the policy as it was written."""
        shown = _shown(self.model_dump(by_alias=True, exclude={"policy"}))
        assert isinstance(shown, dict)
        return {**shown, "policy": _shown(self.beside.policy_document)}

    def digest_document(self) -> dict[str, object]:
        """All that enters a verdict, JSON-able, for the digest. No address, pace, window, vacuum, region."""
        accounts = self.accounts
        return {
            "policy": self.policy.document(),
            "accounts": accounts.model_dump(mode="json", exclude={"dsn"}) if accounts else None,
            "targets": {
                name: target.model_dump(mode="json", by_alias=True, exclude=set(target.no_verdict))
                for name, target in sorted(self.targets.items())
            },
        }


def _shown(value: object) -> object:
    if isinstance(value, SecretStr):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(name): _shown(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_shown(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
