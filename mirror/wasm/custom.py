"""The custom sections that say where a module comes from: ``name`` and ``producers``.

One that is malformed leaves the module as it is, and is not told. Source: WebAssembly core specification 3.0, appendix
"Custom Sections"; tool-conventions, ProducersSection.md.
"""

from contextlib import suppress
from dataclasses import dataclass

from mirror.wasm.sections import Malformed, Reader

MAX_TEXT = 1 << 16  # bytes of text that are told of a section
_MAX_FIELDS = 100  # of producers, and so many values of each
_MAX_FUNCTIONS = 1_000_000

_MODULE, _FUNCTIONS = 0, 1  # parts of the section name


@dataclass(frozen=True, slots=True)
class Names:
    """``module`` is the module's name. ``intact``: all can be read, as far as the names of functions, as Envoy does."""

    module: str | None = None
    intact: bool = True


def read_names(reader: Reader) -> Names:
    """What the section ``name`` says, read from after its own name."""
    module = None
    try:
        while reader.peek() is not None:
            part = reader.byte("a part")
            size = reader.number("the size of a part")
            end = reader.position + size
            if part == _FUNCTIONS:
                _skip_functions(reader)
                if reader.position != end:
                    reader.fail("a part has another size than it says")
                continue
            start = reader.position
            reader.skip(size, "a part")
            if part == _MODULE and module is None:
                with suppress(Malformed):
                    module = reader.at(start, end).name("the module's name")
    except Malformed:
        return Names(module, intact=False)
    return Names(module)


def _skip_functions(reader: Reader) -> None:
    for _ in range(reader.count("names", _MAX_FUNCTIONS, 2)):
        reader.number("a function")
        reader.skip(reader.number("the length of a name"), "a name")


def read_producers(reader: Reader) -> list[tuple[str, str, str]]:
    """Roles, names and versions of the section ``producers``, read from after its own name; [] when it is malformed."""
    found = []
    try:
        for _ in range(reader.count("fields", _MAX_FIELDS)):
            role = reader.name("a field")
            for _ in range(reader.count("values", _MAX_FIELDS)):
                found.append((role, reader.name("a name"), reader.name("a version")))
        reader.finish()
    except Malformed:
        return []
    return found
