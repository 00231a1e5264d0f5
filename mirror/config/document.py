"""A YAML file as plain values: mappings, lists, and text for every scalar, with the line on which each key stands.

Scalars stay text (an empty one and ``null`` are None), so that what a value means is decided by its key alone: a
password of digits is a password, and a user called ``no`` is one. Nothing in a file can name a Python type. Source:
YAML 1.1, as PyYAML's safe loader composes it.
"""

import difflib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

from mirror.config.problems import ConfigurationError, Location, Origin, Problem

MAX_FILE_SIZE: Final = 1 << 20
MAX_NODES: Final = 100_000  # with aliases followed; a bomb of a few lines has billions
MAX_DEPTH: Final = 32

_PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float", "str", "timestamp", "value", "merge")
)
_NULL, _MAP, _SEQ = (f"tag:yaml.org,2002:{name}" for name in ("null", "map", "seq"))
# What a syntax error quotes from the file may be part of a password; tokens such as '<block end>' are not, nor are
# single characters, escaped ones too.
_QUOTED = re.compile(r"(?P<harmless>'(?:.|\\[a-z0-9]{1,9}|<[a-z ]+>)')|'[^']*'")


@dataclass(slots=True)
class Document:
    """The values of a file, where each stands, and what is wrong with its form."""

    values: dict[str, object]
    origins: dict[Location, Origin]
    problems: list[Problem] = field(default_factory=list)

    def put(self, location: Location, value: object, origin: Origin) -> None:
        """Set the key at ``location``; what stands above it and is no mapping stays, and is an error itself."""
        target: Any = self.values
        for step in location[:-1]:
            if target.get(step) is None:
                target[step] = {}
            target = target[step]
            if not isinstance(target, dict):
                return
        target[location[-1]] = value
        for inner in [other for other in self.origins if other[: len(location)] == location]:
            del self.origins[inner]
        self.origins[location] = origin


def read(path: Path) -> Document:
    """Read the settings file at ``path``; raises `ConfigurationError` when it cannot be read or is not YAML."""
    name = str(path)
    text = _text(path, name)
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _wrong(Origin(name, line), "has a character that YAML does not allow") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise _wrong(Origin(name, mark.line + 1 if mark else 0), f"is not valid YAML: {_words(error)}") from None
    except RecursionError:
        raise _wrong(Origin(name), f"is nested deeper than {MAX_DEPTH} levels") from None
    document = Document({}, {(): Origin(name)})
    if root is None or root.tag == _NULL:
        return document
    if not isinstance(root, yaml.MappingNode):
        raise _wrong(Origin(name, root.start_mark.line + 1), "must be a mapping of settings, such as `listen: …`")
    value = _Converter(name, document).convert(root, (), Origin(name))
    assert isinstance(value, dict), "a mapping node becomes a mapping"
    document.values = value
    return document


def _text(path: Path, name: str) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_SIZE + 1)
    except FileNotFoundError:
        raise _wrong(Origin(name), f"does not exist; {_instead(path)}") from None
    except IsADirectoryError:
        raise _wrong(Origin(name), f"is a directory; {_instead(path / 'settings.yaml')}") from None
    except OSError as error:
        raise _wrong(Origin(name), f"cannot be read: {error.strerror}") from None
    if len(content) > MAX_FILE_SIZE:
        raise _wrong(Origin(name), "is larger than 1MiB, which no settings file is")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _wrong(Origin(name, line), "is not UTF-8 text") from None


def _instead(path: Path) -> str:
    """What to name in the place of a file that is not there: the one that it is nearest to, if there is any."""
    try:
        beside = sorted(file.name for file in path.parent.iterdir() if file.suffix in (".yaml", ".yml"))
    except OSError:
        beside = []
    near = difflib.get_close_matches(path.name, beside, n=1) or (beside if len(beside) == 1 else [])
    if near:
        return f"name the settings file with --config; did you mean {path.parent / near[0]}?"
    return "name the settings file with --config; a line will do for one: `upstreams: {ghcr.io: {}}`"


def _wrong(origin: Origin, words: str) -> ConfigurationError:
    return ConfigurationError([Problem(origin, (), words)])


def _words(error: yaml.MarkedYAMLError) -> str:
    if isinstance(error, yaml.composer.ComposerError) and "undefined alias" in str(error.problem):
        return "an alias that no anchor explains; text that begins with * stands in quotes"
    return _QUOTED.sub(lambda quoted: quoted["harmless"] or "…", f"{error.problem or error.context}")


class _Converter:
    """Turns nodes into values, and notes lines and problems in a document."""

    def __init__(self, name: str, document: Document) -> None:
        self._name = name
        self._document = document
        self._nodes = 0

    def convert(self, node: yaml.Node, location: Location, origin: Origin) -> object:
        """The value of ``node``, which stands under ``location``; raises `ConfigurationError` for a bomb."""
        self._nodes += 1
        if len(location) > MAX_DEPTH:
            raise _wrong(origin, f"is nested deeper than {MAX_DEPTH} levels")
        if self._nodes > MAX_NODES:
            raise _wrong(origin, f"has more than {MAX_NODES} values, with aliases followed")
        self._document.origins[location] = origin
        match node:
            case yaml.ScalarNode() if node.tag in _PLAIN_TAGS:
                return None if node.tag == _NULL else str(node.value)
            case yaml.SequenceNode() if node.tag == _SEQ:
                return [
                    self.convert(item, (*location, index), self._origin(item)) for index, item in enumerate(node.value)
                ]
            case yaml.MappingNode() if node.tag == _MAP:
                return dict(self._entries(node, location))
        self._report(origin, location, "must not have a YAML tag; text that begins with ! stands in quotes")
        return None

    def _entries(self, node: yaml.MappingNode, location: Location) -> Iterator[tuple[str, object]]:
        first: dict[str, int] = {}
        for key, value in node.value:
            origin = self._origin(key)
            if not isinstance(key, yaml.ScalarNode):
                self._report(origin, location, "has a key that is a list or mapping; keys are text")
                continue
            name = str(key.value)
            if name in first:
                self._report(origin, (*location, name), f"stands twice; first on line {first[name]}")
                continue
            first[name] = origin.line
            yield name, self.convert(value, (*location, name), origin)

    def _origin(self, node: yaml.Node) -> Origin:
        return Origin(self._name, node.start_mark.line + 1)

    def _report(self, origin: Origin, location: Location, words: str) -> None:
        self._document.problems.append(Problem(origin, location, words))
