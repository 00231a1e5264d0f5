"""The binary format's numbers, names and sections, read within bounds.

Source: WebAssembly core specification 3.0, "Binary Format"; the layer field and the sections of components are in the
component model's Binary.md.
"""

from collections.abc import Iterator
from typing import NamedTuple, NoReturn

MAGIC = b"\0asm"
CORE, COMPONENT = b"\x01\0\0\0", b"\x0d\0\x01\0"
"""What follows the magic: the version (2 bytes, little-endian), and the layer (2 bytes)."""

_CORE_SECTIONS = {
    0: "custom",
    1: "type",
    2: "import",
    3: "function",
    4: "table",
    5: "memory",
    13: "tag",
    6: "global",
    7: "export",
    8: "start",
    9: "element",
    12: "data count",
    10: "code",
    11: "data",
}
"""Names of the sections of a core module, in the order that they must have; custom ones may stand anywhere."""
_RANK = {number: rank for rank, number in enumerate(_CORE_SECTIONS)}
_COMPONENT_SECTIONS = {
    0: "custom",
    1: "core module",
    2: "core instance",
    3: "core type",
    4: "component",
    5: "instance",
    6: "alias",
    7: "type",
    8: "canon",
    9: "start",
    10: "import",
    11: "export",
    12: "value",
}
"""Those of a component; they may come in any order, and more than once."""

MAX_SECTIONS = 10_000  # a section takes 3 bytes, so that 256 MiB of them would be 90 million
MAX_TEXT = 8 << 20  # bytes of all names together, which cost up to four times as much as Python's strings
MAX_NAME = 100_000  # bytes; no engine takes longer ones


class Malformed(Exception):
    """The bytes are no module; the message is one sentence that says what is wrong, and where."""


class Frame(NamedTuple):
    """Where a section lies: its content is ``content[start:end]``; ``label`` is what messages call it."""

    number: int
    name: str
    start: int
    end: int

    @property
    def label(self) -> str:
        """As it is called in a sentence."""
        return f"the {self.name} section"


class Text:
    """How many bytes of names a module may still have."""

    def __init__(self, left: int = MAX_TEXT) -> None:
        self._left = left

    def take(self, size: int) -> bool:
        """Whether ``size`` more bytes are allowed."""
        self._left -= size
        return self._left >= 0


class Reader:
    """Reads ``content`` from byte ``position`` to ``end``; `Malformed` names ``label``, and the byte."""

    def __init__(self, content: memoryview, position: int, end: int, label: str, text: Text) -> None:
        self.content = content
        self.position = position
        self.end = end
        self.label = label
        self._text = text

    def at(self, position: int, end: int | None = None) -> "Reader":
        """A reader of the same section, from ``position`` on, to its end or to ``end``."""
        return Reader(self.content, position, self.end if end is None else end, self.label, self._text)

    def fail(self, what: str, at: int | None = None) -> NoReturn:
        """Raise `Malformed`: ``what``, in this section, at byte ``at`` (here, unless given)."""
        raise Malformed(f"{self.label} is malformed at byte {self.position if at is None else at}: {what}")

    def byte(self, what: str) -> int:
        """The next byte."""
        if self.position >= self.end:
            self.fail(f"it ends where {what} should be")
        self.position += 1
        return self.content[self.position - 1]

    def number(self, what: str, bits: int = 32) -> int:
        """An unsigned integer of at most ``bits`` bits, in LEB128."""
        position, end, content = self.position, self.end, self.content
        if position < end and content[position] < 0x80:  # nearly all of them
            self.position += 1
            return content[position]
        value = shift = 0
        while True:
            if position >= end:
                self.fail(f"it ends in the middle of {what}" if shift else f"it ends where {what} should be")
            byte = content[position]
            position += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
            if shift >= bits:
                self.fail(f"{what} takes more than {-(-bits // 7)} bytes")
        if value >> bits:
            self.fail(f"{what} does not fit {bits} bits")
        self.position = position
        return value

    def count(self, what: str, most: int, least_size: int = 1) -> int:
        """How many ``what`` follow, each of ``least_size`` bytes or more; no more than ``most`` are read."""
        began = self.position
        count = self.number(f"the number of {what}")
        if count > most:
            self.fail(f"it has {count} {what}, and no more than {most} are read", began)
        if count * least_size > self.end - self.position:
            self.fail(
                f"it says that it has {count} {what}, for which its {self.end - self.position} bytes do not do", began
            )
        return count

    def name(self, what: str) -> str:
        """A name: its length, and that many bytes of UTF-8."""
        began = self.position
        size = self.number(f"the length of {what}")
        if size > self.end - self.position:
            self.fail(f"{what} should have {size} bytes, and only {self.end - self.position} are left", began)
        if size > MAX_NAME:
            self.fail(f"{what} has {size} bytes, and no more than {MAX_NAME} are read", began)
        self.spend(size)
        self.position += size
        try:
            return str(self.content[self.position - size : self.position], "utf-8")
        except UnicodeDecodeError as error:
            self.fail(f"{what} is not UTF-8", self.position - size + error.start)

    def spend(self, size: int) -> None:
        """Take ``size`` bytes off what the texts of this module may still cost."""
        if not self._text.take(size):
            self.fail(f"the names and signatures of this module are longer than {MAX_TEXT >> 20} MiB together")

    def choice(self, what: str, below: int) -> int:
        """A byte that is less than ``below``."""
        chosen = self.byte(what)
        if chosen >= below:
            self.fail(f"{what} is {chosen}, which has no meaning", self.position - 1)
        return chosen

    def peek(self) -> int | None:
        """The next byte, which stays the next one."""
        return self.content[self.position] if self.position < self.end else None

    def limits(self) -> tuple[int, int, int | None]:
        """Limits of a memory or table: flags (1: has a maximum, 2: shared, 4: 64 bits), minimum, maximum."""
        flags = self.choice("the form of limits", 8)
        minimum = self.number("a minimum", 64)  # since 3.0 also where addresses have 32 bits
        return flags, minimum, self.number("a maximum", 64) if flags & 1 else None

    def skip(self, size: int, what: str) -> None:
        """Pass over ``size`` bytes."""
        if size > self.end - self.position:
            self.fail(f"{what} should have {size} bytes, and only {self.end - self.position} are left")
        self.position += size

    def finish(self) -> None:
        """That nothing is left."""
        left = self.end - self.position
        if left:
            self.fail(f"{left} bytes are left over" if left > 1 else "a byte is left over")


def frames(content: memoryview, component: bool) -> Iterator[Frame]:
    """The sections of a module or component, in their order, each within ``content``, and where it may be."""
    names = _COMPONENT_SECTIONS if component else _CORE_SECTIONS
    reader = Reader(content, 8, len(content), "the module", Text())
    last: Frame | None = None
    for _ in range(MAX_SECTIONS):
        if reader.position == reader.end:
            return
        began = reader.position
        number = reader.byte("a section")
        if number not in names:
            reader.fail(f"there is no section with the number {number}", began)
        size = reader.number(f"the size of the {names[number]} section")
        left = reader.end - reader.position
        if size > left:
            reader.fail(f"the {names[number]} section says that it has {size} bytes, and only {left} are left", began)
        frame = Frame(number, names[number], reader.position, reader.position + size)
        if not component and number:
            if last and last.number == number:
                reader.fail(f"there are two {frame.name} sections", began)
            if last and _RANK[last.number] > _RANK[number]:
                reader.fail(f"the {frame.name} section may not come after the {last.name} section", began)
            last = frame
        yield frame
        reader.position = frame.end
    if reader.position != reader.end:
        reader.fail(f"it has more than {MAX_SECTIONS} sections, and no more are read")
