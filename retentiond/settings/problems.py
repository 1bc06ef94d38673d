"""pydantic's errors as Problems: the dotted key, plain words, a remedy, and never the value of a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from retentiond.errors import Problem
from retentiond.settings.sources import Merged, is_secret, variable
from retentiond.stores.config import Unfit

_PLAIN: Final = re.compile(r"[\w.+-]{1,40}", re.ASCII)
_KINDS: Final = {
    "int": ("a whole number was expected", "write a whole number, such as 500"),
    "float": ("a number was expected", "write a number, such as 0.5"),
    "finite_number": ("a number was expected", "write a number, such as 0.5"),
    "bool": ("true or false was expected", "write true or false"),
    "string": ("text was expected", "write text; in YAML, put what looks like a number in quotes"),
    "path": ("a path was expected", "write an absolute path"),
    "tuple": ("a list was expected", "write a list, such as [a, b]"),
    "list": ("a list was expected", "write a list, such as [a, b]"),
    "dict": ("a mapping was expected", "give it keys with values below it"),
    "mapping": ("a mapping was expected", "give it keys with values below it"),
    "model": ("a mapping was expected", "give it keys with values below it"),
    "is": ("a mapping was expected", "give it keys with values below it"),
}
_LIMITS: Final = {
    "greater_than_equal": ("ge", "must be at least"),
    "greater_than": ("gt", "must be above"),
    "less_than_equal": ("le", "must be at most"),
    "less_than": ("lt", "must be below"),
}


def problems_of(
    error: ValidationError, model: type[BaseModel], merged: Merged, prefix: tuple[str, ...] = ()
) -> list[Problem]:
    """One Problem for each fault that pydantic found in a model whose values stand at `prefix`."""
    return [_problem(details, model, merged, prefix) for details in error.errors(include_url=False)]


def _problem(details: ErrorDetails, model: type[BaseModel], merged: Merged, prefix: tuple[str, ...]) -> Problem:
    inner = tuple(str(part) for part in details["loc"] if part != "[key]")
    path = (*prefix, *inner)
    key = ".".join(path)
    message, remedy = _words(details, path, siblings(model, inner))
    if (fault := merged.not_json.get(path)) is not None and "expected" in message:
        message, remedy = f"{message}, and the text is not JSON: {fault}", "mend the JSON text"
    return Problem(key, message, remedy, merged.source_of(key))


def _words(details: ErrorDetails, path: tuple[str, ...], known: Sequence[str]) -> tuple[str, str]:
    kind, context, key = details["type"], details.get("ctx", {}), ".".join(path)
    if kind == "missing":
        return "required, but not set", f"set {key}, in a file or document or as {variable(key)}"
    if kind == "extra_forbidden":
        return unknown_key(path, known)
    if kind == "literal_error":
        choices = str(context.get("expected", "")).replace("'", "").replace(" or ", ", ")
        return f"{shown(details['input'], path)} is not one of {choices}", f"use one of {choices}"
    if kind == "value_error":
        return _own(context.get("error"))
    return _limit(kind, context, key) or _wrong_type(kind, details["input"])


def _limit(kind: str, context: Mapping[str, object], key: str) -> tuple[str, str] | None:
    """Words for a value of the right type that is out of bounds."""
    if kind in _LIMITS:
        name, words = _LIMITS[kind]
        return (
            f"{words} {context.get(name)}",
            f"write a number that is {words.removeprefix('must be ')} {context.get(name)}",
        )
    if kind in ("too_short", "string_too_short"):
        return "it is empty", "give it at least one value"
    if kind == "string_too_long":
        return f"longer than {context.get('max_length')} characters", "shorten it"
    return ("not of the form that is expected", _pattern_remedy(key)) if kind == "string_pattern_mismatch" else None


def _own(error: object) -> tuple[str, str]:
    if isinstance(error, Unfit):
        return error.message, error.remedy
    return "the value can't be used", "see the documentation of this key"


def _pattern_remedy(key: str) -> str:
    if key.endswith(".sha256"):
        return "write the 64 hexadecimal digits that `retentiond token new` prints"
    return "see the documentation of this key"


def _wrong_type(kind: str, given: object) -> tuple[str, str]:
    for begin, (message, remedy) in _KINDS.items():
        if kind == begin or kind.startswith(f"{begin}_"):
            return f"{message}, not {kind_of(given)}", remedy
    return "the value can't be used", "see the documentation of this key"


def unknown_key(path: tuple[str, ...], known: Sequence[str]) -> tuple[str, str]:
    """Message and remedy for a key that there is not, with the likeliest one that is meant."""
    bare = path[-1].removesuffix("_file")
    close = get_close_matches(path[-1], known, n=1) or get_close_matches(bare, known, n=1)
    if close and bare == close[0] != path[-1]:
        return "there is no such key, and only a secret can come from a file", f"set {'.'.join((*path[:-1], bare))}"
    where = f"known here: {', '.join(known)}" if known else "take it out"
    return "there is no such key", f"did you mean {close[0]}? {where}" if close else where


def shown(value: object, path: tuple[str, ...]) -> str:
    """A value as a message may repeat it: short and plain, and no secret."""
    if not isinstance(value, str):
        return kind_of(value)
    return repr(value) if _PLAIN.fullmatch(value) and not is_secret(path) else "this text"


def kind_of(value: object) -> str:
    """What a value is, in words, without repeating it."""
    if value is None:
        return "nothing"
    names: dict[type, str] = {bool: "true or false", int: "a number", float: "a number", str: "text", list: "a list"}
    return "a mapping" if isinstance(value, Mapping) else names.get(type(value), type(value).__name__)


def siblings(model: type[BaseModel], path: tuple[str, ...]) -> tuple[str, ...]:
    """The keys that the model has at the place of the path's last part."""
    at: Any = model
    for part in path[:-1]:
        at = _below(at, part)
    return tuple(field.alias or name for name, field in at.model_fields.items()) if _is_model(at) else ()


def _below(at: Any, part: str) -> Any:
    if _is_model(at):
        fields = {field.alias or name: field.annotation for name, field in at.model_fields.items()}
        return _bare(fields.get(part))
    arguments = get_args(at)
    return _bare(arguments[1]) if get_origin(at) is dict and len(arguments) > 1 else None


def _bare(annotation: Any) -> Any:
    """An annotation without `None` and metadata."""
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        return next((_bare(part) for part in get_args(annotation) if part is not type(None)), None)
    return annotation


def _is_model(at: Any) -> bool:
    return isinstance(at, type) and issubclass(at, BaseModel)
