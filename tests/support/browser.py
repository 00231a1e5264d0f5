"""A real browser: Debian's Chromium, driven by playwright.

::

    with chromium() as browser, tab(browser, mirror.url) as page:
        expect(page.get_by_role("heading", name="Upstreams")).to_be_visible()

Playwright is no part of the environment that `make setup` makes: it is 170 MB, and only these tests want it. It comes
out of the cache folder of `tests.support.tools`, so mypy does not know its types.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from tests.support.tools import require

Browser = Any
"""``playwright.sync_api.Browser``"""

Page = Any
"""``playwright.sync_api.Page``"""

WITHIN = 20_000
"""Milliseconds for which a state of the page is waited for."""

_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_VIOLATIONS = """
    document.addEventListener("securitypolicyviolation", (event) =>
        console.error(`against the policy: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""
_NETWORK = "Failed to load resource"  # the page says it itself, and tests ask for it; files are looked at in `_watch`


def playwright() -> Any:
    """The module ``playwright.sync_api``."""
    folder = str(require("playwright").parents[1])
    if folder not in sys.path:
        sys.path.append(folder)  # the environment's own packages come first
    return importlib.import_module("playwright.sync_api")


def expect(what: Any) -> Any:
    """Playwright's assertions, which wait until they hold."""
    return playwright().expect(what)


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a profile of its own."""
    api = playwright()
    api.expect.set_options(timeout=WITHIN)
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(require("chromium")), args=list(_OPTIONS))
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def tab(browser: Browser, url: str, **options: Any) -> Iterator[Page]:
    """A page at ``url``, with nothing kept of any before; ``options`` are those of playwright's ``new_context``.

    Raises `AssertionError` at the end when the page had an error, asked a dialog of the browser's own, went against its
    policy, lacked a file, or asked another host for anything.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
    context.set_default_timeout(WITHIN)
    context.add_init_script(_VIOLATIONS)
    page = context.new_page()
    trouble = _watch(page, urlsplit(url).netloc)
    try:
        page.goto(url)
        yield page
    finally:
        context.close()
    assert not trouble, trouble


def _watch(page: Page, host: str) -> list[str]:
    """What goes wrong with the page from now on, in words."""
    trouble: list[str] = []

    def said(message: Any) -> None:
        if message.type in ("error", "warning") and _NETWORK not in message.text:
            trouble.append(f"console: {message.text}")

    def asked(request: Any) -> None:
        if urlsplit(request.url).netloc != host:
            trouble.append(f"another host was asked: {request.url}")

    def answered(response: Any) -> None:
        if response.status >= 400 and "/api/" not in response.url:
            trouble.append(f"{response.status} for {response.url}")

    def dialogue(dialog: Any) -> None:
        trouble.append(f"a dialog: {dialog.message}")
        dialog.dismiss()

    page.on("console", said)
    page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
    page.on("dialog", dialogue)
    page.on("request", asked)
    page.on("response", answered)
    return trouble
