"""The pages, and the fenced blocks in them."""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]

_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<language>[\w-]*)(?P<rest>.*)$")
_COMMENT = re.compile(r"^ *<!-- (?P<text>.*?) -->$")


@dataclass(frozen=True)
class Block:
    """A fenced block. ``line`` is that of its fence, from 1 on; ``marker`` the comment right above it, or empty."""

    page: str
    line: int
    language: str
    marker: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


@cache
def pages() -> tuple[str, ...]:
    """All pages, those too that are not under version control yet, as paths from the repository's root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", "*.md"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return tuple(sorted({name for name in listed.split("\0") if name and (ROOT / name).is_file()}))


@cache
def all_blocks() -> tuple[Block, ...]:
    """The blocks of all pages, in their order."""
    return tuple(block for page in pages() for block in found_in(page, (ROOT / page).read_text()))


def of_languages(*languages: str) -> list[Block]:
    """All blocks in these languages."""
    return [block for block in all_blocks() if block.language in languages]


def found_in(page: str, text: str) -> Iterator[Block]:
    """The blocks of a page with this text; one that does not end is an error."""
    lines = iter(enumerate(text.splitlines(), 1))
    above = ""
    for number, line in lines:
        opened = _FENCE.match(line)
        if opened is None:
            comment = _COMMENT.match(line)
            above = comment["text"] if comment else ""
            continue
        indent, fence = opened["indent"], opened["fence"]
        inside = []
        for _, inner in lines:
            if inner.strip() == fence:
                break
            inside.append(inner.removeprefix(indent))
        else:
            raise AssertionError(f"{page}:{number}: this block does not end")
        yield Block(page, number, opened["language"], above, "".join(f"{one}\n" for one in inside))
        above = ""


def block(page: str, marker: str) -> Block:
    """The block of a page behind the comment ``marker``."""
    found = [one for one in all_blocks() if (one.page, one.marker) == (page, marker)]
    assert len(found) == 1, f"{page} has {len(found)} blocks behind <!-- {marker} -->, not one"
    return found[0]
