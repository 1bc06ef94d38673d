"""Reads a YAML or JSON document into plain values and remembers the line of each, so that a fault can name it.

PyYAML's parser, with scalars read by the core schema of YAML 1.2 in place of its own: `no`, `off` and `22:00` stay
text, there are no timestamps, a key that stands twice is a fault, and a tag makes no object. Neither the text nor an
excerpt of it is ever put into a message, since it may hold secrets.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Final

import yaml

from retentiond.errors import Problem

Path = tuple[str, ...]

_MAX_NODES: Final = 100_000
_NULL: Final = ("", "~", "null", "Null", "NULL")
_TRUE: Final = ("true", "True", "TRUE")
_FALSE: Final = ("false", "False", "FALSE")
_INTEGER: Final = re.compile(r"[-+]?[0-9]+", re.ASCII)
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?", re.ASCII)
_PLAIN: Final = "tag:yaml.org,2002:"


@dataclass(slots=True)
class Layer:
    """Values from one source, and for each path where its value was written."""

    values: dict[str, object] = field(default_factory=dict)
    sources: dict[Path, str] = field(default_factory=dict)


def read_document(text: str, *, key: str, name: str, lines: bool = True) -> tuple[Layer, list[Problem]]:
    """The document's values, with sources such as `NAME line 3`, and its faults under `key`.

    `name` says what the document is; without `lines` it alone is the source of every value.
    """
    reader = _Reader(key, name, lines=lines)
    try:
        node = yaml.compose(_spaced(text), Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        reader.malformed(error)
        return Layer(), reader.problems
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        reader.unreadable(error, text)
        return Layer(), reader.problems
    if node is not None and not reader.is_nothing(node):
        reader.root(node)
    return reader.layer, reader.problems


def read_json(text: str) -> tuple[object, str | None]:
    """The value of a JSON text; or None and what is wrong with it, without an excerpt."""
    try:
        return json.loads(text, object_pairs_hook=_distinct), None
    except json.JSONDecodeError as error:
        return None, f"{error.msg} at line {error.lineno} column {error.colno}"
    except (ValueError, RecursionError) as error:
        return None, str(error) if isinstance(error, _RepeatedKeyError) else "it is nested too deeply or too large"


class _RepeatedKeyError(ValueError):
    """A key stands twice in a JSON object."""


def _distinct(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise _RepeatedKeyError("a key stands twice in one object")
    return found


def _spaced(text: str) -> str:
    """JSON may be indented with tabs, which YAML refuses; inside of a JSON string there can't be a raw one."""
    if "\t" in text and text.lstrip().startswith(("{", "[")) and read_json(text)[1] is None:
        return text.replace("\t", " ")
    return text


class _Reader:
    """One pass over the nodes of a document."""

    def __init__(self, key: str, name: str, *, lines: bool) -> None:
        self.key, self.name, self.lines = key, name, lines
        self.layer = Layer()
        self.problems: list[Problem] = []
        self.open: list[yaml.Node] = []
        self.count = 0

    def source(self, line: int) -> str:
        return f"{self.name} line {line}" if self.lines else self.name

    def fault(self, node: yaml.Node, message: str, remedy: str, path: Path = ()) -> None:
        mark = node.start_mark
        where = f"{message} (line {mark.line + 1} column {mark.column + 1})"
        self.problems.append(Problem(".".join(path) or self.key, where, remedy, self.source(mark.line + 1)))

    def malformed(self, error: yaml.MarkedYAMLError) -> None:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        message = f"malformed YAML: {_bare(error.problem or 'it can not be parsed')} (line {line} column {column})"
        remedy = "mend the document there; put text with special characters in quotes, and indent with spaces"
        self.problems.append(Problem(self.key, message, remedy, self.source(line)))

    def unreadable(self, error: Exception, text: str) -> None:
        position = getattr(error, "position", 0)
        before = text[:position] if isinstance(position, int) else ""
        line, column = before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1
        what = "a character that YAML does not allow" if isinstance(error, yaml.YAMLError) else "it can't be parsed"
        message = f"malformed YAML: {what} (line {line} column {column})"
        self.problems.append(Problem(self.key, message, "mend the document there", self.source(line)))

    @staticmethod
    def is_nothing(node: yaml.Node) -> bool:
        return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in _NULL

    def root(self, node: yaml.Node) -> None:
        if isinstance(node, yaml.MappingNode):
            self.layer.values = self.mapping(node, ())
        else:
            self.fault(node, "a mapping was expected at the top", "begin with keys such as `policy:` and `targets:`")

    def value(self, node: yaml.Node, path: Path) -> object:
        self.count += 1
        if node in self.open or self.count > _MAX_NODES:
            if self.count <= _MAX_NODES + 1:
                self.fault(node, "an alias refers to itself, or the document is too large", "write it out", path)
            return None
        self.open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self.mapping(node, path)
            if isinstance(node, yaml.SequenceNode):
                return self.sequence(node, path)
            return self.scalar(node, path) if isinstance(node, yaml.ScalarNode) else None
        finally:
            self.open.pop()

    def mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        self.refuse_tag(node, "map", path)
        found: dict[str, object] = {}
        for name_node, item in node.value:
            if not isinstance(name_node, yaml.ScalarNode):
                self.fault(name_node, "a key must be plain text", "write a plain key", path)
                continue
            name = _joined(name_node.value)
            below = (*path, name)
            if name in found:
                self.fault(name_node, f"the key {name} stands twice", "keep one of them", below)
                continue
            self.layer.sources[below] = self.source(name_node.start_mark.line + 1)
            found[name] = self.value(item, below)
        return found

    def sequence(self, node: yaml.SequenceNode, path: Path) -> list[object]:
        self.refuse_tag(node, "seq", path)
        found = []
        for index, item in enumerate(node.value):
            self.layer.sources[*path, str(index)] = self.source(item.start_mark.line + 1)
            found.append(self.value(item, (*path, str(index))))
        return found

    def scalar(self, node: yaml.ScalarNode, path: Path) -> object:
        text: str = node.value
        if node.style is not None:  # quoted, or a block: text, whatever it looks like
            self.refuse_tag(node, "str", path)
            return _joined(text)
        if text in _NULL:
            return None
        if text in _TRUE or text in _FALSE:
            return text in _TRUE
        self.refuse_tag(node, None, path)
        if len(text) <= 40 and _INTEGER.fullmatch(text):
            return int(text)
        return float(text) if _FLOAT.fullmatch(text) and len(text) <= 40 else _joined(text)

    def refuse_tag(self, node: yaml.Node, plain: str | None, path: Path) -> None:
        """PyYAML gives a node without a tag one of its own, by its 1.1 rules: those pass, all others are faults."""
        if not node.tag.startswith(_PLAIN) or (plain and node.tag != _PLAIN + plain) or "/" in node.tag:
            self.fault(node, "tags are refused", "write the value without !tag", path)


def _joined(text: str) -> str:
    """JSON writes a character beyond U+FFFF as two escapes, which PyYAML leaves apart."""
    if any("\ud800" <= character <= "\udfff" for character in text):
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _bare(problem: str) -> str:
    """The parser's words without what they quote of the document, save single characters and names of tokens."""
    return re.sub(r"""(['"])(?!<)(?:(?!\1).){2,}\1""", "…", problem)
