"""Where the pages lead: links in their text, outside of fenced blocks, and the anchors that they offer."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.documents.blocks import ROOT

_FENCED = re.compile(r"^( *)(`{3,}|~{3,}).*?^\1\2$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]+`")
_LINK = re.compile(r"\]\((?P<target>[^()\s]+)\)|<(?P<bare>https?://[^>\s]+)>")
_HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)
_PATH = re.compile(r"`((?:charts|config|demo|docs|mirror|tests)/[\w./-]+\.\w+)`")


@dataclass(frozen=True)
class Link:
    """A link of a page, as it is written there."""

    page: str
    target: str

    @property
    def is_external(self) -> bool:
        """Whether it leads out of the repository."""
        return "://" in self.target

    def fault(self) -> str | None:
        """What is wrong with one that stays inside: no such file or anchor; None where it is right."""
        path, _, anchor = self.target.partition("#")
        file = (ROOT / self.page).parent / path if path else ROOT / self.page
        if not file.is_file():
            return f"{self.page}: {self.target}: there is no file {path}"
        if anchor and (file.suffix != ".md" or anchor not in anchors(file)):
            return f"{self.page}: {self.target}: there is no heading #{anchor}"
        return None


def links(page: str) -> list[Link]:
    """All links of a page; what stands as code is none."""
    text = _CODE.sub("", _prose(ROOT / page))
    return [Link(page, found["target"] or found["bare"]) for found in _LINK.finditer(text)]


def paths(page: str) -> Iterator[str]:
    """The files that a page names by their path from the repository's root."""
    yield from _PATH.findall(_prose(ROOT / page))


@cache
def anchors(file: Path) -> frozenset[str]:
    """The anchors of a page's headings, as code hosts and the site make them."""
    found: Counter[str] = Counter()
    names = set()
    for heading in _HEADING.findall(_prose(file)):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading)
        name = re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
        names.add(f"{name}-{found[name]}" if found[name] else name)
        found[name] += 1
    return frozenset(names)


def _prose(file: Path) -> str:
    return _FENCED.sub("", file.read_text())
