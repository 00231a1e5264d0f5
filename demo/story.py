"""The story: one Envoy gets its plugin through the mirror, upstream goes away, and another one gets it all the same."""

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx

from demo.telling import numbers, saw, show
from tests.support.artifacts import publish, raw
from tests.support.envoy import EnvoyProcess, remote_code, wasm_filter
from tests.support.process import MirrorProcess
from tests.support.registry import DockerRegistry
from tests.support.tools import PROGRAMS
from tests.support.upstream import FaultyUpstream

PLUGIN = Path(__file__).parent / "plugin" / "basic_auth.wasm"
REPOSITORY, TAG = "team/basic-auth", "1.0"
USER = ("demo", "wasm")

UPSTREAM_REQUESTS = "wasm_mirror_upstream_requests_total"
UPSTREAM_BYTES = "wasm_mirror_upstream_bytes_total"
LOOKUPS = "wasm_mirror_lookups_total"
FETCHES = "remote_load_fetch"


def tell(folder: Path) -> None:
    """Play it, with all files under ``folder``; raises `Unexpected` at the first step that goes another way."""
    module = PLUGIN.read_bytes()
    sha256 = hashlib.sha256(module).hexdigest()
    with contextlib.ExitStack() as running:
        upstream, stop = running.enter_context(_upstream(folder / "upstream", module))
        # What a tag names is asked again each time, so that the outage is noticed.
        settings = {"defaults": {"fresh_for": "0s"}}
        mirror = running.enter_context(MirrorProcess(folder / "mirror", {"demo": upstream}, settings))
        saw(f"The mirror starts at {mirror.url}, with nothing in it; its only upstream is that registry", "ready")

        plugin = wasm_filter(
            remote_code(f"{mirror.url}/modules/demo/{REPOSITORY}:{TAG}", sha256),
            root_id="basic_auth",
            configuration=f"/productpage {':'.join(USER)}",
        )
        first = running.enter_context(_envoy(folder / "first", plugin, "An Envoy starts"))
        _protects(first)
        before = _metrics(mirror)

        stop()
        saw("The upstream registry is stopped; a connection to it", _connection(upstream), "refused")
        second = running.enter_context(_envoy(folder / "second", plugin, "Another Envoy starts, with nothing in it"))
        _protects(second)

        after = _metrics(mirror)
        show("What the mirror counted while upstream was there:", before)
        show("What it has counted now:", after)
        for name, envoy in (("first", first), ("second", second)):
            show(f"What the {name} Envoy counted:", {n: v for n, v in envoy.stats(FETCHES).items() if v})
        print()
        saw(
            "Bytes that came from upstream for the second Envoy",
            int(_total(after, UPSTREAM_BYTES) - _total(before, UPSTREAM_BYTES)),
            0,
        )
        stale = _total(after, f'{LOOKUPS}{{.*result="stale"')
        saw("Answers that the mirror gave without upstream, which it had asked in vain", int(stale), 1, 2, 3)


@contextlib.contextmanager
def _upstream(folder: Path, module: bytes) -> Iterator[tuple[str, Callable[[], object]]]:
    """A registry that holds the module, its URL and what stops it: Debian's, or where it is not, that of the tests."""
    pushed = (
        f"The plugin ({len(module)} bytes) is pushed to it as {REPOSITORY}:{TAG}, in the OCI raw layout; its manifest"
    )
    if PROGRAMS["docker-registry"].find() is not None:
        with DockerRegistry(folder) as registry:
            saw(f"An upstream registry starts at {registry.url}, Debian's docker-registry", "ready")
            saw(pushed, registry.push(REPOSITORY, TAG, raw(module)))
            yield registry.url, registry.stop
    else:
        with FaultyUpstream() as fake:
            saw(f"An upstream registry starts at {fake.url}, that of the tests (there is no docker-registry)", "ready")
            saw(pushed, publish(fake, REPOSITORY, TAG, raw(module)))
            yield fake.url, fake.refuse


@contextlib.contextmanager
def _envoy(folder: Path, plugin: dict[str, object], what: str) -> Iterator[EnvoyProcess]:
    """An Envoy that fetches its plugin itself."""
    with EnvoyProcess(folder, [plugin]) as envoy:
        address = re.search(r'"uri": "(.*)"', (folder / "envoy.json").read_text())
        assert address is not None
        fetched = envoy.stats(FETCHES)["wasm.remote_load_fetch_successes"]
        saw(f"{what}, and fetches {address[1]} by its sha256; modules that it got", fetched, 1)
        yield envoy


def _protects(envoy: EnvoyProcess) -> None:
    """Ask that Envoy for a page of the plugin's configuration, without and with credentials."""
    with httpx.Client(base_url=envoy.url, trust_env=False) as client:
        refused = client.get("/productpage")
        saw("  GET /productpage through it, without credentials", refused.status_code, 401)
        saw("  www-authenticate", refused.headers.get("www-authenticate", "none").split()[0], "Basic")
        saw(f"  GET /productpage as {USER[0]}", client.get("/productpage", auth=USER).status_code, 200)


def _connection(url: str) -> str:
    try:
        return f"answered with {httpx.get(f'{url}/v2/', trust_env=False).status_code}"
    except httpx.ConnectError:
        return "refused"


def _metrics(mirror: MirrorProcess) -> dict[str, float]:
    text = httpx.get(f"{mirror.url}/metrics", trust_env=False).raise_for_status().text
    return numbers(text, UPSTREAM_REQUESTS, UPSTREAM_BYTES, LOOKUPS)


def _total(found: dict[str, float], pattern: str) -> float:
    return sum(value for series, value in found.items() if re.match(pattern, series))
