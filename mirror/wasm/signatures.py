"""The types of a module, and the signatures of functions in words: ``i32 i64 -> i32``, ``void`` for nothing.

Source: WebAssembly core specification 3.0, "Types" and "Type Section" of the binary format.
"""

from array import array

from mirror.wasm.sections import Reader

_VALUES = {
    0x7F: "i32",
    0x7E: "i64",
    0x7D: "f32",
    0x7C: "f64",
    0x7B: "v128",
    0x75: "nocontref",
    0x74: "nullexnref",
    0x73: "nullfuncref",
    0x72: "nullexternref",
    0x71: "nullref",
    0x70: "funcref",
    0x6F: "externref",
    0x6E: "anyref",
    0x6D: "eqref",
    0x6C: "i31ref",
    0x6B: "structref",
    0x6A: "arrayref",
    0x69: "exnref",
    0x68: "contref",
}
"""Types of values that take one byte."""
_ONE_BYTE = bytes(_VALUES)
_NULLABLE, _REFERENCE = 0x63, 0x64  # before a heap type
_PACKED = (0x78, 0x77)  # i8, i16: only in fields

_GROUP, _SUB, _FINAL_SUB, _FUNCTION, _STRUCTURE, _ARRAY = 0x4E, 0x50, 0x4F, 0x60, 0x5F, 0x5E

MAX_TYPES = 100_000
MAX_SIZE = 2 << 20  # bytes of the section
MAX_VALUES = 1000  # parameters of a function, and so many results; engines take no more


def value_type(reader: Reader) -> str:
    """The type of a value."""
    kind = reader.byte("the type of a value")
    if kind in _VALUES:
        return _VALUES[kind]
    if kind not in (_NULLABLE, _REFERENCE):
        reader.fail(f"there is no type of values with the number 0x{kind:02x}", reader.position - 1)
    reader.number("the type behind a reference", 35)  # 33 bits with a sign
    return "(ref null)" if kind == _NULLABLE else "(ref)"


class Types:
    """The types of one module: passed over, and looked at again when somebody asks."""

    def __init__(self) -> None:
        self._at = array("I")  # where the parameters of each begin; 0: it is none of a function
        self._known: dict[int, str] = {}
        self._reader: Reader | None = None

    def read(self, reader: Reader) -> None:
        """Pass over the type section."""
        size = reader.end - reader.position
        if size > MAX_SIZE:
            reader.fail(f"it has {size} bytes, and no more than {MAX_SIZE} are read")
        self._reader = reader
        for _ in range(reader.count("types", MAX_TYPES)):
            if reader.peek() == _GROUP:
                reader.byte("a group of types")
                for _ in range(reader.count("types of a group", MAX_TYPES)):
                    self._pass_over(reader)
            else:
                self._pass_over(reader)

    def signature(self, number: int) -> str | None:
        """The signature that is the ``number``-th type; None if that is none.

        It is paid for each time: what is told of a module holds it as often as functions have it.
        """
        known = self._known.get(number)
        if known is not None and self._reader is not None:
            self._reader.spend(len(known))
            return known
        if self._reader is None or number >= len(self._at) or not self._at[number]:
            return None
        reader = self._reader.at(self._at[number])
        parameters, results = (
            [value_type(reader) for _ in range(reader.count(what, MAX_VALUES))] for what in ("parameters", "results")
        )
        signature = f"{' '.join(parameters) or 'void'} -> {' '.join(results) or 'void'}"
        reader.spend(len(signature))
        self._known[number] = signature
        return signature

    def _pass_over(self, reader: Reader) -> None:
        if len(self._at) >= MAX_TYPES:
            reader.fail(f"it has more than {MAX_TYPES} types, and no more are read")
        form = reader.byte("a type")
        if form in (_SUB, _FINAL_SUB):
            for _ in range(reader.count("supertypes", MAX_TYPES)):
                reader.number("a supertype")
            form = reader.byte("a type")
        self._at.append(reader.position if form == _FUNCTION else 0)
        if form == _FUNCTION:
            _skip_values(reader, "parameters")
            _skip_values(reader, "results")
        elif form == _STRUCTURE:
            for _ in range(reader.count("fields", MAX_TYPES, 2)):
                _field(reader)
        elif form == _ARRAY:
            _field(reader)
        else:
            reader.fail(f"there is no form of types with the number 0x{form:02x}", reader.position - 1)


def _skip_values(reader: Reader, what: str) -> None:
    count = reader.count(what, MAX_VALUES)
    if bytes(reader.content[reader.position : reader.position + count]).strip(_ONE_BYTE):
        for _ in range(count):
            value_type(reader)
    else:  # the usual case, without a look at each
        reader.position += count


def _field(reader: Reader) -> None:
    if reader.peek() in _PACKED:
        reader.byte("a field")
    else:
        value_type(reader)
    reader.choice("whether a field may change", 2)
