"""The page and its files: out of the package, at one port, and with headers under which no foreign script runs."""

from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from mirror.edge import dashboard
from mirror.edge.app import App, Beside
from mirror.edge.dashboard.app import PAGE, ROOT, DashboardApp
from mirror.metrics import REQUESTS, Metrics
from tests.edge.asgi import Fixed, Sent, asked
from tests.support.running import running
from tests.support.upstream import FaultyUpstream

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
ALWAYS = {
    "cache-control": "no-cache",
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
FOLDER = resources.files(dashboard) / "static"
FILES = sorted(entry.name for entry in FOLDER.iterdir())


def held(sent: Sent) -> dict[str, str]:
    """Those of the headers that every answer must have."""
    return {name: value for name, value in sent.headers.items() if name in ALWAYS}


@pytest.mark.parametrize("name", FILES)
async def test_every_file_of_the_package_is_given_with_its_type(name: str) -> None:
    sent = await asked(DashboardApp(), f"{ROOT}{name}")
    assert (sent.status, sent.body) == (200, (FOLDER / name).read_bytes())
    assert sent.headers["content-type"] == TYPES[Path(name).suffix]
    assert sent.headers["content-length"] == str(len(sent.body))
    assert held(sent) == ALWAYS


async def test_the_page_is_at_the_front_and_asks_for_nothing_elsewhere() -> None:
    sent = await asked(DashboardApp(), PAGE)
    assert sent.body == (FOLDER / "index.html").read_bytes()
    assert (sent.status, held(sent)) == (200, ALWAYS)


async def test_what_a_browser_has_it_need_not_fetch_again() -> None:
    app = DashboardApp()
    first = await asked(app, PAGE)
    tag = first.headers["etag"]
    again = await asked(app, PAGE, headers={"if-none-match": f'"other", {tag}'})
    assert (again.status, again.body, again.headers["etag"], held(again)) == (304, b"", tag, ALWAYS)
    assert (await asked(app, PAGE, headers={"if-none-match": '"other"'})).status == 200


async def test_head_says_what_get_would() -> None:
    app = DashboardApp()
    got, told = await asked(app, PAGE), await asked(app, PAGE, "HEAD")
    assert (told.status, told.headers, told.body) == (200, got.headers, b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_nothing_else_than_reading_is_taken(method: str) -> None:
    sent = await asked(DashboardApp(), PAGE, method)
    assert (sent.status, sent.headers["allow"], held(sent)) == (405, "GET, HEAD", ALWAYS)


@pytest.mark.parametrize(
    "path",
    ["nothing.js", "", "../app.py", "%2e%2e/app.py", "static/index.html", "index.html/", "app.py", "__init__.py"],
)
async def test_there_is_nothing_beside_the_files(path: str) -> None:
    sent = await asked(DashboardApp(), f"{ROOT}{path}")
    assert (sent.status, held(sent)) == (404, ALWAYS)


async def test_only_the_front_itself_is_the_page() -> None:
    app = App({"/v2": Fixed(), PAGE: DashboardApp(), ROOT: DashboardApp()}, lambda: False, log_access=False)
    assert (await asked(app, "/")).status == 200
    for path in ("//", "/index.html", "/dashboard", "/favicon.ico", "/x"):
        sent = await asked(app, path)
        assert (sent.status, b"the dashboard is at /" in sent.body) == (404, True)


async def test_it_is_asked_at_the_port_beside_where_there_is_one() -> None:
    beside = Beside({PAGE: DashboardApp()}, lambda scope: dict(scope["headers"]).get(b"at") == b"admin")
    app = App({"/v2": Fixed()}, lambda: False, log_access=False, beside=beside)
    assert (await asked(app, "/", headers={"at": "admin"})).status == 200
    elsewhere = await asked(app, "/", headers={"at": "registry"})
    assert (elsewhere.status, b"the dashboard, the admin API and /metrics have another port" in elsewhere.body) == (
        404,
        True,
    )


async def test_requests_for_it_are_counted_as_such() -> None:
    metrics = Metrics()
    app = App({PAGE: DashboardApp(), ROOT: DashboardApp()}, lambda: False, log_access=False, metrics=metrics)
    for path in (PAGE, f"{ROOT}index.html", f"{ROOT}nothing"):
        await asked(app, path)
    counted = metrics.counted()[REQUESTS.name]
    assert (counted["dashboard", "200"], counted["dashboard", "404"]) == ((2,), (1,))


@pytest.mark.parametrize("apart", [False, True])
async def test_it_is_where_the_admin_api_is_and_needs_no_token(tmp_path: Path, apart: bool) -> None:
    token = tmp_path / "token"
    token.write_text("a" * 32)
    admin: dict[str, Any] = {"token_file": str(token), **({"listen": "127.0.0.1:0"} if apart else {})}
    with FaultyUpstream() as up:
        async with running(tmp_path, {"ghcr.io": up.url}, {"admin": admin}) as mirror:
            at = mirror if mirror.beside is None else mirror.beside
            for path in ("/", "/dashboard/index.html"):
                reply = await at.get(path)
                assert (reply.status, reply.header("content-security-policy")) == (200, POLICY)
            assert (await at.get("/api/v1/overview")).status == 401
            assert (await at.get("/healthz")).status == 200
            if apart:
                for path in ("/", "/dashboard/index.html"):
                    elsewhere = await mirror.get(path)
                    assert elsewhere.status == 404
                    assert "the dashboard, the admin API and /metrics have another port" in elsewhere.message
