"""Builders of modules, byte by byte, so that they can be wrong at any place.

``plugin()`` is the least that Envoy runs; its arguments change one thing of it each.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus" / "modules"
HEAD = b"\0asm\x01\0\0\0"
COMPONENT = b"\0asm\x0d\0\x01\0"
FUNCTION, TABLE, MEMORY, GLOBAL, TAG = range(5)

_VALUES = {"i32": 0x7F, "i64": 0x7E, "f32": 0x7D, "f64": 0x7C, "v128": 0x7B, "funcref": 0x70, "externref": 0x6F}
_CONSTANTS = {"i32": b"\x41\x01", "i64": b"\x42\x01", "f32": b"\x43\0\0\0\0", "f64": b"\x44" + bytes(8)}
"""Instructions that leave a value on the stack; 1 means yes, go on, or an address."""


def u32(number: int, width: int = 1) -> bytes:
    """LEB128, unsigned, of ``width`` bytes at least."""
    out = bytearray()
    while number >= 0x80 or len(out) + 1 < width:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def name(text: str | bytes) -> bytes:
    """A name: its length, and its bytes."""
    content = text.encode() if isinstance(text, str) else text
    return u32(len(content)) + content


def vector(items: Iterable[bytes]) -> bytes:
    """A number, and so many items."""
    listed = list(items)
    return u32(len(listed)) + b"".join(listed)


def section(number: int, content: bytes, size: int | None = None) -> bytes:
    """A section; ``size`` is what it says of itself."""
    return bytes([number]) + u32(len(content) if size is None else size) + content


def custom(called: str | bytes, content: bytes) -> bytes:
    """A custom section."""
    return section(0, name(called) + content)


def function_type(signature: str) -> bytes:
    """The type that ``i32 i64 -> i32`` names; ``void`` for nothing."""
    parameters, results = (
        bytes(_VALUES[value] for value in side.split() if value != "void") for side in signature.split("->")
    )
    return b"\x60" + name(parameters) + name(results)


def body(signature: str) -> bytes:
    """The code of a function of that type that does nothing."""
    constants = b"".join(_CONSTANTS[value] for value in signature.split("->")[1].split() if value != "void")
    return name(b"\0" + constants + b"\x0b")


def limits(minimum: int, maximum: int | None = None, flags: int = 0) -> bytes:
    """Limits of a memory or table; ``flags``: 2 shared, 4 of 64 bits."""
    if maximum is None:
        return bytes([flags]) + u32(minimum)
    return bytes([flags | 1]) + u32(minimum) + u32(maximum)


def imported(module: str, field: str, kind: int, descriptor: bytes) -> bytes:
    """An entry of the import section."""
    return name(module) + name(field) + bytes([kind]) + descriptor


def module(
    *,
    imports: Sequence[tuple[str, str, str]] = (),
    exports: Mapping[str, str] | None = None,
    memory: bytes | None = limits(1),
    other_imports: Sequence[bytes] = (),
    other_exports: Sequence[bytes] = (),
    customs: Sequence[bytes] = (),
) -> bytes:
    """A valid core module.

    ``imports``: functions, each a module, a name and a signature; ``exports``: functions that do nothing, by their
    names, with their signatures. ``other_imports`` and ``other_exports`` are entries as they are. A memory, given by
    its limits, is exported as ``memory``. ``customs`` are whole sections at the end.
    """
    functions = exports or {}
    signatures = list(dict.fromkeys([*(signature for _, _, signature in imports), *functions.values()]))
    number = {signature: index for index, signature in enumerate(signatures)}
    entries = [imported(within, field, FUNCTION, u32(number[signature])) for within, field, signature in imports]
    offered = [name(called) + bytes([FUNCTION]) + u32(len(imports) + index) for index, called in enumerate(functions)]
    if memory is not None:
        offered.append(name("memory") + bytes([MEMORY, 0]))
    sections = [
        (1, [function_type(signature) for signature in signatures]),
        (2, [*entries, *other_imports]),
        (3, [u32(number[signature]) for signature in functions.values()]),
        (5, [] if memory is None else [memory]),
        (7, [*offered, *other_exports]),
        (10, [body(signature) for signature in functions.values()]),
    ]
    return HEAD + b"".join(section(kind, vector(items)) for kind, items in sections if items) + b"".join(customs)


PLUGIN = {"malloc": "i32 -> i32", "proxy_on_vm_start": "i32 i32 -> i32"}


def plugin(
    imports: Sequence[tuple[str, str, str]] = (),
    *,
    abi: Sequence[str] = ("0.2.1",),
    exports: Mapping[str, str] | None = None,
    without: Sequence[str] = (),
    memory: bytes | None = limits(1),
    other_imports: Sequence[bytes] = (),
    customs: Sequence[bytes] = (),
) -> bytes:
    """The least that Envoy runs, with these ``imports``; ``exports`` are more of them, or others of the same names."""
    versions = {f"proxy_abi_version_{version.replace('.', '_')}": "void -> void" for version in abi}
    offered = {called: signature for called, signature in PLUGIN.items() if called not in without}
    return module(
        imports=imports,
        exports={**versions, **offered, **(exports or {})},
        memory=memory,
        other_imports=other_imports,
        customs=customs,
    )


@cache
def corpus() -> Mapping[str, bytes]:
    """The cases of the corpus, by their names."""
    return {file.stem: file.read_bytes() for file in sorted(CORPUS.glob("*.wasm"))}


def mutated(seed: int) -> bytes:
    """A case of the corpus with faults; for each seed another one, and always the same."""
    chance = random.Random(seed)
    cases = tuple(corpus().values())
    # The larger ones have more that can be wrong; a few are so large that little of them matters.
    (content,) = chance.choices(cases, [8 + min(len(case), 200) for case in cases])
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        if chance.random() < 0.3:
            content = _damaged(chance, content)
            continue
        sections = _split(content)
        if not sections:
            content = plugin()
            continue
        at = chance.randrange(len(sections))
        kind, inner = sections[at]
        match chance.randrange(6):
            case 0:
                sections.insert(chance.randrange(len(sections) + 1), (kind, inner))
            case 1:
                sections.insert(chance.randrange(len(sections) + 1), sections.pop(at))
            case 2:
                sections += _split(chance.choice(cases))
            case 3:
                sections[at] = (chance.randrange(16), inner)
            case _:
                sections[at] = (kind, _damaged(chance, inner))
        content = content[:8] + b"".join(section(*parts) for parts in sections)
    return content


_NUMBERS = (
    b"\0",
    b"\x7f",
    b"\x80",
    b"\xff",
    b"\xff\xff\xff\xff\x0f",
    b"\xff\xff\xff\xff\x7f",
    b"\x80\x80\x80\x80\x80\0",
)


def _damaged(chance: random.Random, content: bytes) -> bytes:
    """Some bytes of it others, missing, or more."""
    start = chance.randrange(len(content) + 1)
    end = min(len(content), start + chance.choice((0, 1, 1, 1, 2, 8, 64)))
    match chance.randrange(5):
        case 0:
            return content[:start]
        case 1:
            return content[:start] + content[end:]
        case 2:
            return content[:start] + chance.randbytes(end - start) + content[end:]
        case 3:
            return content[:end] + content[start:]
        case _:
            return content[:start] + chance.choice(_NUMBERS) + content[end:]


def _split(content: bytes) -> list[tuple[int, bytes]]:
    """The sections of a case, as far as it has some: numbers and contents."""
    found = []
    at = 8
    while at + 1 < len(content):
        width = next((width for width in range(1, 6) if content[at + width : at + width + 1] < b"\x80"), 5)
        size = sum((byte & 0x7F) << 7 * place for place, byte in enumerate(content[at + 1 : at + 1 + width]))
        at += 1 + width
        found.append((content[at - 1 - width], content[at : at + size]))
        at += size
    return found
