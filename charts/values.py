"""The values of the chart, with what their comments say: ``values.yaml``, read with its comments."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml
from yaml.constructor import SafeConstructor

from charts.kinds import KINDS, Schema

CHART: Final = Path(__file__).parent / "wasm-mirror"

_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array"}


class BadComment(Exception):
    """A value has no comment, or one that cannot be read; the message names it."""


@dataclass(frozen=True)
class Value:
    """One value, or a mapping of them.

    ``about`` is what its comment says, on one line. ``kind`` is the name of a kind, ``schema`` is what the value may
    be; of a mapping with ``children`` they are empty.
    """

    path: str
    default: Any
    about: str
    kind: str
    schema: Schema
    children: tuple["Value", ...] = ()

    @property
    def name(self) -> str:
        """The last step of its path."""
        return self.path.rpartition(".")[2]

    def leaves(self) -> Iterator["Value"]:
        """The values in it, or itself."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.leaves()


def read(text: str) -> tuple[Value, ...]:
    """The values at the top. Raises `BadComment`."""
    root = yaml.compose(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    assert isinstance(root, yaml.MappingNode)
    return tuple(_values(root, "", text.splitlines()))


def _values(mapping: yaml.MappingNode, prefix: str, lines: list[str]) -> Iterator[Value]:
    for key, node in mapping.value:
        path = prefix + key.value
        about, asked = _comment(path, lines, key.start_mark.line)
        if isinstance(node, yaml.MappingNode) and node.value and asked is None:
            yield Value(path, None, about, "", {}, tuple(_values(node, f"{path}.", lines)))
            continue
        if not about:
            raise BadComment(f"{path} has no comment that begins with `# --`")
        default = SafeConstructor().construct_document(node)
        yield Value(path, default, about, *_schema(path, default, asked))


def _comment(path: str, lines: list[str], line: int) -> tuple[str, str | None]:
    """What stands above a line: the words after ``# --``, and those after ``# @schema``."""
    above: list[str] = []
    while line and (found := re.fullmatch(r"\s*#\s?(.*)", lines[line - 1])):
        line -= 1
        above.insert(0, found[1].strip())
    asked = [text.removeprefix("@schema").strip() for text in above if text.startswith("@schema")]
    words = [text for text in above if not text.startswith("@schema")]
    starts = [number for number, text in enumerate(words) if text.startswith("-- ")]
    if len(asked) > 1 or len(starts) > 1:
        raise BadComment(f"{path} has two comments; a free line has to stand between values")
    about = " ".join(words[starts[0] :]).removeprefix("-- ") if starts else ""
    return about, asked[0] if asked else None


def _schema(path: str, default: object, asked: str | None) -> tuple[str, Schema]:
    """The kind and the schema of a value, of what was asked for and of the default's own type."""
    if asked in KINDS:
        return asked, KINDS[asked]
    kind = _TYPES.get(type(default))
    schema = yaml.safe_load(asked) if asked else {}
    if kind is None or not isinstance(schema, dict) or (kind == "array" and "items" not in schema):
        raise BadComment(f"{path} needs a line `# @schema` with one of {', '.join(KINDS)}, or JSON Schema in YAML")
    return kind, {"type": kind} | schema
