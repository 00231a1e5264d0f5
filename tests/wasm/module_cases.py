"""The cases of the corpus of modules: one of each form that the format has, and of each way to be wrong.

``python -m tests.wasm.module_cases`` writes them to the corpus, next to what fuzzing has found.
"""

from collections.abc import Iterator

from tests.wasm.modules import (
    COMPONENT,
    CORPUS,
    FUNCTION,
    GLOBAL,
    HEAD,
    MEMORY,
    TABLE,
    TAG,
    custom,
    function_type,
    imported,
    limits,
    module,
    name,
    plugin,
    section,
    u32,
    vector,
)

LOG = ("env", "proxy_log", "i32 i32 i32 -> i32")
PRODUCERS = vector(
    [
        name("language") + vector([name("Rust") + name("")]),
        name("processed-by") + vector([name("rustc") + name("1.94.0"), name("wasm-bindgen") + name("0.2")]),
    ]
)


def cases() -> Iterator[tuple[str, bytes]]:
    """Names, and modules or what is none."""
    yield from _good()
    yield from _kinds()
    yield from _types()
    yield from _heads()
    yield from _numbers()
    yield from _frames()
    yield from _contents()
    yield from _customs()


def _good() -> Iterator[tuple[str, bytes]]:
    yield "plugin", plugin([LOG], customs=[custom("producers", PRODUCERS), custom("name", _named("basic_auth"))])
    yield "plugin-without-anything", plugin()
    yield "empty", HEAD
    yield "component", COMPONENT
    yield "component-with-a-module", COMPONENT + section(1, HEAD) + custom("x", b"y")
    yield "data", _with_data(vector([b"\0\x41\0\x0b" + name("hello"), b"\1" + name("passive")]), counted=2)
    yield "start", HEAD + _functions(1) + section(8, b"\0") + _bodies(1)
    yield (
        "globals-tables-elements",
        HEAD
        + _functions(1)
        + section(4, vector([b"\x70\0\1"]))
        + section(6, vector([b"\x7f\1\x41\0\x0b", b"\x7b\0\xfd\x0c" + bytes(16) + b"\x0b"]))
        + section(7, vector([name("g") + b"\3\1", name("t") + b"\1\0"]))
        + section(9, vector([b"\0\x41\0\x0b\1\0"]))
        + _bodies(1),
    )
    yield "numbers-of-five-bytes", HEAD + b"\1" + u32(8, 5) + u32(1, 5) + b"\x60\0\0"
    yield "many-functions", HEAD + _functions(300) + _bodies(300)


def _kinds() -> Iterator[tuple[str, bytes]]:
    entries = {
        "table": imported("env", "t", TABLE, b"\x70\0\1"),
        "table-of-references": imported("env", "t", TABLE, b"\x63\x6f\0\1"),
        "memory": imported("env", "m", MEMORY, limits(1, 5)),
        "memory64": imported("env", "m", MEMORY, limits(1, 1 << 40, 4)),
        "memory-shared": imported("env", "m", MEMORY, limits(1, 2, 2)),
        "memory-shared-without-maximum": imported("env", "m", MEMORY, limits(1, None, 2)),
        "global": imported("env", "g", GLOBAL, b"\x7f\1"),
        "global-of-reference": imported("env", "g", GLOBAL, b"\x64\x70\0"),
        "global-neither": imported("env", "g", GLOBAL, b"\x7f\2"),
        "tag": imported("env", "t", TAG, b"\0\0"),
        "tag-with-attribute": imported("env", "t", TAG, b"\1\0"),
        "function-without-type": imported("env", "f", FUNCTION, u32(77)),
        "unknown": imported("env", "f", 5, b"\0"),
        "nothing": b"\0\0\0\0",
    }
    for called, entry in entries.items():
        yield f"import-{called}", module(imports=[("a", "b", "void -> void")], memory=None, other_imports=[entry])
    exports = {"tag": b"\4\0", "unknown": b"\5\0", "of-nothing": b"\0\x63", "global": b"\3\0"}
    for called, entry in exports.items():
        yield f"export-{called}", module(exports={"f": "void -> void"}, other_exports=[name("x") + entry])
    yield "exports-twice", module(exports={"memory": "void -> void"})
    yield "memories", HEAD + section(5, vector([limits(0), limits(1, 2), limits(1, 2, 2), limits(1, None, 4)]))
    yield "memory-of-unknown-form", HEAD + section(5, vector([b"\x08\1"]))


def _types() -> Iterator[tuple[str, bytes]]:
    types = {
        "structure": b"\x5f\2\x78\1\x7f\0",
        "array": b"\x5e\x77\0",
        "group": b"\x4e\2" + function_type("i32 -> i32") + b"\x60\1\x63\0\0",
        "group-empty": b"\x4e\0",
        "subtype": b"\x50\0\x5f\0",
        "subtype-final": b"\x4f\0" + function_type("i64 -> f32 f64"),
        "references": b"\x60\5\x63\x70\x64\x6f\x6e\x6b\x71\0",
        "continuation": b"\x5d\0",
        "values-unknown": b"\x60\1\x10\0",
        "form-unknown": b"\x20",
        "field-neither": b"\x5e\x7f\2",
        "packed-parameter": b"\x60\1\x78\0",
        "cut-short": b"\x60\5\x7f",
        "many-parameters": b"\x60" + name(b"\x7f" * 1000) + b"\0",
        "too-many-parameters": b"\x60" + name(b"\x7f" * 1001) + b"\0",
    }
    for called, content in types.items():
        yield f"type-{called}", HEAD + section(1, vector([content]))


def _heads() -> Iterator[tuple[str, bytes]]:
    yield "head-nothing", b""
    yield "head-half", HEAD[:3]
    yield "head-without-version", HEAD[:4]
    yield "head-version-2", b"\0asm\2\0\0\0"
    yield "head-layer-1", b"\0asm\1\0\1\0"
    yield "head-old-component", b"\0asm\x0c\0\1\0"
    yield "head-gzip", b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
    yield "head-text", b"<!DOCTYPE html>\n<title>Not found</title>\n"
    yield "head-wat", b"(module)\n"


def _numbers() -> Iterator[tuple[str, bytes]]:
    for called, number in {
        "of-six-bytes": b"\x80\x80\x80\x80\x80\0",
        "of-too-many-bits": b"\xff\xff\xff\xff\x1f",
        "largest": b"\xff\xff\xff\xff\x0f",
        "endless": b"\xff" * 40,
        "cut-short": b"\x80",
    }.items():
        yield f"number-{called}-size", HEAD + b"\1" + number
        yield f"number-{called}-count", HEAD + section(1, number)
        yield f"number-{called}-custom-name", HEAD + section(0, number)


def _frames() -> Iterator[tuple[str, bytes]]:
    types, memory = section(1, vector([function_type("void -> void")])), section(5, vector([limits(1)]))
    yield "section-unknown", HEAD + section(14, b"")
    yield "section-unknown-far", HEAD + section(255, b"")
    yield "section-twice", HEAD + types + types
    yield "section-twice-apart", HEAD + types + memory + types
    yield "section-disordered", HEAD + memory + types
    yield "section-too-long", HEAD + section(1, vector([function_type("void -> void")]), size=500)
    yield "section-too-short", HEAD + section(1, vector([function_type("void -> void")]), size=3)
    yield "section-leftover", HEAD + section(1, b"\0\0")
    yield "section-empty", HEAD + section(1, b"")
    yield "section-without-size", HEAD + b"\1"
    yield "tag-section-after-global", HEAD + types + section(6, b"\0") + section(13, b"\0")
    yield "tag-section-in-order", HEAD + types + section(5, b"\0") + section(13, b"\1\0\0") + section(6, b"\0")
    yield "component-section-unknown", COMPONENT + section(13, b"")
    yield "component-section-too-long", COMPONENT + section(1, HEAD, size=500)


def _contents() -> Iterator[tuple[str, bytes]]:
    yield "functions-without-code", HEAD + _functions(2)
    yield "code-without-functions", HEAD + _bodies(2)
    yield "functions-more-than-code", HEAD + _functions(2) + _bodies(1)
    yield "functions-cut-short", HEAD + section(1, vector([function_type("void -> void")])) + section(3, b"\5\0\0")
    yield "code-too-long", HEAD + _functions(1) + section(10, vector([u32(9) + b"\0\x0b"]))
    yield "code-too-short", HEAD + _functions(1) + section(10, vector([b"\2\0\x0b\0\0"]))
    yield "code-cut-short", (HEAD + _functions(3) + _bodies(3))[:-2]
    yield "data-uncounted", _with_data(vector([b"\1" + name("x")]), counted=None)
    yield "data-miscounted", _with_data(vector([b"\1" + name("x")]), counted=2)
    yield "data-counted-and-absent", HEAD + section(12, b"\3")
    yield "data-count-of-none", HEAD + section(12, b"\0")
    yield "start-leftover", HEAD + _functions(1) + section(8, b"\0\0") + _bodies(1)
    for called, text in {
        "overlong": b"\xc0\xaf",
        "surrogate": b"\xed\xa0\x80",
        "cut-short": b"\xe2\x82",
        "latin": b"caf\xe9",
        "beyond": b"\xf4\x90\x80\x80",
    }.items():
        yield f"name-{called}", module(memory=limits(1), other_exports=[name(text) + b"\2\0"])
        yield f"name-{called}-custom", HEAD + custom(text, b"")
    yield "name-nul", module(other_exports=[name("a\0b\N{SNOWMAN}") + b"\2\0"])
    yield "name-too-long", module(other_exports=[b"\x7fabc"])


def _customs() -> Iterator[tuple[str, bytes]]:
    """Malformed custom sections leave a module as it is."""
    for called, content in {
        "part-too-long": b"\0\x09\1a",
        "module-name-not-utf-8": b"\0\2\1\xff",
        "functions-too-long": b"\1\5\1\0\x09ab",
        "functions-too-short": b"\1\6\1\0\1a\7\0",
        "count": b"\1\5\xff\xff\xff\xff\x0f",
        "cut-short": b"\0",
        "parts-disordered": b"\1\4\1\0\1a" + _named("late"),
        "empty": b"",
    }.items():
        yield f"custom-name-{called}", plugin(customs=[custom("name", content)])
    for called, content in {
        "cut-short": PRODUCERS[:-3],
        "count": b"\xff\xff\xff\xff\x0f",
        "leftover": PRODUCERS + b"\0",
        "not-utf-8": vector([name("language") + vector([name(b"\xff") + name("1")])]),
        "role-unknown": vector([name("author") + vector([name("x") + name("")])]),
    }.items():
        yield f"custom-producers-{called}", plugin(customs=[custom("producers", content)])
    yield "custom-twice", plugin(customs=[custom("name", _named("first")), custom("name", _named("second"))])
    yield "custom-first", HEAD + custom("dylink.0", b"\1\4\0\0\0\0") + plugin()[8:]
    yield "custom-without-name", HEAD + section(0, b"")
    yield "custom-name-beyond", HEAD + section(0, b"\x05ab")


def _named(called: str) -> bytes:
    return b"\0" + name(name(called))


def _functions(count: int) -> bytes:
    return section(1, vector([function_type("void -> void")])) + section(3, vector([b"\0"] * count))


def _bodies(count: int) -> bytes:
    return section(10, vector([b"\2\0\x0b"] * count))


def _with_data(content: bytes, counted: int | None) -> bytes:
    count = b"" if counted is None else section(12, u32(counted))
    return HEAD + section(5, vector([limits(1)])) + count + section(11, content)


if __name__ == "__main__":
    CORPUS.mkdir(parents=True, exist_ok=True)
    for case, content in cases():
        (CORPUS / f"{case}.wasm").write_bytes(content)
