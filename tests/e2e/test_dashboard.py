"""The dashboard of a real mirror, in a real Chromium: what happens is seen, and what is asked for is done."""

import re
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.support.artifacts import publish, raw, wasm_module
from tests.support.browser import Browser, chromium, expect, tab
from tests.support.faults import Fault, Gate
from tests.support.ports import ReservedPort
from tests.support.process import MirrorProcess
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import wait_until
from tests.wasm.modules import plugin

pytestmark = pytest.mark.needs("chromium", "playwright")

TOKEN = "a-token-of-the-right-length"
UPSTREAMS: Mapping[str, Mapping[str, str]] = {"ghcr.io": {"fresh_for": "1h"}, "unsteady.example": {"hold_for": "1s"}}
LARGE = 1 << 20


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def up() -> Iterator[FaultyUpstream]:
    with FaultyUpstream() as registry:
        yield registry


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory, up: FaultyUpstream) -> Iterator[MirrorProcess]:
    upstreams = {name: {"endpoints": [up.url], **settings} for name, settings in UPSTREAMS.items()}
    with MirrorProcess(tmp_path_factory.mktemp("dashboard"), upstreams) as process:
        yield process


@pytest.fixture(autouse=True)
def healed(up: FaultyUpstream) -> Iterator[None]:
    yield
    up.clear()
    up.accept()


def module_page(mirror: MirrorProcess, reference: str) -> str:
    return f"{mirror.url}/#/modules/{quote(reference, safe='')}"


def large_plugin(seed: int = 0) -> bytes:
    """A plugin with a large custom section."""
    return plugin() + wasm_module(LARGE, seed)[8:]


def pull(mirror: MirrorProcess, repository: str, tag: str, agent: str = "istio-agent/1.27") -> None:
    """As an agent does: the manifest, then its layer."""
    headers = {"accept": "application/vnd.oci.image.manifest.v1+json", "user-agent": agent}
    with httpx.Client(base_url=f"{mirror.url}/v2/ghcr.io/{repository}", trust_env=False, timeout=60) as client:
        manifest = client.get(f"manifests/{tag}", headers=headers).raise_for_status().json()
        client.get(f"blobs/{manifest['layers'][0]['digest']}", headers=headers).raise_for_status()


def test_a_pull_is_seen_from_its_download_to_its_row(
    browser: Browser, mirror: MirrorProcess, up: FaultyUpstream
) -> None:
    gate = Gate()
    artifact = raw(large_plugin())
    publish(up, "team/watched", "1.0", artifact)
    up.inject(Fault(gate=gate, gate_at=LARGE // 2), path=f"/team/watched/blobs/{artifact.layers[0]}")
    with tab(browser, mirror.url) as page:
        expect(page.locator("#state")).to_have_text("All well")
        expect(page.locator("#fills")).to_contain_text("Nothing is being downloaded")
        pulling = threading.Thread(target=pull, args=(mirror, "team/watched", "1.0"))
        pulling.start()
        try:
            expect(page.locator("#fills li")).to_contain_text("ghcr.io/team/watched")
            expect(page.locator("#fills li")).to_contain_text("512 KiB of 1.0 MiB (50 %)")
            expect(page.locator("#fills li")).to_contain_text("1 request waiting")
        finally:
            gate.release()
            pulling.join()
        expect(page.locator("#fills")).to_contain_text("Nothing is being downloaded")
        row = page.locator("#modules tbody tr", has_text="team/watched:1.0")
        for words in ("accepted", "oci raw", "0.2.1", str(artifact.digest)[7:19]):
            expect(row).to_contain_text(words)
        row.get_by_role("link").click()
        expect(page.get_by_role("heading", level=1)).to_have_text("ghcr.io/team/watched:1.0")
        expect(page.locator("#askers tbody")).to_contain_text("istio-agent/1.27")
        expect(page.locator("#askers tbody")).to_contain_text("127.0.0.1")
        expect(page.locator("#verdicts")).to_contain_text("Istio agents")
        expect(page.locator("#exports")).to_contain_text("proxy_abi_version_0_2_1")
        expect(page.locator("#versions tbody tr")).to_have_count(1)


def test_an_upstream_that_goes_away_is_seen_with_its_error_and_when_it_is_back(
    browser: Browser, mirror: MirrorProcess, up: FaultyUpstream
) -> None:
    publish(up, "team/later", "1.0", raw(plugin()))
    with tab(browser, mirror.url) as page:
        expect(page.locator("#state")).to_have_text("All well")
        up.refuse()
        wait_until(lambda: not reachable_after_a_question(mirror), timeout=30, what="the upstream is left alone")
        expect(page.locator("#state")).to_have_text("unsteady.example is not reachable")
        problem = page.locator(".problem.bad")
        expect(problem.locator("code.error")).not_to_be_empty()
        expect(problem.locator("time")).to_have_text(re.compile("ago|just now"))
        expect(page.locator("#upstreams tbody")).to_contain_text("not reachable")
        up.accept()
        wait_until(lambda: reachable_after_a_question(mirror), timeout=30, what="the upstream is asked again")
        expect(page.locator("#state")).to_have_text("All well")


def reachable_after_a_question(mirror: MirrorProcess) -> bool:
    with httpx.Client(base_url=mirror.url, trust_env=False, timeout=60) as client:
        client.head("/v2/unsteady.example/team/later/manifests/1.0")
        client.head("/v2/unsteady.example/team/later/manifests/2.0")
        return bool(client.get("/api/v1/upstreams").json()["upstreams"][1]["reachable"])


def test_pinning_unpinning_and_purging_from_a_modules_page(
    browser: Browser, mirror: MirrorProcess, up: FaultyUpstream
) -> None:
    reference = "ghcr.io/team/kept:1.0"
    publish(up, "team/kept", "1.0", raw(plugin()))
    pull(mirror, "team/kept", "1.0")
    with tab(browser, module_page(mirror, reference)) as page:
        page.get_by_role("button", name="Pin", exact=True).click()
        expect(page.locator("#notices")).to_contain_text(f"{reference}: pinned")
        expect(page.get_by_role("button", name="Unpin…")).to_be_focused()
        expect(page.locator("#versions tbody")).to_contain_text("pinned")

        page.get_by_role("button", name="Purge…").click()
        page.get_by_role("dialog").get_by_role("button", name="Purge").click()
        expect(page.locator(".notice.bad")).to_contain_text("pinned")

        page.get_by_role("button", name="Unpin…").click()
        page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        expect(page.get_by_role("button", name="Unpin…")).to_be_visible()
        page.get_by_role("button", name="Unpin…").click()
        page.get_by_role("dialog").get_by_role("button", name="Unpin").click()
        expect(page.get_by_role("button", name="Pin", exact=True)).to_be_visible()

        page.get_by_role("button", name="Refresh").click()
        expect(page.locator("#notices")).to_contain_text(f"{reference}: unchanged")

        page.get_by_role("button", name="Purge…").click()
        expect(page.get_by_role("dialog")).to_contain_text(reference)
        page.get_by_role("dialog").get_by_role("button", name="Purge").click()
        expect(page.locator("#notices")).to_contain_text(f"{reference}: purged")
        expect(page.locator("#versions")).to_contain_text("The next pull brings it back")


def test_a_job_is_begun_watched_and_cancelled(browser: Browser, mirror: MirrorProcess, up: FaultyUpstream) -> None:
    gate = Gate()
    artifact = raw(large_plugin(seed=1))
    publish(up, "team/first", "1.0", raw(plugin()))
    publish(up, "team/slow", "1.0", artifact)
    up.inject(Fault(gate=gate, gate_at=LARGE // 2), path=f"/team/slow/blobs/{artifact.layers[0]}")
    with tab(browser, f"{mirror.url}/#/prewarm") as page:
        page.get_by_role("textbox", name="References").fill(
            "oci://ghcr.io/team/first:1.0 # of the rollout\nghcr.io/team/slow:1.0\n"
        )
        page.get_by_label("Pin them, too").check()
        page.get_by_role("button", name="Pre-warm").click()
        shown = page.locator("#job")
        expect(shown).to_contain_text("1 of 2 done: 1 fetched")
        expect(shown).to_contain_text("running")
        expect(shown.locator(".rows")).to_contain_text("ghcr.io/team/slow:1.0")
        expect(shown.get_by_role("row", name="team/first")).to_contain_text("fetched")
        shown.get_by_role("button", name="Cancel").click()
        expect(shown).to_contain_text("cancelled")
        expect(page.locator("#jobs li").first).to_contain_text("cancelled")
        gate.release()
        page.get_by_role("link", name="Pins").click()
        expect(page.locator("#pins tbody")).to_contain_text("ghcr.io/team/first:1.0")
        page.get_by_label("Reference").fill("no reference")
        page.get_by_role("button", name="Pin", exact=True).click()
        expect(page.locator(".notice.bad")).to_contain_text("no reference: invalid")


def test_a_reference_that_cannot_be_had_is_told_with_its_reason(
    browser: Browser, mirror: MirrorProcess, up: FaultyUpstream
) -> None:
    with tab(browser, f"{mirror.url}/#/prewarm") as page:
        page.get_by_role("textbox", name="References").fill("ghcr.io/team/nowhere:1.0")
        page.get_by_role("button", name="Pre-warm").click()
        expect(page.locator("#job .badge").first).to_have_text("✕1 failed")
        expect(page.get_by_role("row", name="team/nowhere")).to_contain_text("failed")
        expect(page.locator("#job .why")).not_to_be_empty()


def test_what_is_shown_is_live_again_after_the_mirror_was_started_anew(browser: Browser, mirror: MirrorProcess) -> None:
    with tab(browser, mirror.url) as page:
        expect(page.locator("#state")).to_have_text("All well")
        began = page.locator("#own time").get_attribute("datetime")
        mirror.stop()
        expect(page.locator("#live")).to_contain_text("Not live since")
        mirror.start()
        expect(page.locator("#live p")).to_be_hidden()
        expect(page.locator("#own time")).not_to_have_attribute("datetime", began)


def test_a_token_opens_the_page_at_its_own_port_and_can_be_forgotten(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(TOKEN)
    with ReservedPort() as port, FaultyUpstream() as up:
        admin = {"listen": f"127.0.0.1:{port.number}", "token_file": str(file)}
        with MirrorProcess(tmp_path / "mirror", {"ghcr.io": up.url}, {"admin": admin}) as mirror:
            with tab(browser, f"http://{admin['listen']}/") as page:
                expect(page.get_by_role("heading", level=1)).to_have_text("This mirror asks for its token")
                expect(page.locator("body")).not_to_contain_text("ghcr.io")
                page.get_by_label("Token").fill("wrong")
                page.get_by_role("button", name="Show the dashboard").click()
                expect(page.locator("form")).to_contain_text("That token is not taken")
                page.get_by_label("Token").fill(TOKEN)
                page.keyboard.press("Enter")
                expect(page.locator("#state")).to_have_text("All well")
                expect(page.locator("#modules")).to_contain_text(f"oci://{mirror.host}/ghcr.io/")
                page.reload()
                expect(page.locator("#state")).to_have_text("All well")
                page.get_by_role("button", name="Forget the token").click()
                expect(page.get_by_label("Token")).to_be_focused()
                expect(page.locator("body")).not_to_contain_text("ghcr.io")
            assert httpx.get(mirror.url, trust_env=False).status_code == 404
