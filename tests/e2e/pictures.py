"""The dashboard's pictures in docs/pictures: ``python -m tests.e2e.pictures``.

The page is the real one; what it tells is made up, so that a picture shows an hour of a mesh, and not a second of a
test.
"""

import base64
import math
import random
import struct
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mirror.edge.api.fills import AllFills, OneFill
from mirror.edge.api.modules import ModuleTold
from mirror.edge.api.overview import HistoryTold, Point
from mirror.edge.api.replicas import Replica, Replicas
from mirror.edge.api.upstreams import OneUpstream, Upstreams
from tests.support.browser import Browser, chromium, expect, tab
from tests.support.dashboard import Pretended, module, overview, upstream

FOLDER = Path(__file__).parents[2] / "docs" / "pictures"

_KIB, _MIB, _GIB = 1 << 10, 1 << 20, 1 << 30
_DESKTOP: Mapping[str, Any] = {"viewport": {"width": 1280, "height": 1180}}
_PHONE: Mapping[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "device_scale_factor": 2,
    "is_mobile": True,
    "has_touch": True,
}
_PIXELS = """
    async (encoded) => {
        const bytes = Uint8Array.from(atob(encoded), (sign) => sign.charCodeAt(0));
        const image = await createImageBitmap(new Blob([bytes]));
        const canvas = new OffscreenCanvas(image.width, image.height).getContext("2d");
        canvas.drawImage(image, 0, 0);
        const { data } = canvas.getImageData(0, 0, image.width, image.height);
        let text = "";
        for (let at = 0; at < data.length; at += 32768) text += String.fromCharCode(...data.subarray(at, at + 32768));
        return [image.width, image.height, btoa(text)];
    }
"""
_ABI = {"rust": ["0.2.1"], "cpp": ["0.2.0"], "none": []}
_NO_PLUGIN = "Envoy will not run it: it exports no function proxy_abi_version_…, so that it is no Proxy-Wasm plugin"
_NO_LAYER = "agents refuse it: its last layer is application/vnd.oci.image.config.v1+json, and no archive of a module"

# Reference, layout, what it was built with, KiB, pulls, seconds since the last one, pinned, verdict, why.
_MODULES = (
    ("ghcr.io/istio-ecosystem/wasm-extensions/basic_auth:1.12.0", "oci raw", "cpp", 1480, 48211, 2, True),
    ("ghcr.io/corazawaf/coraza-proxy-wasm:0.6.0", "oci compat", "rust", 11420, 21890, 4, True),
    ("ghcr.io/kuadrant/wasm-shim:v0.10.1", "oci raw", "rust", 2310, 18204, 9, True),
    ("docker.io/tetrate/grpc-logging:0.3.2", "docker", "rust", 780, 6120, 31, False),
    ("registry.corp.example/mesh/jwt-claims:2.4.1", "oci raw", "rust", 1204, 5310, 12, True),
    ("registry.corp.example/mesh/tenant-router:1.9.0", "oci raw", "rust", 964, 4877, 17, False),
    ("hosted/platform/header-guard:3.0.0", "oci raw", "cpp", 655, 3902, 55, False),
    ("registry.corp.example/mesh/rate-limiter:0.8.0-rc2", "cncf", "rust", 1388, 14, 1260, False),
    ("ghcr.io/envoyproxy/examples/wasm-cc:latest", "oci compat", "cpp", 412, 9, 4300, False),
    ("registry.corp.example/mesh/geo-fence:1.0.0", "oci raw", "none", 2201, 6, 8100, False),
    ("docker.io/tetrate/otel-spans:1.1.0", "docker", "rust", 1902, 4, 20300, False),
)
_VERDICTS = {
    "registry.corp.example/mesh/rate-limiter:0.8.0-rc2": ("refused", _NO_LAYER),
    "registry.corp.example/mesh/geo-fence:1.0.0": ("accepted", _NO_PLUGIN),
}


def main() -> None:
    """Take them all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        with Pretended() as mirror:
            a_good_day(mirror)
            take(browser, mirror, "dashboard", **_DESKTOP)
            take(browser, mirror, "dashboard-modules", "#modules", **_DESKTOP)
            take(browser, mirror, "dashboard-dark", color_scheme="dark", **_DESKTOP)
            take(browser, mirror, "dashboard-telephone", **_PHONE)
        with Pretended() as mirror:
            a_good_day(mirror)
            an_incident(mirror)
            take(browser, mirror, "dashboard-incident", **_DESKTOP)


def take(browser: Browser, mirror: Pretended, name: str, part: str = "body", **options: Any) -> None:
    """A picture of the overview as far as the window goes, or of a part of it."""
    with tab(browser, mirror.url, **options) as page:
        expect(page.locator("#modules tbody tr")).to_have_count(len(_MODULES))
        expect(page.locator("#history figure")).to_have_count(2)
        expect(page.locator("#own")).to_be_visible()
        shown = page if part == "body" else page.locator(part)
        (FOLDER / f"{name}.png").write_bytes(_small(browser, shown.screenshot()))


def _small(browser: Browser, picture: bytes) -> bytes:
    """The same pixels in fewer bytes: flat areas shrink best unfiltered. Source: PNG specification, third edition."""
    page = browser.new_page()
    width, height, encoded = page.evaluate(_PIXELS, base64.b64encode(picture).decode())
    page.close()
    pixels = base64.b64decode(encoded)  # four bytes each: the last is how opaque it is, and it is
    rows = bytearray()
    for row in range(height):
        colours = bytearray(pixels[row * width * 4 : (row + 1) * width * 4])
        del colours[3::4]
        rows += b"\0" + colours
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(rows), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def a_good_day(mirror: Pretended) -> None:
    """A busy mesh, and nothing wrong."""
    now = time.time()
    points = _hour(now, random.Random(8))
    hits = sum(one.hit + one.stale + one.negative for one in points)
    lookups = hits + sum(one.miss + one.collapsed for one in points)
    mirror.modules = [_module(now, *row) for row in _MODULES]
    mirror.history = HistoryTold(step=30, points=points)
    hour = {
        "hits": hits,
        "lookups": lookups,
        "ratio": hits / lookups,
        "sent_bytes": sum(one.sent_bytes for one in points),
        "upstream_bytes": sum(one.upstream_bytes for one in points),
    }
    disk = {"bytes": int(6.4 * _GIB), "blobs": 1284, "pinned": int(1.9 * _GIB), "hosted": 640 * _MIB}
    own = "http://wasm-mirror-0.wasm-mirror:8080"
    mirror.tell(
        "overview",
        overview(own=own, names=["wasm-mirror.istio-system:8080"], began_at=now - 9 * 86400, last_hour=hour, disk=disk),
    )
    mirror.tell("replicas", Replicas(own=own, others=[_replica(1), _replica(2)]))
    mirror.tell("upstreams", Upstreams(upstreams=[_ghcr(now), _docker(), _corp()]))


def an_incident(mirror: Pretended) -> None:
    """One upstream is down, and a rollout has begun."""
    now = time.time()
    down = {
        "healthy": False,
        "reachable": False,
        "breaker": "open",
        "opens_for": 14.2,
        "requests": 1944,
        "failures": 61,
        "last_error": "registry.corp.example: connection refused",
        "last_error_at": now - 41,
    }
    mirror.tell("upstreams", Upstreams(upstreams=[_ghcr(now), _docker(), _corp(**down)]))
    fills = [
        _fill(now, "ghcr.io/corazawaf/coraza-proxy-wasm", 7.3, 11.2, 212),
        _fill(now, "docker.io/tetrate/grpc-logging", 0.4, 0.8, 37),
    ]
    mirror.tell("fills", AllFills(fills=fills, total=2))
    told = overview()
    known = mirror.history.points
    hits = sum(one.hit + one.stale for one in known)
    lookups = hits + sum(one.miss + one.collapsed for one in known)
    hour = told.last_hour.model_copy(update={"hits": hits, "lookups": lookups, "ratio": hits / lookups})
    mirror.tell(
        "overview",
        overview(
            own="http://wasm-mirror-0.wasm-mirror:8080",
            began_at=now - 9 * 86400,
            last_hour=hour.model_dump(),
            fills=2,
            waiters=249,
        ),
    )


def _module(
    now: float, reference: str, layout: str, built: str, size: int, hits: int, since: float, pinned: bool
) -> ModuleTold:
    verdict, why = _VERDICTS.get(reference, ("accepted", None))
    return module(
        reference,
        layout=layout,
        abi=_ABI[built],
        size=size * _KIB,
        hits=hits,
        used_at=now - since,
        fetched_at=now - min(since, 8),
        pinned=pinned,
        verdict=verdict,
        why=why,
    )


def _hour(now: float, chance: random.Random) -> list[Point]:
    """Two rollouts, and agents that look again in between."""
    found = []
    for number in range(120):
        rollout = math.exp(-(((number - 34) / 5) ** 2)) + 0.7 * math.exp(-(((number - 92) / 6) ** 2))
        lookups = int(180 + 900 * rollout + chance.uniform(-30, 30))
        miss = int(chance.random() < 0.06) + int(5 * rollout * chance.random())
        found.append(
            Point(
                at=now - 30 * (119 - number),
                hit=lookups - 2 * miss,
                stale=0,
                collapsed=miss,
                miss=miss,
                negative=0,
                requests=lookups,
                failures=0,
                sent_bytes=int(lookups * 180 * _KIB * (0.6 + rollout)),
                upstream_bytes=miss * 3 * _MIB,
            )
        )
    return found


def _replica(number: int) -> Replica:
    return Replica(address=f"http://wasm-mirror-{number}.wasm-mirror:8080", answers=True)


def _ghcr(now: float) -> OneUpstream:
    error = {"last_error": "answered 502 to GET of a blob", "last_error_at": now - 5400, "failures": 2}
    return upstream("ghcr.io", mean_seconds=0.112, requests=4310, bytes=412 * _MIB, **error)


def _docker() -> OneUpstream:
    return upstream("docker.io", mean_seconds=0.184, requests=288, bytes=61 * _MIB, rate_limit=0.71)


def _corp(**changes: object) -> OneUpstream:
    return upstream("registry.corp.example", **{"mean_seconds": 0.009, "requests": 1883, "bytes": 88 * _MIB, **changes})


def _fill(now: float, repository: str, came: float, total: float, waiters: int) -> OneFill:
    return OneFill.model_validate(
        {
            "digest": f"sha256:{random.Random(repository).randbytes(32).hex()}",
            "repository": repository,
            "bytes": int(came * _MIB),
            "total": int(total * _MIB),
            "waiters": waiters,
            "since": now - 6,
        }
    )


if __name__ == "__main__":
    main()
