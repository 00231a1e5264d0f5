"""A built site: what its pages load, and where they lead."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "object": "data", "embed": "src"}
_MERELY_NAMED = {"index", "next", "prev", "search"}  # relations of <link> that no browser loads
_IN_STYLES = re.compile(r"@import\s+[\"']([^\"']+)|url\(\s*[\"']?([^\"')]+)")


@dataclass
class _Reader(HTMLParser):
    """What a page loads (``loaded``), leads to (``followed``), and which ids it has."""

    loaded: list[str] = field(default_factory=list)
    followed: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Called for each tag."""
        given = {name: value or "" for name, value in attrs}
        self.ids.update(given[name] for name in ("id", "name") if name in given)
        if tag in _LOADED and (target := given.get(_LOADED[tag])):
            self.loaded.append(target)
        if tag == "link" and given.get("rel") not in _MERELY_NAMED:
            self.loaded.append(given.get("href", ""))
        if "srcset" in given:
            self.loaded += [one.split()[0] for one in given["srcset"].split(",")]
        if tag == "a" and "href" in given:
            self.followed.append(given["href"])
        self.loaded += [found[1] for found in _IN_STYLES.findall(given.get("style", ""))]


@dataclass(frozen=True)
class Site:
    """The site in ``folder``."""

    folder: Path

    @cached_property
    def pages(self) -> dict[Path, _Reader]:
        """Every page, read."""
        found = {}
        for file in sorted(self.folder.rglob("*.html")):
            found[file] = _Reader()
            found[file].feed(file.read_text())
        return found

    def loaded(self) -> Iterator[tuple[Path, str]]:
        """What pages and style sheets load, each with the file that says so."""
        for file, page in self.pages.items():
            yield from ((file, target) for target in page.loaded)
        for file in sorted(self.folder.rglob("*.css")):
            yield from ((file, first or second) for first, second in _IN_STYLES.findall(file.read_text()))

    def foreign(self) -> list[str]:
        """What would be loaded from elsewhere than the site, or is not there."""
        return [
            f"{file.relative_to(self.folder)}: {target}"
            for file, target in self.loaded()
            if not target.startswith("data:") and (self._place(file, target) is None)
        ]

    def broken(self) -> list[str]:
        """Links within the site that lead nowhere."""
        return [
            f"{file.relative_to(self.folder)}: {target}"
            for file, page in self.pages.items()
            for target in page.followed
            if not urlsplit(target).scheme and not self._is_there(file, target)
        ]

    def outside(self) -> set[str]:
        """Where links lead out of the site."""
        return {target for page in self.pages.values() for target in page.followed if urlsplit(target).scheme}

    def _place(self, file: Path, target: str) -> Path | None:
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            return None
        place = (file.parent / unquote(parts.path)).resolve() if parts.path else file
        return place if place.is_file() and place.is_relative_to(self.folder.resolve()) else None

    def _is_there(self, file: Path, target: str) -> bool:
        place, anchor = self._place(file, target), unquote(urlsplit(target).fragment)
        return place is not None and (not anchor or place not in self.pages or anchor in self.pages[place].ids)
