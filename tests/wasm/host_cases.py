"""Modules that Envoy runs, refuses, or ends at; each is `plugin()` with one thing changed."""

from tests.wasm.module_cases import PRODUCERS
from tests.wasm.modules import (
    GLOBAL,
    HEAD,
    MEMORY,
    TABLE,
    TAG,
    body,
    custom,
    function_type,
    imported,
    limits,
    name,
    plugin,
    section,
    vector,
)

LOG = ("env", "proxy_log", "i32 i32 i32 -> i32")
_NAMES = {
    "good": b"\1" + name(b"\1\0" + name("f")),
    "too-long": b"\1\5\1\0\x09ab",
    "too-short": b"\1\6\1\0\1a\7\0",
}


def importing(function: str) -> bytes:
    """A plugin that imports ``module.name``, as a function."""
    module, _, field = function.partition(".")
    return plugin([(module, field, "i32 -> i32")])


MISSING = (
    "env.abort",
    "env.__cxa_throw",
    "env.invoke_v",
    "env.emscripten_memcpy_big",
    "env.emscripten_resize_heap",
    "env.setTempRet0",
    "env.seed",
    "env.log",
    "env.proxy_get_buffer",
    "env.proxy_dispatch_http_call",
    "env.proxy_get_configuration",
    "env.proxy_continue_request",
    "env.proxy_clear_route_cache",
    "env.proxy_redis_init",
    "proxy.proxy_log",
    "wasi.thread-spawn",
    "wasi.fd_write",
    "wasi_snapshot_preview1.proc_raise",
    "wasi_snapshot_preview1.sock_open",
    "wasi_snapshot_preview2.fd_write",
    "wasi_unstable.proc_raise",
    "gojs.runtime.wasmExit",
    "wbg.__wbindgen_throw",
)
"""Functions that Envoy does not have, which modules for other hosts import."""

RUNNING = {
    "least": plugin(),
    "producers": plugin([LOG], customs=[custom("producers", PRODUCERS)]),
    "abi-twice": plugin(abi=["0.2.1", "0.1.0"]),
    "abi-unknown-and-known": plugin(abi=["0.3.0", "0.2.0"]),
    "abi-0.1.0": plugin(abi=["0.1.0"], exports={"proxy_on_request_headers": "i32 i32 -> i32"}),
    "memory-allocate": plugin(without=["malloc"], exports={"proxy_on_memory_allocate": "i32 -> i32"}),
    "memory64": plugin(memory=limits(1, None, 4)),
    "memory-shared": plugin(memory=limits(1, 2, 2)),
    "memory-imported": plugin(memory=None, other_imports=[imported("any", "m", MEMORY, limits(1))]),
    "memory-imported-and-own": plugin(other_imports=[imported("any", "m", MEMORY, limits(1))]),
    "table-imported": plugin(other_imports=[imported("any", "t", TABLE, b"\x70\0\1")]),
    "initialize": plugin(exports={"_initialize": "void -> void", "main": "i32 i32 -> i32"}),
    "initialize-and-other-start": plugin(exports={"_initialize": "void -> void", "_start": "i32 -> i32"}),
    "main-without-initialize": plugin(exports={"main": "f32 -> f32"}),
    "export-unknown": plugin(exports={"something_else": "f64 i64 -> f32", "proxy_on_something": "f32 -> f32"}),
    "export-externref": plugin(exports={"something_else": "externref -> i32"}),
    "names": plugin(customs=[custom("name", _NAMES["good"])]),
    "names-twice": plugin(customs=[custom("name", _NAMES["good"]), custom("name", _NAMES["too-long"])]),
    "names-module-too-long": plugin(customs=[custom("name", b"\0\2\x09a")]),
    "foreign-function-of-another-abi": plugin(abi=["0.1.0"], exports={"proxy_on_foreign_function": "f32 -> f32"}),
}

REFUSED: dict[str, tuple[bytes, str]] = {
    "abi-missing": (plugin(abi=[]), "it exports no function proxy_abi_version_…, so that it is no Proxy-Wasm plugin"),
    "abi-unknown": (
        plugin(abi=["0.3.0"]),
        "it is made for the Proxy-Wasm ABI 0.3.0, and Envoy knows 0.1.0, 0.2.0, 0.2.1",
    ),
    "empty": (HEAD, "it exports no function proxy_abi_version_…, so that it is no Proxy-Wasm plugin"),
    "component": (b"\0asm\x0d\0\1\0", "it is a component, and Envoy runs core modules only"),
    "import-of-another-abi": (
        plugin([("env", "proxy_continue_stream", "i32 -> i32")], abi=["0.1.0"]),
        "it imports env.proxy_continue_stream, which Envoy offers under ABI 0.2.0 and 0.2.1, and it is made for 0.1.0",
    ),
    "import-global": (
        plugin(other_imports=[imported("env", "g", GLOBAL, b"\x7f\0")]),
        "it imports the global env.g, which Envoy does not offer",
    ),
    "import-of-another-type": (
        plugin([("env", "proxy_log", "i32 i32 -> i32")]),
        "it imports env.proxy_log as i32 i32 -> i32, and Envoy has it as i32 i32 i32 -> i32",
    ),
    "import-of-wasi-as-it-should-be": (
        plugin([("wasi_snapshot_preview1", "path_symlink", "i32 i32 i32 i32 i32 -> i32")]),
        "it imports wasi_snapshot_preview1.path_symlink as i32 i32 i32 i32 i32 -> i32, and Envoy has it as "
        "i32 i32 i32 i32 -> i32",
    ),
    "import-memory-shared": (
        plugin(memory=None, other_imports=[imported("env", "m", MEMORY, limits(1, 2, 2))]),
        "it imports a shared memory, which Envoy does not offer",
    ),
    "malloc-missing": (
        plugin(without=["malloc"]),
        "it exports neither malloc nor proxy_on_memory_allocate, by which Envoy hands it data",
    ),
    "malloc-of-another-type": (
        plugin(exports={"malloc": "i64 -> i64"}),
        "it exports malloc as i64 -> i64, and Envoy calls it as i32 -> i32 under the ABI 0.2.1",
    ),
    "allocate-of-another-type": (
        plugin(without=["malloc"], exports={"proxy_on_memory_allocate": "i64 -> i64"}),
        "it exports proxy_on_memory_allocate as i64 -> i64, and Envoy calls it as i32 -> i32 under the ABI 0.2.1",
    ),
    "export-of-the-old-abi": (
        plugin(exports={"proxy_on_request_headers": "i32 i32 -> i32"}),
        "it exports proxy_on_request_headers as i32 i32 -> i32, and Envoy calls it as i32 i32 i32 -> i32 under the ABI "
        "0.2.1",
    ),
    "start-of-another-type": (
        plugin(exports={"_start": "i32 -> i32"}),
        "it exports _start as i32 -> i32, and Envoy calls it as void -> void under the ABI 0.2.1",
    ),
    "main-of-another-type": (
        plugin(exports={"_initialize": "void -> void", "main": "void -> i32"}),
        "it exports main as void -> i32, and Envoy calls it as i32 i32 -> i32 under the ABI 0.2.1",
    ),
    "names-too-long": (
        plugin(customs=[custom("name", _NAMES["too-long"])]),
        "its custom section name, with the names of functions, is damaged, and Envoy insists on it",
    ),
    "names-too-short": (
        plugin(customs=[custom("name", _NAMES["too-short"])]),
        "its custom section name, with the names of functions, is damaged, and Envoy insists on it",
    ),
}
"""And the reason that we give."""

UNDEFINED: dict[str, tuple[bytes, str]] = {
    "import-memories": (
        plugin(memory=None, other_imports=[imported("env", one, MEMORY, limits(1)) for one in "ab"]),
        "it imports several memories, which Envoy refuses or crashes at",
    ),
    "import-tables": (
        plugin(other_imports=[imported("env", one, TABLE, b"\x70\0\1") for one in "ab"]),
        "it imports several tables, which Envoy refuses or crashes at",
    ),
}
"""Refused most of the time; sometimes the whole Envoy crashes, for it looks at the first when that is gone."""


def _calling_without_memory() -> bytes:
    """It calls ``proxy_log`` when its machine starts."""
    types = [function_type(signature) for signature in (LOG[2], "i32 -> i32", "void -> void", "i32 i32 -> i32")]
    called = [("malloc", 1), ("proxy_abi_version_0_2_1", 2), ("proxy_on_vm_start", 3)]
    log = name(b"\0\x41\2\x41\0\x41\1\x10\0\x0b")  # level 2, 1 byte at 0
    return HEAD + b"".join(
        [
            section(1, vector(types)),
            section(2, vector([imported("env", "proxy_log", 0, b"\0")])),
            section(3, b"\3\1\2\3"),
            section(7, vector([name(one) + bytes([0, number]) for one, number in called])),
            section(10, vector([body("i32 -> i32"), body("void -> void"), log])),
        ]
    )


def _exporting_a_tag() -> bytes:
    types = [function_type("i32 -> i32"), function_type("void -> void")]
    exports = [
        name("malloc") + b"\0\0",
        name("proxy_abi_version_0_2_1") + b"\0\1",
        name("m") + b"\2\0",
        name("t") + b"\4\0",
    ]
    return HEAD + b"".join(
        [
            section(1, vector(types)),
            section(3, b"\2\0\1"),
            section(5, vector([limits(1)])),
            section(13, vector([b"\0\1"])),
            section(7, vector(exports)),
            section(10, vector([body("i32 -> i32"), body("void -> void")])),
        ]
    )


CRASHING = {
    "a call without an exported memory": _calling_without_memory(),
    "an exported tag": _exporting_a_tag(),
    "an imported tag": plugin(
        [("env", "proxy_done", "void -> i32")], other_imports=[imported("env", "t", TAG, b"\0\1")]
    ),
    "an export with a vector": plugin(exports={"something_else": "v128 -> i32"}),
    "an import with a vector": plugin([("env", "proxy_log", "v128 -> i32")]),
}
"""All of them end the whole Envoy 1.40, as soon as they are loaded."""
