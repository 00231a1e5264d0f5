"""The documentation as a site: built without a warning, whole, searchable from a disk, and alone on its own."""

import subprocess
from pathlib import Path

import pytest
import yaml

from tests.support.browser import chromium, expect, tab
from tests.support.process import clean_environment
from tests.support.site import Site

_ROOT = Path(__file__).parents[2]
_CREDITS = {"https://github.com/pradyunsg/furo", "https://pradyunsg.me"}  # of the theme, at the foot of each page
_RULES = _ROOT / "charts" / "wasm-mirror" / "rules" / "wasm-mirror.yaml"


def built(folder: Path) -> Site:
    """The site, made by ``make docs``, which fails for a warning."""
    command = ["make", "--no-print-directory", "docs", f"SITE={folder}"]
    done = subprocess.run(command, cwd=_ROOT, env=clean_environment(), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return Site(folder)


def check_search(url: str) -> None:
    """Words are found by a browser that has nothing but the files, and the page that has them can be opened."""
    with chromium() as browser, tab(browser, f"{url}/index.html") as page:
        expect(page.get_by_role("heading", name="wasm-mirror", level=1)).to_be_visible()
        page.goto(f"{url}/search.html?q=stale_if_error")
        found = page.locator("#search-results ul.search li a").first
        expect(found).to_be_visible()
        found.click()
        expect(page.get_by_role("main")).to_contain_text("stale_if_error")


@pytest.mark.needs("chromium", "playwright")
@pytest.mark.timeout(700)
def test_the_site_is_whole_loads_nothing_from_elsewhere_and_can_be_searched_on_a_disk(tmp_path: Path) -> None:
    site = built(tmp_path / "site")
    assert site.foreign() == []
    assert site.broken() == []
    assert {target for target in site.outside() if target.startswith("http://") and "127.0.0.1" not in target} == set()
    assert len(site.outside() - _CREDITS) <= 8
    groups = yaml.safe_load(_RULES.read_text())["groups"]
    alerts = {rule["alert"].lower() for group in groups for rule in group["rules"]}
    assert alerts <= site.pages[site.folder / "docs" / "alerts.html"].ids
    check_search(site.folder.as_uri())
