"""What a module says of itself: its sections, imports, exports, and the Proxy-Wasm ABI that it was made for.

All of it is read but code, data, elements and initial values, of which only the extent and the number are looked at:
a module that can be read may still be refused by an engine, one that is called malformed is refused by all of them.

Source: WebAssembly core specification 3.0, "Binary Format"; custom sections: its appendix "Custom Sections", and
tool-conventions, ProducersSection.md.
"""

from array import array
from dataclasses import dataclass

from mirror.wasm.sections import COMPONENT, CORE, MAGIC, Frame, Reader, Text, frames
from mirror.wasm.sections import Malformed as Malformed

_KINDS = ("function", "table", "memory", "global", "tag")
_FUNCTION, _TABLE, _MEMORY, _GLOBAL, _TAG = range(5)

# Engines take up to a million of each (JS API 3.0, "Implementation-defined Limits"); each that is kept costs memory.
_MAX_IMPORTS = 10_000
_MAX_EXPORTS = 50_000
_MAX_TYPES = 100_000
_MAX_TYPES_SIZE = 4 << 20  # bytes of the type section
_MAX_PARAMETERS = 1000  # of a function, and so many results
_MAX_FUNCTIONS = 1_000_000
_MAX_MEMORIES = 100
_MAX_PRODUCERS = 100


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
    """A module's own facts. A component has a version and sections, and nothing else of these."""

    size: int
    version: int
    component: bool
    sections: tuple[Section, ...] = ()
    imports: tuple[Import, ...] = ()
    exports: tuple[Export, ...] = ()
    memories: tuple[Memory, ...] = ()
    producers: tuple[Producer, ...] = ()
    name: str | None = None

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
        reading.name,
    )


class _Reading:
    """What has been read so far of one module."""

    def __init__(self, view: memoryview) -> None:
        self.sections: list[Section] = []
        self.imports: list[Import] = []
        self.exports: list[Export] = []
        self.memories: list[Memory] = []
        self.producers: list[Producer] = []
        self.name: str | None = None
        self._view = view
        self._text = Text()
        self._types = array("I")  # where each begins, after its first byte; 0: no function's
        self._types_end = 0
        self._signatures: dict[int, str] = {}
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
            "type": self._read_types,
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

    # -- types

    def _read_types(self, reader: Reader) -> None:
        size = reader.end - reader.position
        if size > _MAX_TYPES_SIZE:
            reader.fail(f"it has {size} bytes, and no more than {_MAX_TYPES_SIZE} are read")
        self._types_end = reader.end
        for _ in range(reader.count("types", _MAX_TYPES)):
            if reader.peek() == 0x4E:
                reader.byte("a type")
                for _ in range(reader.count("types of a group", _MAX_TYPES)):
                    self._read_type(reader)
            else:
                self._read_type(reader)

    def _read_type(self, reader: Reader) -> None:
        """Pass over a type, and remember where it is."""
        if len(self._types) >= _MAX_TYPES:
            reader.fail(f"it has more than {_MAX_TYPES} types, and no more are read")
        began = reader.position
        form = reader.byte("a type")
        if form in (0x4F, 0x50):
            for _ in range(reader.count("supertypes", _MAX_TYPES)):
                reader.number("a supertype")
            began = reader.position
            form = reader.byte("a type")
        self._types.append(reader.position if form == 0x60 else 0)
        if form == 0x60:
            reader.skip_values("parameters", _MAX_PARAMETERS)
            reader.skip_values("results", _MAX_PARAMETERS)
        elif form == 0x5E:
            reader.field()
        elif form == 0x5F:
            for _ in range(reader.count("fields", _MAX_TYPES, 2)):
                reader.field()
        else:
            reader.fail(f"there is no form of types with the number 0x{form:02x}", began)

    def _signature(self, number: int) -> str | None:
        """The signature that is the ``number``-th type; None if that is none."""
        if number not in self._signatures:
            if number >= len(self._types) or not self._types[number]:
                return None
            reader = Reader(self._view, self._types[number], self._types_end, "the type section", self._text)
            parameters = reader.values("parameters", _MAX_PARAMETERS)
            results = reader.values("results", _MAX_PARAMETERS)
            signature = f"{' '.join(parameters) or 'void'} -> {' '.join(results) or 'void'}"
            reader.spend(len(signature))
            self._signatures[number] = signature
        return self._signatures[number]

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
                signature = self._signature(number)
            elif kind == _TABLE:
                reader.value_type()
                reader.limits()
            elif kind == _MEMORY:
                self._add_memory(reader, imported=True)
            elif kind == _GLOBAL:
                reader.value_type()
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
                signature = self._signature(self._functions[number])
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

    # -- custom sections; one that is malformed is as good as none (specification, "Custom Section")

    def _custom(self, name: str, start: int, end: int) -> None:
        reader = Reader(self._view, start, end, name, Text(1 << 16))
        try:
            if name == "name" and self.name is None and reader.peek() == 0:
                reader.byte("a part")
                reader.number("its size")
                self.name = reader.name("the module's name")
            elif name == "producers" and not self.producers:
                self.producers = _producers(reader)
        except Malformed:
            return


def _producers(reader: Reader) -> list[Producer]:
    found = []
    for _ in range(reader.count("fields", _MAX_PRODUCERS)):
        role = reader.name("a field")
        for _ in range(reader.count("values", _MAX_PRODUCERS)):
            found.append(Producer(role, reader.name("a name"), reader.name("a version")))
    return found
