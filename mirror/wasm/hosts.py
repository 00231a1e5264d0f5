"""What Envoy makes of a module: which of its imports it lacks, and whether it would run it.

Each rule was seen with Envoy 1.40 and V8 (tests/e2e/test_host_functions.py). Some modules are not refused by it but end
the whole process, as soon as they are loaded or when they first call the host; the reasons here say so.
"""

from mirror.wasm.artifact import Verdict
from mirror.wasm.functions import ABI_VERSIONS, RECENT_WASI, called, offered
from mirror.wasm.module import Import, Module

_C_TYPES = frozenset({"i32", "i64", "f32", "f64", "funcref", "externref", "void", "->"})
"""What may stand in a signature that Envoy looks at; at any other type the whole Envoy ends (V8: unreachable code)."""


def abi_of(module: Module) -> str | None:
    """The ABI version by which Envoy runs it: the first that it knows of those that are exported."""
    return next((version for version in module.abi_versions if version in ABI_VERSIONS), None)


def lacking(module: Module) -> tuple[Import, ...]:
    """The imports that the Proxy-Wasm hosts of Envoy do not have."""
    functions = offered(abi_of(module))
    return tuple(
        wanted
        for wanted in module.imports
        if wanted.kind in ("global", "tag")
        or (wanted.kind == "function" and f"{wanted.module}.{wanted.name}" not in functions)
    )


def recent(module: Module) -> tuple[Import, ...]:
    """The imports that Envoy has, but only since 1.38."""
    return tuple(
        wanted
        for wanted in module.imports
        if wanted.module in ("wasi_snapshot_preview1", "wasi_unstable") and wanted.name in RECENT_WASI
    )


def for_envoy(module: Module) -> Verdict:
    """Whether an Envoy would load the module; whether it then does its work, nobody can tell from outside."""
    if module.component:
        return Verdict(
            False,
            "it is a component, and Envoy runs core modules only",
            "build a core module with a Proxy-Wasm SDK (Rust: target wasm32-wasip1), and do not componentize it",
        )
    abi = abi_of(module)
    if abi is None:
        return _no_abi(module)
    for judge in (_imports, _import_signatures, _exports, _memory, _extras):
        refused = judge(module, abi)
        if refused is not None:
            return refused
    return Verdict(True)


def _no_abi(module: Module) -> Verdict:
    known = ", ".join(ABI_VERSIONS)
    if module.abi_versions:
        versions = ", ".join(map(shown, module.abi_versions[:3]))
        return Verdict(
            False,
            f"it is made for the Proxy-Wasm ABI {versions}, and Envoy knows {known}",
            "build it with a Proxy-Wasm SDK for one of these",
        )
    return Verdict(
        False,
        "it exports no function proxy_abi_version_…, so that it is no Proxy-Wasm plugin",
        "build it with a Proxy-Wasm SDK, as a library, so that the linker keeps what it exports",
    )


def _imports(module: Module, abi: str) -> Verdict | None:
    missing = lacking(module)
    if not missing:
        return None
    tags = [wanted for wanted in missing if wanted.kind == "tag"]
    if tags:
        return _ends(f"it imports the tag {_shown(tags[0])}", "build it without WebAssembly exceptions")
    names = ", ".join(_shown(wanted) for wanted in missing[:3])
    more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
    kind = "the global " if missing[0].kind == "global" else ""
    others = [version for version in ABI_VERSIONS if _full(missing[0]) in offered(version)]
    if others and not kind:
        return Verdict(
            False,
            f"it imports {names}{more}, which Envoy offers under ABI {' and '.join(others)}, and it is made for {abi}",
            "build it with one SDK, of one version",
        )
    return Verdict(False, f"it imports {kind}{names}{more}, which Envoy does not offer", _without(missing[0]))


_REMEDIES = {
    "env.abort": "AssemblyScript: build it with --use abort=abort_proc_exit",
    "env.proxy_": "it is made for another host than Envoy, or for a newer one: build it with an SDK for Envoy",
    "env.__cxa_": "build it without C++ exceptions (-fno-exceptions)",
    "env.invoke_": "build it without C++ exceptions and longjmp (-fno-exceptions)",
    "env.emscripten_": "Emscripten: build it with -sSTANDALONE_WASM=1 --no-entry",
    "env.": "a symbol is undefined: link what it belongs to, and no host of the browser or of JavaScript",
    "wasi_snapshot_preview1.": "build it without this call of WASI",
    "wasi_unstable.": "build it without this call of WASI",
    "wasi.thread-spawn": "build it without threads",
    "wasi:": "build it for WASI preview 1 (wasm32-wasip1), not preview 2",
    "gojs.": "Go: build it with GOOS=wasip1 GOARCH=wasm -buildmode=c-shared",
    "go.": "Go: build it with GOOS=wasip1 GOARCH=wasm -buildmode=c-shared",
    "__wbindgen": "Rust: build it for the target wasm32-wasip1, without wasm-bindgen",
    "wbg.": "Rust: build it for the target wasm32-wasip1, without wasm-bindgen",
}


def _without(wanted: Import) -> str:
    """What to do about a missing import."""
    fits = [start for start in _REMEDIES if _full(wanted).startswith(start)]
    return (
        _REMEDIES[max(fits, key=len)] if fits else "build it without that import; Envoy offers env and WASI preview 1"
    )


def _import_signatures(module: Module, abi: str) -> Verdict | None:
    functions = offered(abi)
    for wanted in module.imports:
        if wanted.kind != "function" or wanted.signature is None:
            continue
        if not _C_TYPES.issuperset(wanted.signature.split()):
            return _ends(f"the type of the import {_shown(wanted)} is {shown(wanted.signature)}", _PLAIN_TYPES)
        has = functions[_full(wanted)]
        if wanted.signature != has:
            return Verdict(
                False,
                f"it imports {_shown(wanted)} as {shown(wanted.signature)}, and Envoy has it as {has}",
                "build it with an SDK that fits its ABI version, or without that call",
            )
    return None


_PLAIN_TYPES = "export and import only functions of i32, i64, f32 and f64"


def _exports(module: Module, abi: str) -> Verdict | None:
    functions = {export.name: export.signature for export in module.exports if export.kind == "function"}
    wants = dict(called(abi))
    if "_initialize" in functions:
        wants |= {"_initialize": "void -> void", "main": "i32 i32 -> i32", "__main_void": "void -> i32"}
    else:
        wants["_start"] = "void -> void"
    if "malloc" not in functions:
        wants["proxy_on_memory_allocate"] = wants["malloc"]
    for name, signature in functions.items():
        if signature is None:
            continue
        if not _C_TYPES.issuperset(signature.split()):
            return _ends(f"the type of its export {shown(name)} is {shown(signature)}", _PLAIN_TYPES)
        if signature != wants.get(name, signature):
            return Verdict(
                False,
                f"it exports {name} as {shown(signature)}, and Envoy calls it as {wants[name]} under the ABI {abi}",
                "build it with an SDK that fits its ABI version",
            )
    if not {"malloc", "proxy_on_memory_allocate"} & functions.keys():
        return Verdict(
            False,
            "it exports neither malloc nor proxy_on_memory_allocate, by which Envoy hands it data",
            "build it with a Proxy-Wasm SDK, and see that the linker keeps exports",
        )
    return None


def _memory(module: Module, _: str) -> Verdict | None:
    imported = [memory for memory in module.memories if memory.imported]
    if any(memory.shared for memory in imported):
        return Verdict(False, "it imports a shared memory, which Envoy does not offer", "build it without threads")
    for kind, several in (("memory", "memories"), ("table", "tables")):
        if sum(wanted.kind == kind for wanted in module.imports) > 1:
            return Verdict(
                False, f"it imports several {several}, which Envoy refuses or crashes at", "let it have its own"
            )
    if not imported and not any(export.kind == "memory" for export in module.exports):
        return _ends("it exports no memory, from which Envoy would read", "see that the linker exports the memory")
    return None


def _extras(module: Module, _: str) -> Verdict | None:
    tags = [export.name for export in module.exports if export.kind == "tag"]
    if tags:
        return _ends(
            f"it exports the tag {shown(tags[0])}", "build it without WebAssembly exceptions, or strip that export"
        )
    if not module.names_intact:
        return Verdict(
            False,
            "its custom section name, with the names of functions, is damaged, and Envoy insists on it",
            "strip the section (wasm-tools strip), or build it anew",
        )
    return None


def _ends(what: str, remedy: str) -> Verdict:
    """A module at which Envoy does not only refuse."""
    return Verdict(False, f"{what}: Envoy crashes at that, the whole process", remedy)


def shown(text: str, most: int = 80) -> str:
    """A name out of a module, fit for a sentence, a log or a terminal: it may be of any length and any characters."""
    plain = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[: most + 1])
    return plain if len(plain) <= most else f"{plain[:most]}…"


def _full(wanted: Import) -> str:
    return f"{wanted.module}.{wanted.name}"


def _shown(wanted: Import) -> str:
    return shown(_full(wanted))
