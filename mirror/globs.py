"""Patterns of repository names, as the settings have them: ``*`` stays within a component, ``**`` crosses them."""

import re
from collections.abc import Iterable

_PARTS = re.compile(r"(\*\*/|\*\*|\*)")
_MEANING = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*"}


class Globs:
    """Some patterns, of which one that fits is enough."""

    def __init__(self, globs: Iterable[str]) -> None:
        self._patterns = tuple(re.compile("".join(map(_meaning, _PARTS.split(glob)))) for glob in globs)

    def __contains__(self, name: str) -> bool:
        """Whether one of them fits a repository's name."""
        return any(pattern.fullmatch(name) for pattern in self._patterns)


def _meaning(part: str) -> str:
    return _MEANING.get(part, re.escape(part))
