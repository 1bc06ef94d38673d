"""Where settings come from, and their merge: each value keeps the name of the source that it was taken from.

Shipped default policy < file (`RETENTIOND_CONFIG_FILE`) < document (`RETENTIOND_CONFIG`) < single variables
(3-interface, "Configuration"). pydantic-settings has sources for each of these, but none that remembers a line or lets
a fault name the variable; so the merge is ours, and the merged document is handed to it as the only source.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path as FilePath
from typing import Final

from retentiond.errors import Problem
from retentiond.settings.documents import Layer, Path, read_document, read_json

PREFIX: Final = "RETENTIOND_"
CONFIG: Final = f"{PREFIX}CONFIG"
CONFIG_FILE: Final = f"{PREFIX}CONFIG_FILE"
POLICY_APPROVED: Final = f"{PREFIX}POLICY_APPROVED"
LOG_FORMAT: Final = f"{PREFIX}LOG_FORMAT"
LOG_LEVEL: Final = f"{PREFIX}LOG_LEVEL"
NO_KEYS: Final = frozenset({CONFIG, CONFIG_FILE, POLICY_APPROVED, LOG_FORMAT, LOG_LEVEL})
SHIPPED: Final = "shipped default policy"

_SECRETS: Final = frozenset(
    {"dsn", "password", "secret", "token", "api_key", "auth_key", "secret_key", "secret_access_key", "access_key_id"}
)
_SECRET_ENDINGS: Final = ("_dsn", "_password", "_secret", "_token", "_secret_key")
_SECTIONS: Final = frozenset(
    {"control", "policy", "accounts", "targets", "guards", "holds", "erasure", "ledger", "http", "sweep"}
)


@dataclass(slots=True)
class Merged:
    """The document that all sources give together, the source of each of its values, and the faults on the way."""

    values: dict[str, object] = field(default_factory=dict)
    sources: dict[Path, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    not_json: dict[Path, str] = field(default_factory=dict)
    incomplete: bool = False  # a whole document is missing for its faults: what it would have set is not missed

    def add(self, layer: Layer) -> None:
        """Lays a later source over what there is; mappings are merged, everything else replaces."""
        values = {name: item for name, item in layer.values.items() if item is not None or name not in _SECTIONS}
        self._merge(self.values, values, (), layer.sources)

    def _merge(
        self, into: dict[str, object], values: Mapping[str, object], path: Path, sources: Mapping[Path, str]
    ) -> None:
        for name, item in values.items():
            below, have = (*path, name), into.get(name)
            if isinstance(have, dict) and isinstance(item, Mapping):
                self._merge(have, item, below, sources)
                continue
            for stale in [known for known in self.sources if known[: len(below)] == below]:
                del self.sources[stale]
            self.sources.update({known: text for known, text in sources.items() if known[: len(below)] == below})
            into[name] = _copied(item)

    def source_of(self, key: str) -> str:
        """Where a dotted key was written; a section that only variables give: by the first of them.

        A key that is missing was written nowhere: then where the section was written that lacks it, else `not set`.
        """
        written = origin(self.sources, key)
        if written is None:
            dotted = {".".join(path): text for path, text in self.sources.items()}
            written = dotted.get(key.rpartition(".")[0])
        return written or "not set"


def origin(sources: Mapping[Path, str], key: str) -> str | None:
    """The source of what stands at a dotted key or, for want of one, of the first thing below it."""
    dotted = {".".join(path): text for path, text in sources.items()}
    below = (text for known, text in dotted.items() if known.startswith(f"{key}."))
    return dotted.get(key) or next(below, None)


def _copied(item: object) -> object:
    return {name: _copied(below) for name, below in item.items()} if isinstance(item, Mapping) else item


def is_secret(path: Path) -> bool:
    """Whether the value at the path is a secret: never shown, and `_FILE` may name a file that holds it."""
    last = path[-1] if path else ""
    if path[:1] in (("policy",), ("http",)):
        return False
    return path == ("ledger", "key") or last in _SECRETS or last.endswith(_SECRET_ENDINGS)


def variable(key: str) -> str:
    """The single variable that sets a dotted key."""
    return PREFIX + key.replace(".", "__").upper()


def merged(environ: Mapping[str, str]) -> Merged:
    """The merge of all sources that the environment names."""
    found = Merged()
    own = [layer for layer in (_file(environ, found), _document(environ, found)) if layer]
    own += list(_variables(environ, found))
    if not _drops_the_default(own, found):
        shipped, _ = read_document(default_policy(), key="policy", name=SHIPPED, lines=False)
        found.add(shipped)
    for layer in own:
        found.add(layer)
    return found


def default_policy() -> str:
    """The text of the shipped default policy."""
    return resources.files("retentiond.settings").joinpath("default_policy.yaml").read_text(encoding="utf-8")


def _drops_the_default(layers: list[Layer], found: Merged) -> bool:
    bases = [
        (policy["base"], layer.sources.get(("policy", "base"), ""))
        for layer in layers
        if isinstance(policy := layer.values.get("policy"), Mapping) and "base" in policy
    ]
    base, source = bases[-1] if bases else ("default", "")
    if base not in ("none", "default"):
        remedy = "write none to drop the shipped default policy, or take policy.base out to keep it"
        found.problems.append(Problem("policy.base", "neither none nor default", remedy, source))
    return base == "none"


def _file(environ: Mapping[str, str], found: Merged) -> Layer | None:
    name = environ.get(CONFIG_FILE)
    if not name:
        return None
    text, fault = _read(name)
    if fault is not None:
        message = f"the file {name} {fault}"
        remedy = "name a YAML file that this process can read, or unset the variable"
        found.problems.append(Problem(CONFIG_FILE, message, remedy, f"environment variable {CONFIG_FILE}"))
        found.incomplete = True
        return None
    return _read_into(found, text, key=CONFIG_FILE, name=f"file {name}")


def _read_into(found: Merged, text: str, *, key: str, name: str) -> Layer:
    layer, problems = read_document(text, key=key, name=name)
    found.problems += problems
    found.incomplete |= bool(problems) and not layer.values
    return layer


def _document(environ: Mapping[str, str], found: Merged) -> Layer | None:
    text = environ.get(CONFIG)
    if not text:
        return None
    return _read_into(found, text, key=CONFIG, name=CONFIG)


def _variables(environ: Mapping[str, str], found: Merged) -> Iterator[Layer]:
    """One layer for each single variable, deeper ones last: they refine what a JSON text above them says."""
    taken: dict[Path, str] = {}
    names = (name for name in environ if name.upper().startswith(PREFIX) and name.upper() not in NO_KEYS)
    for name in sorted(names, key=lambda name: (name.count("__"), name)):
        source = f"environment variable {name}"
        path = tuple(name[len(PREFIX) :].lower().split("__"))
        if not all(path):
            message, remedy = "the variable names no key", "join the levels of a key by two underscores"
            found.problems.append(Problem(name, message, remedy, source))
            continue
        path, value = _value(path, environ[name], source, found)
        if path in taken:
            message = f"given twice, also by {taken[path]}"
            found.problems.append(Problem(".".join(path), message, "unset one of the two variables", source))
            continue
        taken[path] = source
        if value is not None:
            yield _nested(path, value, source)


def _value(path: Path, text: str, source: str, found: Merged) -> tuple[Path, object]:
    """The path that a variable sets, and the value; None with a fault reported."""
    bare = (*path[:-1], path[-1].removesuffix("_file"))
    if path != bare and is_secret(bare):
        return bare, _secret_file(bare, text, source, found)
    if not text:
        remedy = "give it a value, or unset it"
        found.problems.append(Problem(".".join(path), "the variable is empty", remedy, source))
        return path, None
    if text.lstrip().startswith(("{", "[")) and not is_secret(path):
        value, fault = read_json(text)
        if fault is None:
            return path, value
        found.not_json[path] = fault
    return path, text


def _secret_file(path: Path, name: str, source: str, found: Merged) -> str | None:
    """The secret in the file; its name is not repeated in a message, since the secret itself may stand there."""
    text, fault = _read(name)
    if fault is None and not text.rstrip("\r\n"):
        fault = "is empty"
    if fault is not None:
        remedy = "name a file that holds the secret and that this process can read"
        found.problems.append(Problem(".".join(path), f"the file that the variable names {fault}", remedy, source))
        return None
    return text.removesuffix("\n").removesuffix("\r")


def _read(name: str) -> tuple[str, str | None]:
    """The text of a file; or nothing, and why it can't be read."""
    try:
        return FilePath(name).read_text(encoding="utf-8-sig"), None
    except OSError as error:
        return "", f"can't be read: {error.strerror or type(error).__name__}"
    except ValueError:
        return "", "is not UTF-8 text"


def _nested(path: Path, value: object, source: str) -> Layer:
    """The layer of one variable. Only the value has a source: the mappings around it were written nowhere."""
    nested = value
    for name in reversed(path):
        nested = {name: nested}
    assert isinstance(nested, dict)
    return Layer(nested, dict.fromkeys(_paths(value, path), source))


def _paths(value: object, path: Path) -> Iterator[Path]:
    """The path of a value and of everything in it."""
    yield path
    inner = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for name, item in inner:
        yield from _paths(item, (*path, str(name)))
