"""Every link of every page leads somewhere, every page can be reached, and no page leads to many places outside."""

import re
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

import pytest
import yaml

from tests.documents.blocks import ROOT, pages
from tests.documents.links import Link, anchors, links, paths

_OURS = ("127.0.0.1:8080",)
_FEW = 8
_INDEX = "docs/index.md"
_PART = "charts/introduction.md"  # of charts/wasm-mirror/README.md, from where its links lead
_PAGES = [page for page in pages() if page != _PART]


@pytest.mark.parametrize("page", _PAGES)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: str) -> None:
    assert [fault for link in links(page) if not link.is_external and (fault := link.fault())] == []


@pytest.mark.parametrize("page", pages())
def test_every_file_that_a_page_names_is_there(page: str) -> None:
    assert [name for name in paths(page) if not (ROOT / name).exists()] == []


def test_links_to_other_hosts_are_few_and_encrypted() -> None:
    outside = {link.target: link.page for page in _PAGES for link in links(page) if link.is_external}
    outside = {target: page for target, page in outside.items() if urlsplit(target).netloc not in _OURS}
    parsed = [urlsplit(target) for target in outside]
    assert [one.geturl() for one in parsed if one.scheme != "https" or not one.hostname or one.username] == []
    assert len(outside) <= _FEW, outside


def test_the_index_leads_to_every_page() -> None:
    reached = {(ROOT / _INDEX).parent.joinpath(link.target).resolve() for link in links(_INDEX)}
    of_site = {page for page in pages() if page.startswith("docs/") or "/" not in page} - {_INDEX}
    assert {page for page in of_site if (ROOT / page).resolve() not in reached} == set()


def test_every_alert_names_a_section_of_the_page_about_alerts() -> None:
    rules = yaml.safe_load((ROOT / "charts" / "wasm-mirror" / "rules" / "wasm-mirror.yaml").read_text())
    runbooks = [rule["annotations"]["runbook"] for group in rules["groups"] for rule in group["rules"]]
    assert runbooks
    for runbook in runbooks:
        assert Link("README.md", runbook).fault() is None, runbook


def test_anchors_are_those_of_code_hosts(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A `b_c`: d, e\n\n## Again\n\n```sh\n# no heading\n```\n\n### Again\n\n## `--cluster`\n")
    assert anchors(page) == {"a-b_c-d-e", "again", "again-1", "--cluster"}


def test_a_link_to_what_is_not_there_is_found() -> None:
    assert Link("README.md", "docs/absent.md").fault() is not None
    assert Link("docs/index.md", "api.md#absent").fault() is not None
    assert Link("docs/index.md", "../LICENSE").fault() is None


@pytest.mark.parametrize("picture", sorted((ROOT / "docs" / "pictures").glob("*.svg")), ids=lambda path: path.name)
def test_every_picture_says_what_it_shows_and_can_be_read_in_the_dark(picture: Path) -> None:
    text = picture.read_text()
    root = ElementTree.fromstring(text)
    named = {element.get("id"): "".join(element.itertext()).strip() for element in root if element.get("id")}
    assert root.get("role") == "img"
    assert all(named.get(one) for one in (root.get("aria-labelledby") or "").split())
    assert len(named) == 2
    assert "prefers-color-scheme: dark" in text
    assert re.findall(r"(?:href|src|url)\s*[=(]\s*[\"']?(?!#)[\w/:]", text) == []
