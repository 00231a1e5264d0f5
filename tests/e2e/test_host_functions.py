"""What we say of Envoy's hosts is what the real Envoy does: modules by the hundred, each changed in one thing."""

import hashlib
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mirror.wasm.functions import ABI_VERSIONS, called, offered
from mirror.wasm.hosts import for_envoy, lacking
from mirror.wasm.module import read_module
from tests.support.envoy import EnvoyProcess, remote_code, wasm_filter
from tests.wasm.host_cases import CRASHING, MISSING, REFUSED, RUNNING, importing
from tests.wasm.modules import plugin

pytestmark = pytest.mark.needs("envoy")

OTHER = "f32 -> f32"
"""A signature that no function has."""


@contextmanager
def served(modules: Mapping[str, bytes]) -> Iterator[str]:
    """The URL of a server of these modules."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            content = modules[self.path.strip("/")]
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def handle(self) -> None:
            try:
                super().handle()
            except ConnectionError:
                return  # an Envoy that crashed

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 500

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def refused_by_envoy(folder: Path, modules: Mapping[str, bytes]) -> dict[str, str]:
    """What Envoy says of those modules that it does not run. Raise `AssertionError` when it crashes."""
    with served(modules) as url:
        filters = [
            wasm_filter(remote_code(f"{url}/{name}", hashlib.sha256(content).hexdigest()), name=name)
            for name, content in modules.items()
        ]
        with EnvoyProcess(folder, filters, start_within=50):
            pass
    said: dict[str, str] = {}
    lines: list[str] = []
    for line in (folder / "envoy.log").read_text().splitlines():
        failed = re.search(r"\] Plugin (\S+) failed to load$", line)
        if failed:
            said[failed[1]] = "\n".join(lines)
        lines = [] if failed else [*lines, line]
    return said


def test_envoy_has_the_functions_of_the_table_with_their_signatures_and_calls_those_of_the_other(
    tmp_path: Path,
) -> None:
    """Asked by modules with wrong signatures; Envoy answers with the right ones."""
    wanted: dict[str, tuple[bytes, str]] = {}
    for abi in ABI_VERSIONS:
        others = {} if abi == "0.2.1" else offered("0.2.1")
        for function, signature in offered(abi).items():
            if function not in others:  # the same under each ABI, but for a few
                module, name = function.split(".")
                content = plugin([(module, name, OTHER)], abi=[abi])
                wanted[f"{abi}-{function}"] = (content, f"mismatch: {function}, .* host exports: {signature}$")
        for name, signature in called(abi).items():
            content = plugin(exports={name: OTHER}, abi=[abi])
            wanted[f"{abi}-{name}"] = (content, f"signature for: {name}, want: {signature}, ")
    said = refused_by_envoy(tmp_path, {name: content for name, (content, _) in wanted.items()})
    wrong = {
        name: said.get(name) for name, (_, words) in wanted.items() if not re.search(words, said.get(name, ""), re.M)
    }
    assert wrong == {}


def test_envoy_runs_what_we_say_it_runs_and_refuses_the_rest(tmp_path: Path) -> None:
    modules = {**RUNNING, **{name: content for name, (content, _) in REFUSED.items()}}
    modules |= {function: importing(function) for function in MISSING}
    for abi in ABI_VERSIONS:
        imports = [(*function.split("."), signature) for function, signature in offered(abi).items()]
        modules[f"all-of-{abi}"] = plugin(imports, abi=[abi], exports=called(abi))  # type: ignore[arg-type] # two parts
    said = refused_by_envoy(tmp_path, modules)
    verdicts = {name: for_envoy(read_module(content)) for name, content in modules.items()}
    assert {name for name, verdict in verdicts.items() if not verdict.accepted} == set(said)


def test_what_we_call_missing_envoy_calls_missing(tmp_path: Path) -> None:
    said = refused_by_envoy(tmp_path, {function: importing(function) for function in MISSING})
    assert {f: re.findall(r"missing import: (\S+)$", words, re.M) for f, words in said.items()} == {
        function: [function] for function in MISSING
    }
    assert all(lacking(read_module(importing(function))) for function in MISSING)


@pytest.mark.parametrize("case", CRASHING)
def test_envoy_crashes_where_we_say_so(case: str, tmp_path: Path) -> None:
    content = CRASHING[case]
    verdict = for_envoy(read_module(content))
    assert not verdict.accepted
    assert "Envoy crashes" in verdict.reason
    with pytest.raises(AssertionError, match="ended with status -"):
        refused_by_envoy(tmp_path, {"plugin": content})
