"""What a module says of itself: its sections, imports, exports, and the Proxy-Wasm ABI that it was made for.

All of it is read but code, data, elements and initial values, of which only the extent and the number are looked at:
a module that can be read may still be refused by an engine, one that is called malformed is refused by all of them.

Source: WebAssembly core specification 3.0, "Binary Format".
"""

from array import array
from dataclasses import dataclass

from mirror.wasm.custom import MAX_TEXT, Names, read_names, read_producers
from mirror.wasm.sections import COMPONENT, CORE, MAGIC, Frame, Reader, Text, frames
from mirror.wasm.sections import Malformed as Malformed
from mirror.wasm.signatures import Types, value_type

_KINDS = ("function", "table", "memory", "global", "tag")
_FUNCTION, _TABLE, _MEMORY, _GLOBAL, _TAG = range(5)

# Engines take up to a million of each (JS API 3.0, "Implementation-defined Limits"); each that is kept costs memory.
_MAX_IMPORTS = 10_000
_MAX_EXPORTS = 50_000
_MAX_FUNCTIONS = 1_000_000
_MAX_MEMORIES = 100


@dataclass(frozen=True, slots=True)
class Import:
    """What a module needs from its host. ``kind``: function, table, memory, global or tag.

    ``signature`` is a function's type, such as ``i32 i64 -> i32``, with ``void`` for nothing; None for other kinds.
    """

    module: str
    name: str
    kind: str
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class Export:
    """What a module offers. ``kind`` and ``signature`` as for an import."""

    name: str
    kind: str
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """A section: ``name`` is that of its kind, or for a custom section its own; ``size`` of its content, in bytes."""

    name: str
    size: int
    custom: bool


@dataclass(frozen=True, slots=True)
class Memory:
    """A linear memory; limits are in pages of 64 KiB, None where there is no maximum.

    ``memory64``: its addresses have 64 bits. ``shared``: between threads.
    """

    minimum: int
    maximum: int | None
    imported: bool
    memory64: bool = False
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Producer:
    """What made the module. ``role``: language, processed-by or sdk."""

    role: str
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Module:
    """A module's own facts. A component has a version and sections, and nothing else of these.

    ``names_intact``: the custom section ``name`` can be read as far as the names of functions; engines do not care for
    it, but Envoy does. ``left_out``: how many imports, exports, sections and producers are not listed here.
    """

    size: int
    version: int
    component: bool
    sections: tuple[Section, ...] = ()
    imports: tuple[Import, ...] = ()
    exports: tuple[Export, ...] = ()
    memories: tuple[Memory, ...] = ()
    producers: tuple[Producer, ...] = ()
    name: str | None = None
    names_intact: bool = True
    left_out: int = 0

    @property
    def abi_versions(self) -> tuple[str, ...]:
        """The Proxy-Wasm ABI versions that it exports, such as ``0.2.1``; one, if it is a plugin."""
        prefix = "proxy_abi_version_"
        return tuple(
            export.name.removeprefix(prefix).replace("_", ".")
            for export in self.exports
            if export.kind == "function" and export.name.startswith(prefix)
        )


def looks_like_wasm(head: bytes) -> bool:
    """Whether what begins with ``head``, 4 bytes or more, says that it is Wasm, as agents look at it."""
    return head[:4] == MAGIC


def read_module(content: memoryview | bytes) -> Module:
    """The module, or component, in ``content``; raise `Malformed`.

    Takes less than 64 MiB beside ``content`` and a few seconds, whatever the bytes are; it is for a thread then.
    """
    with memoryview(content) as view:
        return _read(view)


def _read(view: memoryview) -> Module:
    size = len(view)
    head = bytes(view[:8])
    if not looks_like_wasm(head):
        if MAGIC.startswith(head):
            raise Malformed(f"it ends after {size} bytes, and the first 8 of a module are its magic and its version")
        raise Malformed(f"it is no WebAssembly: it begins with {head[:4].hex(' ')}, not with 00 61 73 6d")
    if len(head) < 8:
        raise Malformed(f"it ends after {size} bytes, and the first 8 of a module are its magic and its version")
    version = int.from_bytes(head[4:6], "little")
    if head[4:] not in (CORE, COMPONENT):
        raise Malformed(f"its version, bytes 4 to 8, is {head[4:].hex(' ')}, and only 01 00 00 00 is known")
    reading = _Reading(view)
    for frame in frames(view, component=head[4:] == COMPONENT):
        reading.take(frame, component=head[4:] == COMPONENT)
    reading.check()
    return Module(
        size,
        version,
        head[4:] == COMPONENT,
        tuple(reading.sections),
        tuple(reading.imports),
        tuple(reading.exports),
        tuple(reading.memories),
        tuple(reading.producers),
        reading.names.module if reading.names else None,
        reading.names.intact if reading.names else True,
    )


class _Reading:
    """What has been read so far of one module."""

    def __init__(self, view: memoryview) -> None:
        self.sections: list[Section] = []
        self.imports: list[Import] = []
        self.exports: list[Export] = []
        self.memories: list[Memory] = []
        self.producers: list[Producer] = []
        self.names: Names | None = None
        self._view = view
        self._text = Text()
        self._types = Types()
        self._functions = array("I")  # the number of each one's type; the imported ones first
        self._declared = 0  # functions that are not imported
        self._bodies = 0
        self._announced: int | None = None  # data segments
        self._segments = 0

    def take(self, frame: Frame, component: bool) -> None:
        """Read a section."""
        reader = Reader(self._view, frame.start, frame.end, frame.label, self._text)
        size = frame.end - frame.start
        if frame.number == 0:
            name = reader.name("its name")
            self.sections.append(Section(name, size, custom=True))
            if not component:
                self._custom(name, reader.position, frame.end)
            return
        self.sections.append(Section(frame.name, size, custom=False))
        if component:
            return
        read = {
            "type": self._types.read,
            "import": self._read_imports,
            "function": self._read_functions,
            "memory": self._read_memories,
            "export": self._read_exports,
            "start": self._read_start,
            "data count": self._read_data_count,
            "code": self._read_code,
            "data": self._read_data,
        }.get(frame.name)
        if read is not None:
            read(reader)
            reader.finish()
        else:
            reader.count("entries", len(self._view))

    def check(self) -> None:
        """That sections which belong together agree."""
        if self._declared != self._bodies:
            raise Malformed(f"it declares {self._declared} functions, and its code section has {self._bodies}")
        if self._announced is not None and self._announced != self._segments:
            raise Malformed(f"it announces {self._announced} data segments, and its data section has {self._segments}")

    # -- what goes in and out

    def _read_imports(self, reader: Reader) -> None:
        for _ in range(reader.count("imports", _MAX_IMPORTS, 4)):
            module = reader.name("the module of an import")
            name = reader.name("the name of an import")
            kind = reader.choice("the kind of an import", len(_KINDS))
            signature = None
            if kind == _FUNCTION:
                number = reader.number("the type of a function")
                self._functions.append(number)
                signature = self._types.signature(number)
            elif kind == _TABLE:
                value_type(reader)
                reader.limits()
            elif kind == _MEMORY:
                self._add_memory(reader, imported=True)
            elif kind == _GLOBAL:
                value_type(reader)
                reader.choice("whether a global may change", 2)
            else:
                reader.choice("the attribute of a tag", 1)
                reader.number("the type of a tag")
            self.imports.append(Import(module, name, _KINDS[kind], signature))

    def _read_exports(self, reader: Reader) -> None:
        for _ in range(reader.count("exports", _MAX_EXPORTS, 3)):
            name = reader.name("the name of an export")
            kind = reader.choice("the kind of an export", len(_KINDS))
            number = reader.number("the number of what is exported")
            signature = None
            if kind == _FUNCTION and number < len(self._functions):
                signature = self._types.signature(self._functions[number])
            self.exports.append(Export(name, _KINDS[kind], signature))

    def _read_memories(self, reader: Reader) -> None:
        for _ in range(reader.count("memories", _MAX_MEMORIES, 2)):
            self._add_memory(reader, imported=False)

    def _add_memory(self, reader: Reader, imported: bool) -> None:
        flags, minimum, maximum = reader.limits()
        self.memories.append(Memory(minimum, maximum, imported, bool(flags & 4), bool(flags & 2)))

    # -- functions and data

    def _read_functions(self, reader: Reader) -> None:
        self._declared = reader.count("functions", _MAX_FUNCTIONS)
        for _ in range(self._declared):
            self._functions.append(reader.number("the type of a function"))

    def _read_code(self, reader: Reader) -> None:
        self._bodies = reader.count("functions", _MAX_FUNCTIONS, 3)
        for _ in range(self._bodies):
            reader.skip(reader.number("the size of a function"), "a function")

    def _read_start(self, reader: Reader) -> None:
        reader.number("the function to start with")

    def _read_data_count(self, reader: Reader) -> None:
        self._announced = reader.number("the number of data segments")

    def _read_data(self, reader: Reader) -> None:
        self._segments = reader.count("data segments", len(self._view), 2)
        reader.position = reader.end

    # -- custom sections, of which the first of each name counts

    def _custom(self, name: str, start: int, end: int) -> None:
        reader = Reader(self._view, start, end, name, Text(MAX_TEXT))
        if name == "name" and self.names is None:
            self.names = read_names(reader)
        elif name == "producers" and not self.producers:
            self.producers = [Producer(*producer) for producer in read_producers(reader)]
