"""The documents of a YAML or JSON text as plain values, with the line of each scalar; bounded, whatever the text holds.

Values are built from the parser's events, without recursion, and counted with aliases followed: an alias shares what it
names, and a text whose values could not be visited in reasonable time is given up before anybody visits them.

What cannot be read stands as a `Fault` in its place, so that only who looks there needs to mind: a key that stands
twice, or a template's ``{{ … }}`` without quotes, which is YAML too. A document that is no YAML is a `Fault` as a
whole, and those behind it are read all the same: ``---`` at the beginning of a line ends a document wherever it stands.

Sources: YAML 1.1, as libyaml parses it; YAML 1.2, 9.1.2 (c-forbidden); RFC 8259, 7 (surrogate pairs, which YAML lacks).
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import yaml

from mirror.references.named import shown

MAX_VALUES: Final = 1_000_000
"""Of a text, with aliases followed."""
MAX_DOCUMENTS: Final = 10_000
MAX_DEPTH: Final = 64
RENDER_FIRST: Final = "render templates first, such as by `helm template … | wasm-mirror prewarm -f -`"

_MARKER = re.compile(r"^---(?=\s|\Z)", re.MULTILINE)
_DIRECTIVES = re.compile(r"^%(?:YAML|TAG)\b.*$", re.MULTILINE)
_NULLS = frozenset({"", "~", "null", "Null", "NULL"})
_ESCAPE = re.compile(r"\\(?:u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|.)", re.DOTALL)


class Text(str):
    """A scalar, and the line on which it stands."""

    __slots__ = ("line",)
    line: int

    def __new__(cls, value: str, line: int) -> "Text":
        """``line`` counts from 1."""
        text = super().__new__(cls, value)
        text.line = line
        return text


@dataclass(frozen=True, slots=True)
class Fault:
    """What cannot be read, on which line, and why."""

    line: int
    words: str


class _Merge(Text):
    """The key of what is merged in: ``<<`` without quotes."""

    __slots__ = ()


Value: TypeAlias = "dict[str, Value] | list[Value] | Text | Fault | None"


def read(text: str) -> Iterator[Value]:
    """Each document of ``text``; a `Fault` in place of one that cannot be read, and at the end of what is too much."""
    counter = _Counter(MAX_VALUES)
    line, start = 0, 0
    markers = itertools.chain((found.start() for found in _MARKER.finditer(text)), [len(text)])
    for number, end in enumerate(markers):
        part = text[start:end]
        if number == MAX_DOCUMENTS:
            yield Fault(line + 1, f"there are more than {MAX_DOCUMENTS} documents; the rest was not read")
            return
        if part.strip() not in ("", "---"):
            yield from _part(part, line, counter)
            if counter.left < 0:
                return
        line += part.count("\n")
        start = end


def _part(part: str, above: int, counter: "_Counter") -> Iterator[Value]:
    """The documents between two markers, with ``above`` lines before them; none behind the first that is broken."""
    if part.lstrip("- \t\r\n")[:1] in ("{", "["):
        part = _as_yaml(part)
    try:
        yield from _parsed(_DIRECTIVES.sub("", part), above + 1, counter)
    except yaml.MarkedYAMLError as error:
        last = part.rstrip().count("\n")
        below = min(error.problem_mark.line, last) if error.problem_mark else last
        words = f"is not valid YAML: {shown(str(error.problem or error.context))}"
        yield Fault(above + 1 + below, f"{words}; {RENDER_FIRST}" if "{{" in part else words)
    except yaml.reader.ReaderError as error:  # which tells where in the bytes
        below = part.encode()[: error.position].count(b"\n")
        yield Fault(above + 1 + below, "has a character that YAML does not allow")


def _parsed(part: str, first: int, counter: "_Counter") -> Iterator[Value]:
    """The documents of ``part``, whose first line is ``first``; raises what the parser raises."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(part)
    line, builder = first, _Builder(counter)
    try:
        while loader.check_event():
            event = loader.get_event()
            line = first + event.start_mark.line
            if isinstance(event, yaml.DocumentStartEvent):
                builder = _Builder(counter)
            elif isinstance(event, yaml.DocumentEndEvent):
                yield builder.made
            elif isinstance(event, yaml.NodeEvent | yaml.CollectionEndEvent):
                builder.take(event, line)
    except _GivenUpError as error:
        yield Fault(line, str(error))
    finally:
        loader.dispose()


def _as_yaml(json: str) -> str:
    """A JSON text as YAML 1.1 takes it: pairs of surrogates as the characters that they mean, no tabs."""

    def whole(found: re.Match[str]) -> str:
        if found[1] is None:
            return found[0]
        character = chr(0x10000 + ((int(found[1], 16) - 0xD800) << 10) + int(found[2], 16) - 0xDC00)
        return character if character.isprintable() else f"\\U{ord(character):08x}"

    return _ESCAPE.sub(whole, json).replace("\t", " ")


class _GivenUpError(Exception):
    """A text is too large or too deep; the message says which."""


@dataclass(slots=True)
class _Counter:
    """How many values may still come, with aliases followed."""

    left: int

    def take(self, number: int) -> None:
        self.left -= number
        if self.left < 0:
            raise _GivenUpError(f"has more than {MAX_VALUES} values, with aliases followed; the rest was not read")


@dataclass(slots=True)
class _Open:
    """A mapping or list that has not ended. ``key`` is that of the value which comes next, in a mapping."""

    made: "dict[str, Value] | list[Value]"
    anchor: str | None
    left: int
    key: "Text | Fault | None" = None
    fault: Fault | None = None
    merges: "list[Value]" = field(default_factory=list)

    def put(self, value: Value, line: int) -> None:
        """Take in the next element, key, or value of a key."""
        if isinstance(self.made, list):
            self.made.append(value)
        elif self.key is None:
            self._begin(value, line)
        else:
            key, self.key = self.key, None
            if isinstance(key, Fault):
                self.fault = self.fault or key
            elif isinstance(key, _Merge):
                self.merges += value if isinstance(value, list) else [value]
            elif key in self.made:
                self.made[key] = Fault(key.line, f"the key {shown(key)!r} stands twice")
            else:
                self.made[key] = value

    def _begin(self, key: Value, line: int) -> None:
        if isinstance(key, Text):
            self.key = key
        elif key is None:
            self.key = Text("null", line)
        else:
            self.key = Fault(
                line, f"a mapping has a key that is no text, as of `{{{{ … }}}}` without quotes; {RENDER_FIRST}"
            )

    def ended(self) -> Value:
        """The whole mapping or list."""
        if self.fault is not None:
            return self.fault
        if isinstance(self.made, dict):
            for merged in self.merges:
                for key, value in merged.items() if isinstance(merged, dict) else ():
                    self.made.setdefault(key, value)
        return self.made


class _Builder:
    """One document, event by event."""

    def __init__(self, counter: _Counter) -> None:
        self.made: Value = None
        self._counter = counter
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Value, int] | None] = {}  # None: it has not ended

    def take(self, event: yaml.Event, line: int) -> None:
        """Take in the next event; raises `_GivenUpError`."""
        match event:
            case yaml.AliasEvent():
                value, weight = self._named(event.anchor or "")
                self._counter.take(weight)
                self._put(value, line)
            case yaml.ScalarEvent():
                self._counter.take(1)
                scalar = _scalar(event, line)
                if event.anchor is not None:
                    self._anchors[event.anchor] = (scalar, 1)
                self._put(scalar, line)
            case yaml.CollectionStartEvent():
                self._counter.take(1)
                if len(self._open) == MAX_DEPTH:
                    raise _GivenUpError(f"is nested deeper than {MAX_DEPTH} levels")
                if event.anchor is not None:
                    self._anchors[event.anchor] = None
                made: dict[str, Value] | list[Value] = {} if isinstance(event, yaml.MappingStartEvent) else []
                self._open.append(_Open(made, event.anchor, self._counter.left))
            case _:
                ended = self._open.pop()
                value = ended.ended()
                if ended.anchor is not None:
                    self._anchors[ended.anchor] = (value, ended.left - self._counter.left + 1)
                self._put(value, line)

    def _named(self, anchor: str) -> tuple[Value, int]:
        if anchor not in self._anchors:
            raise _GivenUpError(f"is not valid YAML: no anchor explains the alias *{shown(anchor)}")
        named = self._anchors[anchor]
        if named is None:
            raise _GivenUpError(f"the alias *{shown(anchor)} stands inside of what it names")
        return named

    def _put(self, value: Value, line: int) -> None:
        if self._open:
            self._open[-1].put(value, line)
        else:
            self.made = value


def _scalar(event: yaml.ScalarEvent, line: int) -> Text | None:
    plain = event.implicit[0]
    if plain and event.value in _NULLS:
        return None
    return (_Merge if plain and event.value == "<<" else Text)(event.value, line)
