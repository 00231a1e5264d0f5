"""The story: one Envoy gets its plugin through the mirror, upstream goes away, and another one gets it all the same."""

import contextlib
import hashlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import httpx

from demo.telling import numbers, saw, say, show
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
FETCHES = "wasm.remote_load_fetch_"


def tell(folder: Path) -> None:
    """Play it, with all files under ``folder``; raises `Unexpected` at the first step that goes another way."""
    module = PLUGIN.read_bytes()
    with contextlib.ExitStack() as running:
        upstream, stop = running.enter_context(_upstream(folder / "upstream", module))
        # What a tag names is asked again each time, so that the outage is noticed.
        settings = {"defaults": {"fresh_for": "0s"}}
        mirror = running.enter_context(MirrorProcess(folder / "mirror", {"demo": upstream}, settings))
        saw(f"The mirror starts at {mirror.url}, empty; its only upstream is that registry", "ready")
        url = f"{mirror.url}/modules/demo/{REPOSITORY}:{TAG}"
        code = remote_code(url, hashlib.sha256(module).hexdigest())
        plugin = wasm_filter(code, root_id="basic_auth", configuration=f"/productpage {':'.join(USER)}")
        say(f"        From now on Envoys get {url}")

        first = running.enter_context(EnvoyProcess(folder / "first", [plugin]))
        _protects(first, "An Envoy starts")
        before = _metrics(mirror)
        stop()
        saw("The registry is stopped; a connection to it", _connection(upstream), "refused")
        second = running.enter_context(EnvoyProcess(folder / "second", [plugin]))
        _protects(second, "Another Envoy starts, with nothing in it")
        after = _metrics(mirror)

        show(("before the outage", "after it"), (before, after))
        show(("first Envoy", "second Envoy"), (first.stats(FETCHES), second.stats(FETCHES)))
        say()
        came = _total(after, UPSTREAM_BYTES) - _total(before, UPSTREAM_BYTES)
        saw("Bytes that came from upstream for the second Envoy", int(came), 0)
        stale = _total(after, f'{LOOKUPS}{{.*result="stale"')
        saw("The mirror asked upstream in vain, and answered from its disk", "yes" if stale else "no", "yes")


@contextlib.contextmanager
def _upstream(folder: Path, module: bytes) -> Iterator[tuple[str, Callable[[], object]]]:
    """A registry that holds the module, its URL and what stops it: Debian's, or where it is not, that of the tests."""
    pushed = f"{PLUGIN.name} is pushed to it as {REPOSITORY}:{TAG}, {len(module)} bytes in the OCI raw layout"
    if PROGRAMS["docker-registry"].find() is not None:
        with DockerRegistry(folder) as registry:
            saw(f"A registry starts at {registry.url}, Debian's docker-registry", "ready")
            saw(pushed, f"{registry.push(REPOSITORY, TAG, raw(module))}"[:19])
            yield registry.url, registry.stop
    else:
        with FaultyUpstream() as fake:
            saw(f"A registry starts at {fake.url}, that of the tests, for want of docker-registry", "ready")
            saw(pushed, f"{publish(fake, REPOSITORY, TAG, raw(module))}"[:19])
            yield fake.url, fake.refuse


def _protects(envoy: EnvoyProcess, started: str) -> None:
    """Ask an Envoy that has just started for a page of the plugin's configuration, without and with credentials."""
    saw(f"{started}; modules that it fetched", envoy.stats(FETCHES)[f"{FETCHES}successes"], 1)
    with httpx.Client(base_url=envoy.url, trust_env=False) as client:
        refused = client.get("/productpage")
        saw("  GET /productpage without credentials", refused.status_code, 401)
        saw("  the scheme of www-authenticate", refused.headers.get("www-authenticate", "none").split()[0], "Basic")
        saw(f"  GET /productpage as {USER[0]}", client.get("/productpage", auth=USER).status_code, 200)


def _connection(url: str) -> str:
    try:
        return f"answered with {httpx.get(f'{url}/v2/', trust_env=False).status_code}"
    except httpx.ConnectError:
        return "refused"


def _metrics(mirror: MirrorProcess) -> dict[str, float]:
    text = httpx.get(f"{mirror.url}/metrics", trust_env=False).raise_for_status().text
    return numbers(text, UPSTREAM_REQUESTS, UPSTREAM_BYTES, LOOKUPS)


def _total(found: Mapping[str, float], pattern: str) -> float:
    return sum(value for series, value in found.items() if re.match(pattern, series))
