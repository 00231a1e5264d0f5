"""A text of references, one a line; ``#`` begins a comment, at the beginning of a line or behind a space."""

import io
import re

from mirror.references import urls
from mirror.references.named import Findings, shown

_COMMENT = re.compile(r"(?:^|\s)#.*")
_KEY = re.compile(r"[\w-]+:(?:\s|$)")


def are_references(text: str) -> bool:
    """Whether ``text`` has references in its lines, rather than YAML or JSON: its first line with something tells."""
    for line in io.StringIO(text):
        content = _COMMENT.sub("", line).strip()
        if content:
            return content[0].isalnum() and not _KEY.match(content)
    return True


def read(text: str, source: str, findings: Findings) -> None:
    """Note the references of ``text``, which comes from ``source``."""
    for number, line in enumerate(io.StringIO(text), 1):
        content = _COMMENT.sub("", line).strip()
        if not content:
            continue
        where = f"{source}:{number}"
        words = urls.wrong(content)
        if words is None:
            findings.add(as_asked(content), where)
        else:
            findings.problem(where, f"a reference {words}: {shown(content)!r}")


def as_asked(text: str) -> str:
    """A reference that somebody gave, with the URL of a plain module of a mirror as the reference in it."""
    return (urls.reference(text) if urls.is_plain(text) else None) or text
