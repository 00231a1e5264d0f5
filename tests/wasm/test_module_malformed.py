"""Whatever bytes are called a module: one sentence, or a right answer, in little time and little memory."""

import time
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirror.wasm.module import Malformed, read_module
from tests.wasm.memory import little_memory
from tests.wasm.modules import (
    COMPONENT,
    HEAD,
    MEMORY,
    corpus,
    custom,
    function_type,
    imported,
    limits,
    module,
    mutated,
    name,
    section,
    u32,
    vector,
)
from tests.wasm.referee import agreed, read

SEEDS = 7_500
MEMORY_LIMIT = 64 << 20

SENTENCES = {
    "head-nothing": "it ends after 0 bytes, and the first 8 of a module are its magic and its version",
    "head-gzip": "it is no WebAssembly: it begins with 1f 8b 08 00, not with 00 61 73 6d",
    "head-version-2": "its version, bytes 4 to 8, is 02 00 00 00, and only 01 00 00 00 is known",
    "section-too-long": (
        "the module is malformed at byte 8: the type section says that it has 500 bytes, and only 4 are left"
    ),
    "section-too-short": "the type section is malformed at byte 13: it ends where the number of results should be",
    "section-twice": "the module is malformed at byte 14: there are two type sections",
    "section-disordered": (
        "the module is malformed at byte 13: the type section may not come after the memory section"
    ),
    "section-unknown": "the module is malformed at byte 8: there is no section with the number 14",
    "section-leftover": "the type section is malformed at byte 11: a byte is left over",
    "number-of-six-bytes-count": (
        "the type section is malformed at byte 10: the number of types takes more than 5 bytes"
    ),
    "number-of-too-many-bits-count": (
        "the type section is malformed at byte 10: the number of types does not fit 32 bits"
    ),
    "number-cut-short-count": "the type section is malformed at byte 10: it ends in the middle of the number of types",
    "name-latin": "the export section is malformed at byte 29: the name of an export is not UTF-8",
    "functions-cut-short": (
        "the function section is malformed at byte 16: it says that it has 5 functions, for which its 2 bytes do not do"
    ),
    "functions-without-code": "it declares 2 functions, and its code section has 0",
    "code-too-long": "the code section is malformed at byte 22: a function should have 9 bytes, and only 2 are left",
    "data-miscounted": "it announces 2 data segments, and its data section has 1",
}


@pytest.mark.parametrize("case", SENTENCES)
def test_the_sentence_says_what_is_wrong_and_where(case: str) -> None:
    assert read(corpus()[case]) == SENTENCES[case]


def test_thousands_of_malformed_modules_give_a_sentence_each_and_wasmtime_refuses_them() -> None:
    with little_memory(MEMORY_LIMIT):
        malformed = {content for content in map(mutated, range(SEEDS)) if isinstance(agreed(content), str)}
    assert len(malformed) >= 5_000


def test_mutations_are_the_same_for_each_seed_and_read_as_wasmtime_reads_them() -> None:
    some = [mutated(seed) for seed in range(300)]
    assert some == [mutated(seed) for seed in range(300)]
    for content in some:
        agreed(content, in_detail=True)


def test_every_beginning_of_a_module_gives_a_sentence_or_what_is_there() -> None:
    whole = corpus()["plugin"]
    for end in range(len(whole)):
        agreed(whole[:end])


@given(st.binary(max_size=80), st.sampled_from([b"", b"\0asm", HEAD, COMPONENT]))
@example(b"", HEAD)
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_a_sentence_or_what_wasmtime_reads(content: bytes, head: bytes) -> None:
    agreed(head + content)


@given(st.lists(st.tuples(st.integers(0, 13), st.binary(max_size=30)), max_size=6))
@settings(max_examples=150, deadline=None)
def test_any_sequence_of_sections_gives_a_sentence_or_what_wasmtime_reads(parts: list[tuple[int, bytes]]) -> None:
    agreed(HEAD + b"".join(section(*part) for part in parts))


_SIGNATURES = st.lists(st.sampled_from(["i32", "i64", "f32", "f64", "funcref"]), max_size=4).map(
    lambda values: f"{' '.join(values) or 'void'} -> {'i32' if len(values) % 2 else 'void'}"
)


@given(
    st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9), _SIGNATURES), max_size=6),
    st.dictionaries(st.text(max_size=12), _SIGNATURES, max_size=6),
    st.integers(0, 9),
)
@settings(max_examples=50, deadline=None)
def test_any_imports_and_exports_are_told_as_wasmtime_tells_them(
    imports: list[tuple[str, str, str]], exports: dict[str, str], pages: int
) -> None:
    exports.pop("memory", None)
    content = module(imports=imports, exports=exports, memory=limits(pages))
    found = agreed(content, in_detail=True)
    assert not isinstance(found, str)
    assert [(one.module, one.name, one.signature) for one in found.imports] == imports
    assert {one.name: one.signature for one in found.exports if one.kind == "function"} == exports


def _functions(count: int) -> bytes:
    types = section(1, vector([function_type("void -> void")]))
    return HEAD + types + section(3, u32(count) + bytes(count)) + section(10, u32(count) + b"\2\0\x0b" * count)


def _exports(count: int, length: int) -> bytes:
    """Names whose characters take four bytes each in Python, for there is one among them that does."""
    names = (name(f"{number:05}".ljust(length - 4, "n") + "\N{PILE OF POO}") for number in range(count))
    return section(7, u32(count) + b"".join(one + b"\2\0" for one in names))


ATTACKS: dict[str, tuple[Callable[[], bytes], str]] = {
    "10 million empty functions": (lambda: _functions(10_000_000), "10000000 functions, and no more than 1000000 are"),
    "a million imports": (
        lambda: HEAD + section(2, u32(1_000_000) + imported("", "", MEMORY, limits(0)) * 1_000_000),
        "1000000 imports, and no more than 10000 are read",
    ),
    "a million exports": (
        lambda: HEAD + section(7, u32(1_000_000) + b"\0\2\0" * 1_000_000),
        "1000000 exports, and no more than 50000 are read",
    ),
    "millions of sections": (lambda: HEAD + b"\0\1\0" * 10_000_000, "more than 10000 sections"),
    "a giant name": (lambda: HEAD + custom("n" * (50 << 20), b""), "has 52428800 bytes, and no more than 100000 are"),
    "giant names": (lambda: HEAD + custom("n" * 100_000, b"") * 300, "names and signatures .* longer than 8 MiB"),
    "names that cost four bytes a character": (
        lambda: HEAD + custom("n" * 99_996 + "\N{PILE OF POO}", b"") * 300,
        "8 MiB",
    ),
    "long names of exports": (lambda: HEAD + _exports(50_000, 1000), "longer than 8 MiB"),
    "a mass of types": (lambda: HEAD + section(1, u32(600_000) + b"\x60\0\0" * 600_000), "600000 types, and no"),
    "types in groups": (
        lambda: HEAD + section(1, vector([b"\x4e" + u32(100_000) + b"\x60\0\0" * 100_000] * 3)),
        "more than 100000 types",
    ),
    "a giant type section": (
        lambda: HEAD + section(1, bytes(50 << 20)),
        "52428800 bytes, and no more than 2097152 are",
    ),
    "long signatures": (
        lambda: (
            HEAD
            + section(1, vector([b"\x60" + name(b"\x7b" * 1000) + b"\0"] * 2000))
            + section(2, vector([imported("", "", 0, u32(number)) for number in range(2000)]))
        ),
        "names and signatures .* longer than 8 MiB",
    ),
    "one long signature, of many exports": (
        lambda: (
            HEAD
            + section(1, vector([b"\x60" + name(b"\x72" * 1000) + name(b"\x72" * 1000)]))
            + section(3, vector([b"\0"]))
            + section(7, u32(50_000) + b"\0\0\0" * 50_000)
        ),
        "names and signatures .* longer than 8 MiB",
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_costs_little_time_and_little_memory(attack: str) -> None:
    make, words = ATTACKS[attack]
    content = memoryview(make())
    began = time.process_time()
    with little_memory(MEMORY_LIMIT), pytest.raises(Malformed, match=words):
        read_module(content)
    assert time.process_time() - began < 3.0


HEAVY: dict[str, Callable[[], bytes]] = {
    "as many functions as engines take": lambda: _functions(1_000_000),
    "as many exports as are read, with long names": lambda: HEAD + _exports(50_000, 160),
    "as many structures as are read": (
        lambda: HEAD + section(1, vector([b"\x5f" + vector([b"\x64\x70\1"] * 6)] * 100_000))
    ),
    "names of functions": lambda: HEAD + custom("name", b"\1" + name(u32(300_000) + b"\0\0" * 300_000)),
    "empty parts of names": lambda: HEAD + custom("name", b"\7\0" * 300_000),
    "sections": lambda: HEAD + b"\0\1\0" * 10_000,
}


@pytest.mark.parametrize("case", HEAVY)
def test_the_heaviest_that_is_read_costs_little_time_and_little_memory(case: str) -> None:
    content = memoryview(HEAVY[case]())
    began = time.process_time()
    with little_memory(MEMORY_LIMIT):
        read_module(content)
    assert time.process_time() - began < 10.0
