"""What wasmtime says of a module, and what our reader may say then."""

import wasmtime

from mirror.wasm.module import Malformed, Module, read_module


def _engine() -> wasmtime.Engine:
    config = wasmtime.Config()
    for feature in ("gc", "function_references", "exceptions", "threads", "memory64", "multi_memory"):
        setattr(config, f"wasm_{feature}", True)
    return wasmtime.Engine(config)


ENGINE = _engine()
"""It takes all that the specification knows of core modules."""

_KINDS: dict[type, str] = {
    wasmtime.FuncType: "function",
    wasmtime.TableType: "table",
    wasmtime.MemoryType: "memory",
    wasmtime.GlobalType: "global",
}


def accepted(content: bytes) -> bool:
    """Whether wasmtime takes it for a valid core module."""
    try:
        wasmtime.Module.validate(ENGINE, content)
    except wasmtime.WasmtimeError:
        return False
    return True


def read(content: bytes) -> Module | str:
    """What our reader makes of it: a module, or one sentence."""
    try:
        return read_module(content)
    except Malformed as malformed:
        sentence = str(malformed)
        assert sentence
        assert "\n" not in sentence
        assert len(sentence) < 250
        return sentence


def agreed(content: bytes, *, in_detail: bool = False) -> Module | str:
    """`read`, and assert that what wasmtime takes is read; ``in_detail``: with the same imports and exports."""
    mine = read(content)
    if accepted(content):
        assert isinstance(mine, Module), f"wasmtime takes what we do not: {mine}; {content.hex()}"
        if in_detail:
            _compare(mine, content)
    return mine


def _compare(mine: Module, content: bytes) -> None:
    if "tag" in {*(wanted.kind for wanted in mine.imports), *(export.kind for export in mine.exports)}:
        return  # the Python package has no words for them
    try:
        theirs = wasmtime.Module(ENGINE, content)
    except wasmtime.WasmtimeError:
        return  # valid, but more than wasmtime compiles
    assert [(wanted.module, wanted.name, wanted.kind, wanted.signature) for wanted in mine.imports] == [
        (wanted.module, wanted.name, _KINDS[type(wanted.type)], _signature(wanted.type)) for wanted in theirs.imports
    ]
    assert [(export.name, export.kind, export.signature) for export in mine.exports] == [
        (export.name, _KINDS[type(export.type)], _signature(export.type)) for export in theirs.exports
    ]
    memories = [export.type for export in theirs.exports if isinstance(export.type, wasmtime.MemoryType)]
    known = {(memory.minimum, memory.maximum, memory.memory64, memory.shared) for memory in mine.memories}
    assert known.issuperset((one.limits.min, one.limits.max, one.is_64, one.is_shared) for one in memories)


def _signature(of: object) -> str | None:
    """As we write it; references that are not the two old ones have other names there."""
    if not isinstance(of, wasmtime.FuncType):
        return None
    sides = (" ".join(str(value) for value in values) or "void" for values in (of.params, of.results))
    return " -> ".join(sides)
