"""What a module says of itself is read, and wasmtime reads the same."""

import mmap
from pathlib import Path

import pytest
import wasmtime

from mirror.wasm.module import (
    Export,
    Import,
    Memory,
    Module,
    Producer,
    Section,
    looks_like_wasm,
    read_module,
)
from tests.wasm.memory import little_memory
from tests.wasm.module_cases import cases
from tests.wasm.modules import HEAD, corpus, custom, limits, module, name, plugin, section, u32
from tests.wasm.referee import ENGINE, accepted, agreed

DEMO = Path(__file__).parents[2] / "demo" / "plugin" / "basic_auth.wasm"

WAT = """
(module $basic_auth
  (import "env" "proxy_log" (func (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "clock_time_get" (func (param i32 i64 i32) (result i32)))
  (memory (export "memory") 2 16)
  (global (export "__heap_base") i32 (i32.const 1024))
  (table (export "table") 1 funcref)
  (func (export "proxy_abi_version_0_2_1"))
  (func (export "malloc") (param i32) (result i32) (i32.const 0))
  (data (i32.const 0) "hello"))
"""


def test_imports_and_exports_are_told_with_their_kinds_and_signatures() -> None:
    found = read_module(bytes(wasmtime.wat2wasm(WAT)))
    assert found.imports == (
        Import("env", "proxy_log", "function", "i32 i32 i32 -> i32"),
        Import("wasi_snapshot_preview1", "clock_time_get", "function", "i32 i64 i32 -> i32"),
    )
    assert found.exports == (
        Export("memory", "memory"),
        Export("__heap_base", "global"),
        Export("table", "table"),
        Export("proxy_abi_version_0_2_1", "function", "void -> void"),
        Export("malloc", "function", "i32 -> i32"),
    )


def test_memories_version_name_and_abi_are_told() -> None:
    content = bytes(wasmtime.wat2wasm(WAT))
    found = read_module(content)
    assert (found.size, found.version, found.component) == (len(content), 1, False)
    assert found.memories == (Memory(2, 16, imported=False),)
    assert found.name == "basic_auth"
    assert found.abi_versions == ("0.2.1",)


def test_memories_are_told_with_all_that_their_limits_say() -> None:
    content = HEAD + section(5, b"\2" + limits(1, 2, 2) + limits(3, None, 4))
    assert read_module(content).memories == (
        Memory(1, 2, imported=False, shared=True),
        Memory(3, None, imported=False, memory64=True),
    )


def test_sections_are_told_in_their_order_custom_ones_by_their_own_names() -> None:
    content = HEAD + custom("first", b"12") + section(5, b"\1" + limits(1)) + custom("", b"")
    assert read_module(content).sections == (
        Section("first", 8, custom=True),
        Section("memory", 3, custom=False),
        Section("", 1, custom=True),
    )


def test_producers_are_told() -> None:
    assert read_module(corpus()["plugin"]).producers == (
        Producer("language", "Rust", ""),
        Producer("processed-by", "rustc", "1.94.0"),
        Producer("processed-by", "wasm-bindgen", "0.2"),
    )


def test_a_component_has_its_sections_and_is_told_from_a_module() -> None:
    found = read_module(bytes(wasmtime.wat2wasm("(component (core module (func)))")))
    assert (found.component, found.version) == (True, 13)
    assert [part.name for part in found.sections] == ["core module"]


def test_the_demo_plugin_is_read() -> None:
    found = read_module(DEMO.read_bytes())
    assert found.abi_versions == ("0.2.0",)
    assert len(found.exports) > 20


def test_a_module_is_read_from_a_map_of_a_file_without_a_copy(tmp_path: Path) -> None:
    size = 100 << 20
    with (tmp_path / "large.wasm").open("wb+") as file:
        file.write(HEAD + b"\0" + u32(size, 5) + name("pad"))
        file.truncate(len(HEAD) + 6 + size)
        with (
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content,
            memoryview(content) as view,
            little_memory(10 << 20),
        ):
            assert read_module(view).sections == (Section("pad", size, custom=True),)


@pytest.mark.parametrize(
    ("head", "is_wasm"), [(b"\0asm", True), (plugin(), True), (b"\0as", False), (b"\x1f\x8b", False)]
)
def test_wasm_is_known_by_its_magic(head: bytes, is_wasm: bool) -> None:
    assert looks_like_wasm(head) is is_wasm


def test_the_corpus_has_every_case_as_it_is_built() -> None:
    held = corpus()
    for case, content in cases():
        assert held.get(case) == content, f"{case}: run python -m tests.wasm.module_cases"


def test_what_wasmtime_takes_is_read_with_equal_imports_and_exports() -> None:
    read = {case: agreed(content, in_detail=True) for case, content in corpus().items()}
    assert sum(map(accepted, corpus().values())) > 40
    assert sum(isinstance(found, str) for found in read.values()) > 40


def test_names_may_have_any_character() -> None:
    content = module(other_exports=[name("a\0b☃") + b"\2\0"])
    assert read_module(content).exports[-1].name == "a\0b☃"


@pytest.mark.parametrize(
    "case", [case for case, _ in cases() if case.startswith("custom-name-") and "beyond" not in case]
)
def test_a_malformed_custom_section_leaves_the_module_as_it_is(case: str) -> None:
    found = read_module(corpus()[case])
    assert found.abi_versions == ("0.2.1",)
    assert found.producers == ()
    if "module-name" in case or "part-too-long" in case:
        assert found.name is None


def test_malformed_producers_are_not_told() -> None:
    malformed = ("cut-short", "count", "leftover", "not-utf-8")
    assert {read_module(corpus()[f"custom-producers-{case}"]).producers for case in malformed} == {()}


def test_the_first_name_counts() -> None:
    assert read_module(corpus()["custom-twice"]).name == "first"


def test_a_module_that_is_read_need_not_be_valid() -> None:
    twice = corpus()["exports-twice"]
    assert isinstance(read_module(twice), Module)
    with pytest.raises(wasmtime.WasmtimeError, match="duplicate export name"):
        wasmtime.Module.validate(ENGINE, twice)
