"""The dashboard's page in a real Chromium, over an admin API that tells what a real mirror seldom does."""

import re
import time
from collections.abc import Iterator

import pytest

from mirror.edge.api.askers import AskersTold, AskerTold
from mirror.edge.api.fills import AllFills, OneFill
from mirror.edge.api.overview import HistoryTold, Point
from mirror.edge.api.prewarm import Counts, Job, JobList
from mirror.edge.api.replicas import Replica, Replicas
from mirror.edge.api.upstreams import Upstreams
from tests.support.browser import Browser, Page, chromium, expect, tab
from tests.support.dashboard import Pretended, described, module, overview, upstream
from tests.support.tools import require
from tests.support.waiting import wait_until

pytestmark = pytest.mark.needs("chromium", "playwright")

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def mirror() -> Iterator[Pretended]:
    with Pretended() as started:
        started.modules = [module(f"ghcr.io/team/plugin:1.{number}") for number in range(3)]
        yield started


def state(page: Page) -> object:
    """The line that says how the whole is."""
    return page.locator("#state")


def test_nothing_wrong_is_said_in_one_line(browser: Browser, mirror: Pretended) -> None:
    with tab(browser, mirror.url) as page:
        expect(state(page)).to_have_text("All well")
        expect(page).to_have_title("All well · wasm-mirror")
        expect(page.locator(".problem")).to_have_count(0)
        expect(page.locator(".tile", has_text="Hit ratio")).to_contain_text("99.4 %")
        expect(page.locator(".tile", has_text="Disk")).to_contain_text("of 20.0 GiB (15 %), 60.0 GiB free")


def test_what_is_wrong_is_said_at_once_the_worst_first_and_goes_when_it_is_over(
    browser: Browser, mirror: Pretended
) -> None:
    with tab(browser, mirror.url) as page:
        expect(state(page)).to_have_text("All well")
        mirror.tell("overview", overview(metadata={"store": "redis", "up": False}, draining=True))
        mirror.tell("replicas", Replicas(own="http://a:1", others=[Replica(address="http://b:1", answers=False)]))
        failed = {"healthy": False, "reachable": False, "breaker": "open", "opens_for": 9.0}
        told = {"last_error": "connection refused", "last_error_at": time.time() - 130}
        mirror.tell("upstreams", Upstreams(upstreams=[upstream("ghcr.io", **failed, **told)]))
        expect(state(page)).to_have_text("ghcr.io is not reachable")
        expect(page).to_have_title("4 problems · wasm-mirror")
        worst = page.locator(".problem").first
        expect(worst).to_contain_text("connection refused 2 min ago")
        expect(worst.locator("time")).to_have_attribute("title", re.compile(r"\d{4}"))
        for words in ("This mirror is stopping", "Redis is away", "The replica http://b:1 does not answer"):
            expect(page.locator(".problem", has_text=words)).to_be_visible()
        mirror.tell("overview", overview(disk={"problem": "it is read-only"}))
        expect(page.locator(".problem", has_text="it is read-only")).to_be_visible()
        mirror.tell("overview", overview())
        mirror.tell("replicas", Replicas(own=None, others=[]))
        mirror.tell("upstreams", Upstreams(upstreams=[upstream("ghcr.io")]))
        expect(state(page)).to_have_text("All well")


def test_an_upstream_is_told_with_all_that_is_known_of_it(browser: Browser, mirror: Pretended) -> None:
    one = upstream("ghcr.io", rate_limit=0.42, requests=1200, failures=3, allow=["team-a/**"])
    mirror.tell("upstreams", Upstreams(upstreams=[one, upstream("docker.io", offline=True)]))
    with tab(browser, mirror.url) as page:
        row = page.locator("#upstreams tbody tr").first
        for words in ("only team-a/**", "healthy", "84 ms", "42 %", "1,200, 3 failed", "96.0 MiB"):
            expect(row).to_contain_text(words)
        expect(page.locator("#upstreams tbody tr").nth(1)).to_contain_text("offline by the settings")


def test_names_and_errors_of_others_are_text(browser: Browser, mirror: Pretended) -> None:
    hostile = module(f"ghcr.io/{HOSTILE}:1", why=HOSTILE, layout=HOSTILE)
    mirror.modules = [hostile]
    mirror.described = {hostile.reference: described(HOSTILE)}
    mirror.askers = AskersTold(
        askers=[AskerTold(client="10.0.0.9", agent=HOSTILE, user=HOSTILE, count=1, first_at=1.0, last_at=2.0)], total=1
    )
    mirror.tell("overview", overview(own=HOSTILE, version=HOSTILE, disk={"problem": HOSTILE}))
    mirror.tell("fills", AllFills(fills=[fill(1, repository=HOSTILE)], total=1))
    mirror.tell("replicas", Replicas(own=HOSTILE, others=[Replica(address=f"{HOSTILE}2", answers=False)]))
    failed = upstream(HOSTILE, reachable=False, healthy=False, last_error=HOSTILE, last_error_at=time.time())
    mirror.tell("upstreams", Upstreams(upstreams=[failed]))
    mirror.tell("prewarm", JobList(jobs=[job(by=HOSTILE)]))
    with tab(browser, mirror.url) as page:
        link = page.locator("#modules a.reference")
        expect(link).to_have_text(f"ghcr.io/{HOSTILE}:1")
        for place in ("#own", "#upstreams", "#fills", "#replicas", "#modules tbody", ".problem.bad >> nth=0"):
            expect(page.locator(place)).to_contain_text(HOSTILE)
        link.click()
        expect(page.get_by_role("heading", level=1)).to_have_text(f"ghcr.io/{HOSTILE}:1")
        for place in ("#askers tbody", "#verdicts", "#facts", "#imports", "#exports", "#versions tbody"):
            expect(page.locator(place)).to_contain_text(HOSTILE)
        page.get_by_role("link", name="Pre-warm").click()
        expect(page.locator("#jobs li")).to_contain_text(HOSTILE)
        assert page.evaluate("document.querySelectorAll('img[src=x], main script').length") == 0


def test_of_ten_thousand_modules_one_page_is_fetched_and_drawn(browser: Browser, mirror: Pretended) -> None:
    mirror.modules = [module(f"ghcr.io/team/plugin-{number:05}:1.0") for number in range(10_000)]
    with tab(browser, mirror.url) as page:
        expect(page.locator("#modules")).to_contain_text("1 to 100 of 10,000")
        expect(page.locator("#modules tbody tr")).to_have_count(100)
        expect(state(page)).to_have_text("All well")
        assert len(mirror.requests) <= 6, mirror.requests
        assert page.evaluate("document.querySelectorAll('*').length") < 4000
        page.get_by_role("button", name="Next page").click()
        expect(page.locator("#modules")).to_contain_text("101 to 200 of 10,000")
        expect(page.locator("#modules tbody tr").first).to_contain_text("plugin-00100")
        page.get_by_role("button", name="Previous page").click()
        expect(page.locator("#modules tbody tr").first).to_contain_text("plugin-00000")
        page.get_by_label("Search").fill("PLUGIN-0777")
        expect(page.locator("#modules tbody tr")).to_have_count(10)
        expect(page).to_have_url(re.compile(r"#/\?search=PLUGIN-0777$"))


def test_filters_and_the_order_are_asked_for_and_stand_in_the_address(browser: Browser, mirror: Pretended) -> None:
    refused = module("ghcr.io/team/broken:1", verdict="refused", why="the layer is no module", abi=[])
    mirror.modules = [*mirror.modules, refused, module("ghcr.io/team/kept:1", pinned=True)]
    with tab(browser, mirror.url) as page:
        page.get_by_role("button", name="Refused 1").click()
        expect(page.locator("#modules tbody tr")).to_have_count(1)
        expect(page.locator("#modules tbody")).to_contain_text(re.compile("the layer is no module", re.IGNORECASE))
        page.get_by_role("button", name="Pinned 1").click()
        expect(page.locator("#modules tbody")).to_contain_text("kept")
        expect(page.locator("#modules tbody tr")).to_have_count(1)
        page.get_by_label("Search").fill("nothing-like-it")
        page.get_by_role("button", name="Show all modules").click()
        expect(page.locator("#modules tbody tr")).to_have_count(5)
        page.get_by_role("button", name="Size").click()
        expect(page.get_by_role("columnheader", name="Size")).to_have_attribute("aria-sort", "descending")
        wait_until(lambda: any("sort=size&order=desc" in one for one in mirror.requests))
        page.goto(f"{mirror.url}/#/?verdict=refused")
        page.reload()
        expect(page.get_by_role("button", name="Refused 1")).to_have_attribute("aria-pressed", "true")
        expect(page.locator("#modules tbody tr")).to_have_count(1)


def test_news_change_what_has_changed_and_leave_focus_and_selection(browser: Browser, mirror: Pretended) -> None:
    with tab(browser, mirror.url) as page:
        row = page.locator("#modules tbody tr").nth(1)
        row.get_by_role("link").focus()
        row.locator("code").select_text()
        chosen = page.evaluate("String(getSelection())")
        page.evaluate("document.querySelectorAll('#modules tbody tr')[1].same = true")
        mirror.modules = [module("ghcr.io/a/first:1"), *mirror.modules[1:], module("ghcr.io/team/plugin:1.9", hits=77)]
        mirror.moved()
        expect(page.locator("#modules tbody")).to_contain_text("77")
        expect(page.locator("#modules tbody tr")).to_have_count(4)
        assert page.evaluate("document.querySelectorAll('#modules tbody tr')[1].same")
        assert page.evaluate("String(getSelection())") == chosen
        assert page.evaluate("document.activeElement.title") == "ghcr.io/team/plugin:1.1"


def test_downloads_and_points_of_the_history_come_as_they_happen(browser: Browser, mirror: Pretended) -> None:
    at = time.time()
    mirror.history = HistoryTold(step=30, points=[point(at - 60, hit=9, miss=1), point(at - 30, hit=10)])
    with tab(browser, mirror.url) as page:
        expect(page.locator("#fills")).to_contain_text("Nothing is being downloaded")
        expect(page.get_by_role("img", name=re.compile("Hit ratio of the last hour: 95 %"))).to_be_visible()
        mirror.tell("fills", AllFills(fills=[fill(2, bytes=1 << 20, total=4 << 20, waiters=7)], total=1))
        expect(page.locator("#fills")).to_contain_text("1.0 MiB of 4.0 MiB (25 %)")
        expect(page.locator("#fills")).to_contain_text("7 requests waiting")
        assert page.locator("#fills progress").evaluate("bar => bar.position") == 0.25
        mirror.tell("point", point(at, miss=20))
        plot = page.get_by_role("img", name=re.compile("Hit ratio of the last hour: 47.5 %"))
        expect(plot).to_be_visible()
        plot.focus()
        page.keyboard.press("ArrowLeft")
        expect(page.locator("#history output").first).to_contain_text("0 % of 20")
        page.get_by_text("The same as a table").click()
        expect(page.locator("#history tbody tr")).to_have_count(3)
        mirror.tell("fills", AllFills(fills=[], total=0))
        expect(page.locator("#fills")).to_contain_text("Nothing is being downloaded")


def test_the_page_says_that_it_is_not_live_and_goes_on_when_it_is_again(browser: Browser, mirror: Pretended) -> None:
    with tab(browser, mirror.url) as page:
        expect(state(page)).to_have_text("All well")
        banner = page.locator("#live")
        mirror.taken = False
        mirror.cut()
        expect(banner).to_contain_text("Not live since")
        expect(banner).to_contain_text("Not now")
        expect(page.locator("#modules tbody tr")).to_have_count(3)
        mirror.tell("overview", overview(draining=True))
        expect(state(page)).to_have_text("This mirror is stopping")
        mirror.taken = True
        mirror.modules = mirror.modules[:1]
        mirror.tell("overview", overview(disk={"problem": "it is full"}))
        page.get_by_role("button", name="Try now").click()
        expect(banner.locator("p")).to_be_hidden()
        expect(state(page)).to_have_text("The disk has a problem")
        expect(page.locator("#modules tbody tr")).to_have_count(1)


def test_where_there_is_nothing_the_page_says_what_to_do(browser: Browser, mirror: Pretended) -> None:
    mirror.modules = []
    mirror.tell("overview", overview(names=["wasm-mirror.istio-system:8080"]))
    with tab(browser, mirror.url) as page:
        page.reload()
        expect(page.locator("#modules")).to_contain_text("Nothing is held yet")
        expect(page.locator("#modules")).to_contain_text("wasm-mirror prewarm ghcr.io/")
        page.get_by_role("link", name="Pins").click()
        expect(page.locator("#pins")).to_contain_text("Nothing is pinned")
        page.get_by_role("link", name="Pre-warm").click()
        expect(page.locator("#jobs")).to_contain_text("No job yet")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_goes_beyond_a_telephones_edge(browser: Browser, mirror: Pretended, scheme: str) -> None:
    name = "ghcr.io/istio-ecosystem/wasm-extensions/a_plugin_with_a_rather_long_name_and_no_blanks_in_it:2026.11.21-rc1"
    mirror.modules = [module(name, why="agents refuse it " * 9, verdict="refused"), *mirror.modules]
    mirror.tell("fills", AllFills(fills=[fill(3)], total=1))
    mirror.tell("prewarm", JobList(jobs=[job()]))
    mirror.history = HistoryTold(step=30, points=[point(time.time() - 30 * n, hit=n) for n in range(9, 0, -1)])
    with tab(browser, mirror.url, color_scheme=scheme, **PHONE) as page:
        for link in ("Overview", "Pre-warm", "Pins"):
            page.get_by_role("link", name=link, exact=True).click()
            expect(page.locator("#main")).to_be_visible()
            assert page.evaluate("document.documentElement.scrollWidth") <= 360, link
        page.get_by_role("link", name="Overview", exact=True).click()
        page.locator("#modules a.reference").first.click()
        expect(page.get_by_role("heading", level=1)).to_have_text(name)
        assert page.evaluate("document.documentElement.scrollWidth") <= 360
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(245, 246, 248)"
        assert dark == (scheme == "dark")


@pytest.mark.needs("npm", "axe")
def test_no_page_has_what_axe_knows_to_be_in_the_way_of_anybody(browser: Browser, mirror: Pretended) -> None:
    told = {"reachable": False, "healthy": False, "last_error": "connection refused", "last_error_at": time.time()}
    mirror.tell("upstreams", Upstreams(upstreams=[upstream("ghcr.io", **told), upstream("docker.io")]))
    mirror.tell("fills", AllFills(fills=[fill(4)], total=1))
    mirror.tell("prewarm", JobList(jobs=[job()]))
    mirror.history = HistoryTold(step=30, points=[point(time.time() - 30 * n, hit=n) for n in range(9, 0, -1)])
    mirror.modules = [*mirror.modules, module("ghcr.io/team/broken:1", verdict="refused", why="no module", pinned=True)]
    mirror.described = {one.reference: described("proxy_log") for one in mirror.modules}
    with tab(browser, mirror.url) as page:
        expect(page.locator("#modules tbody tr")).to_have_count(4)
        page.evaluate(require("axe").read_text())
        for name in ("Overview", "Pre-warm", "Pins", "Overview"):
            page.get_by_role("link", name=name, exact=True).click()
            assert found_by_axe(page) == []
        page.emulate_media(color_scheme="dark")
        assert found_by_axe(page) == []
        expect(page.locator("#modules tbody tr")).to_have_count(4)
        page.locator("#modules a.reference").first.click()
        expect(page.locator("#imports")).to_contain_text("Envoy lacks it")
        assert found_by_axe(page) == []


def found_by_axe(page: Page) -> list[str]:
    found: list[str] = page.evaluate(
        "axe.run().then(({ violations }) => violations.map(({ id, nodes }) => `${id}: ${nodes[0].html}`))"
    )
    return found


def test_a_page_can_be_used_with_the_keyboard_alone(browser: Browser, mirror: Pretended) -> None:
    with tab(browser, mirror.url) as page:
        expect(page.locator("#modules tbody tr")).to_have_count(3)
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.locator("#main")).to_be_focused()
        seen = list(iter(lambda: reached(page), ""))
        for name in ("search", "upstream", "All", "Refused", "Pinned", "Size", "ghcr.io/team/plugin:1.0"):
            assert any(name in each for each in seen), (name, seen)
        page.locator("#modules a.reference").first.focus()
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1)).to_be_focused()
        assert any("Purge" in words for words in iter(lambda: reached(page), ""))
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
        expect(page.get_by_role("button", name="Purge…")).to_be_focused()
        assert not any(one.startswith("POST") for one in mirror.requests)


def reached(page: Page) -> str:
    """What has the focus after Tab, in words, or "" at the end of the page.

    Raises `AssertionError` where nobody would see that it has.
    """
    page.keyboard.press("Tab")
    found: tuple[str, str] = page.evaluate(
        "(() => { const at = document.activeElement; const style = getComputedStyle(at);"
        " return [at === document.body ? '' : `${at.id} ${at.textContent}`, style.outlineStyle]; })()"
    )
    words, outline = found
    assert not words or outline != "none", f"no focus is seen on {words}"
    return words


def fill(number: int, **changes: object) -> OneFill:
    own = {
        "digest": f"sha256:{number:064x}",
        "repository": "ghcr.io/team/plugin",
        "bytes": 100,
        "total": None,
        "waiters": 1,
        "since": time.time() - 3,
    }
    return OneFill.model_validate({**own, **changes})


def point(at: float, **counts: int) -> Point:
    own = dict.fromkeys(("hit", "stale", "collapsed", "miss", "negative", "requests", "failures"), 0)
    return Point.model_validate({"at": at, "sent_bytes": 5000, "upstream_bytes": 100, **own, **counts})


def job(**changes: object) -> Job:
    counts = Counts(held=1, fetched=1, refused=0, failed=0)
    own = {"id": "1", "state": "running", "began_at": time.time() - 9, "ended_at": None, "by": "who is on loopback"}
    return Job.model_validate({**own, "pin": False, "total": 4, "done": 2, "counts": counts, **changes})
