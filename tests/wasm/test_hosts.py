"""Whether Envoy would run a module is told in words, with what to do; tests/e2e asks Envoy itself."""

import pytest

from mirror.wasm.functions import ABI_VERSIONS, called, offered
from mirror.wasm.hosts import for_envoy, lacking, recent
from mirror.wasm.module import Import, Module, read_module
from tests.wasm.host_cases import CRASHING, MISSING, REFUSED, RUNNING, UNDEFINED, importing
from tests.wasm.modules import GLOBAL, TAG, corpus, imported, plugin
from tests.wasm.referee import read
from tests.wasm.test_module import DEMO


@pytest.mark.parametrize("case", RUNNING)
def test_a_module_that_envoy_runs_is_accepted(case: str) -> None:
    verdict = for_envoy(read_module(RUNNING[case]))
    assert (verdict.accepted, verdict.reason, verdict.remedy) == (True, "", "")


@pytest.mark.parametrize("case", [*REFUSED, *UNDEFINED])
def test_a_module_that_envoy_refuses_is_told_why_and_what_to_do(case: str) -> None:
    content, reason = (REFUSED | UNDEFINED)[case]
    verdict = for_envoy(read_module(content))
    assert not verdict.accepted
    assert verdict.reason == reason
    assert verdict.remedy


@pytest.mark.parametrize("case", CRASHING)
def test_a_module_at_which_envoy_crashes_is_told_as_such(case: str) -> None:
    verdict = for_envoy(read_module(CRASHING[case]))
    assert verdict.reason.endswith(": Envoy crashes at that, the whole process")
    assert verdict.remedy


def test_the_demo_plugin_is_accepted() -> None:
    found = read_module(DEMO.read_bytes())
    assert for_envoy(found).accepted
    assert lacking(found) == ()


@pytest.mark.parametrize("function", MISSING)
def test_a_function_that_envoy_does_not_have_is_named(function: str) -> None:
    found = read_module(importing(function))
    module, _, name = function.partition(".")
    assert lacking(found) == (Import(module, name, "function", "i32 -> i32"),)
    verdict = for_envoy(found)
    assert verdict.reason.startswith(f"it imports {function}, which Envoy ")
    assert verdict.remedy


def test_many_missing_functions_are_counted() -> None:
    found = read_module(plugin([("env", name, "void -> void") for name in "abcde"]))
    assert for_envoy(found).reason == "it imports env.a, env.b, env.c and 2 more, which Envoy does not offer"
    assert len(lacking(found)) == 5


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("env.abort", "--use abort=abort_proc_exit"),
        ("env.__cxa_throw", "-fno-exceptions"),
        ("env.emscripten_resize_heap", "-sSTANDALONE_WASM"),
        ("env.proxy_redis_init", "another host than Envoy"),
        ("gojs.runtime.wasmExit", "GOOS=wasip1"),
        ("wbg.__wbindgen_throw", "wasm32-wasip1"),
        ("wasi.thread-spawn", "without threads"),
        ("wasi:cli/environment@0.2.0.get-environment", "preview 1"),
        ("wasi_snapshot_preview1.sock_open", "without this call of WASI"),
        ("my-host.call", "without that import"),
    ],
)
def test_the_remedy_knows_where_an_import_comes_from(function: str, words: str) -> None:
    assert words in for_envoy(read_module(importing(function))).remedy


def test_globals_and_tags_are_lacking_whatever_their_names() -> None:
    entries = [imported("env", "proxy_log", GLOBAL, b"\x7f\0"), imported("env", "proxy_log", TAG, b"\0\0")]
    assert [wanted.kind for wanted in lacking(read_module(plugin(other_imports=entries)))] == ["global", "tag"]


def test_what_a_function_is_called_depends_on_the_abi_version() -> None:
    old = ("env", "proxy_get_configuration", "i32 i32 -> i32")
    assert lacking(read_module(plugin([old], abi=["0.1.0"]))) == ()
    assert lacking(read_module(plugin([old], abi=["0.2.1"]))) == (Import(*old[:2], "function", old[2]),)
    assert lacking(read_module(plugin([old], abi=[]))) == (), (
        "a module without an ABI version lacks what no version has"
    )


def test_functions_that_older_envoys_lack_are_known() -> None:
    imports = [("wasi_snapshot_preview1", name, "i32 i32 -> i32") for name in ("clock_res_get", "random_get")]
    found = read_module(plugin(imports))
    assert [wanted.name for wanted in recent(found)] == ["clock_res_get"]
    assert for_envoy(found).accepted


def test_the_tables_are_whole() -> None:
    assert [len(offered(abi)) for abi in ABI_VERSIONS] == [132, 130, 131]
    assert [len(called(abi)) for abi in ABI_VERSIONS] == [28, 29, 29]


def test_every_module_of_the_corpus_gets_a_verdict() -> None:
    modules = [found for found in map(read, corpus().values()) if isinstance(found, Module)]
    assert len(modules) > 50
    for verdict in map(for_envoy, modules):
        assert verdict.accepted or (verdict.reason and verdict.remedy)


def test_names_out_of_a_module_are_fit_for_a_sentence() -> None:
    hostile = "\x1b[31m\n\u202e" + "x" * 10_000
    found = [
        plugin([("env", hostile, "void -> void")]),
        plugin(abi=[hostile]),
        plugin(exports={hostile: "v128 -> i32"}),
        plugin([("env", "proxy_log", f"{'i32 ' * 900} -> void")]),
        plugin(other_imports=[imported("env", hostile, TAG, b"\0\0")]),
    ]
    for reason in (for_envoy(read_module(content)).reason for content in found):
        assert reason.isprintable()
        assert 20 < len(reason) < 300
