"""From the environment to `Settings`, or to every fault at once."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, cast, get_args

from pydantic import ValidationError

from retentiond.domain.duration import Duration
from retentiond.domain.policy import Policy, parse_policy
from retentiond.errors import ConfigurationError, Problem
from retentiond.settings import checks
from retentiond.settings.models import Beside, LogFormat, LogLevel, Settings
from retentiond.settings.problems import kind_of, problems_of, unknown_key
from retentiond.settings.sources import LOG_FORMAT, LOG_LEVEL, POLICY_APPROVED, Merged, merged
from retentiond.stores.config import TargetConfig

Need = Literal["targets", "accounts"]

KEYS: Final = tuple(name for name in Settings.model_fields if name != "beside")
# Stands in for a policy that has faults, so that the faults of all else are found as well; it never leaves `load`.
_NO_POLICY: Final = Policy((), MappingProxyType({}), None, Duration(days=30), "longest", None)


def load(environ: Mapping[str, str], *, command_needs: frozenset[Need] = frozenset()) -> Settings:
    """The settings that the environment gives, with all that it refers to (file, document, secrets' files).

    `command_needs` are sections that the command at hand can't do without. Raises ConfigurationError with all problems.
    """
    found = merged(environ)
    problems = list(found.problems)
    policy = _policy(found, problems)
    targets, faults = checks.read_targets(found)
    problems += faults
    beside = _beside(environ, found, problems)
    settings = _validated(found, policy or _NO_POLICY, targets, beside, problems)
    problems += checks.targets_against_policy(found, targets)
    problems += checks.accounts_against_policy(found)
    problems += checks.two_targets_over_the_same_records(found, targets)
    problems += checks.pairs(found, targets)
    problems += checks.short_terms(found)
    if found.incomplete:
        problems = [problem for problem in problems if problem.source != "not set"]
    else:
        problems += checks.mode_needs(found, frozenset(command_needs))
    if problems or settings is None:
        raise ConfigurationError(tuple(dict.fromkeys(problems)))
    return settings


def _policy(found: Merged, problems: list[Problem]) -> Policy | None:
    document = found.values.get("policy", {})
    if not isinstance(document, Mapping):
        message, remedy = f"a mapping was expected, not {kind_of(document)}", "give it keys such as tiers and classes"
        problems.append(Problem("policy", message, remedy, found.source_of("policy")))
        return None
    policy, faults = parse_policy(
        document,
        used_classes=checks.used_classes(found),
        allow_short=checks.short_terms_allowed(found) is True,
    )
    for fault in faults:
        not_json = found.not_json.get(tuple(fault.key.split(".")))
        message = f"{fault.message}; the text is not JSON either: {not_json}" if not_json else fault.message
        problems.append(Problem(fault.key, message, fault.remedy, found.source_of(fault.key)))
    return policy


def _validated(
    found: Merged, policy: Policy, targets: Mapping[str, TargetConfig], beside: Beside, problems: list[Problem]
) -> Settings | None:
    """The settings, where all sections are valid. Their faults go to `problems`."""
    document = dict(found.values)
    for key in sorted(document.keys() - set(KEYS)):
        message, remedy = unknown_key((key,), KEYS)
        problems.append(Problem(key, message, remedy, found.source_of(key)))
        del document[key]
    document.update(policy=policy, targets=targets, beside=beside)
    try:
        return Settings.model_validate(document)
    except ValidationError as error:
        problems += problems_of(error, Settings, found)
        return None


def _beside(environ: Mapping[str, str], found: Merged, problems: list[Problem]) -> Beside:
    word = _words(environ, problems)
    return Beside(
        sources=MappingProxyType(dict(found.sources)),
        policy_document=MappingProxyType(dict(checks.section(found, "policy"))),
        user_folder=_user_folder(environ),
        policy_approved=environ.get(POLICY_APPROVED) or None,
        log_format=cast("LogFormat", word(LOG_FORMAT, get_args(LogFormat), "json")),
        log_level=cast("LogLevel", word(LOG_LEVEL, get_args(LogLevel), "info")),
    )


def _words(environ: Mapping[str, str], problems: list[Problem]) -> Callable[[str, tuple[str, ...], str], str]:
    """A reader of variables that hold one of a few words."""

    def word(name: str, choices: tuple[str, ...], default: str) -> str:
        value = (environ.get(name) or default).lower()
        if value in choices:
            return value
        listed = ", ".join(choices)
        problems.append(Problem(name, f"not one of {listed}", f"use one of {listed}", f"environment variable {name}"))
        return default

    return word


def _user_folder(environ: Mapping[str, str]) -> Path:
    """The user's own folder for state (XDG Base Directory Specification); a temporary one for a user without a home."""
    named = environ.get("XDG_STATE_HOME", "")
    if Path(named).is_absolute():
        return Path(named) / "retentiond"
    home = environ.get("HOME", "")
    if Path(home).is_absolute():
        return Path(home) / ".local" / "state" / "retentiond"
    return Path(tempfile.gettempdir()).absolute() / f"retentiond-{os.getuid()}"
