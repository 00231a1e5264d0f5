"""The dashboard's files, for a browser: the page at ``/``, and what it is made of under ``/dashboard/``.

They say nothing of the mirror: what the page shows it asks the admin API for, which is guarded. They are read once, as
they lie in the package.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Final

from starlette.types import Receive, Scope, Send

from mirror.edge import ranges
from mirror.edge.account import OPERATION
from mirror.edge.headers import Headers, encode
from mirror.edge.respond import header, send_error
from mirror.errors import NotFound, Unsupported

PAGE: Final = "/"
ROOT: Final = "/dashboard/"

_INDEX = "index.html"

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
_OWN = (
    ("cache-control", "no-cache"),  # asked for each time; after an upgrade no old part of it is left
    ("content-security-policy", _POLICY),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
)
_ALWAYS = (*_OWN, ("x-content-type-options", "nosniff"))

_TYPES: Mapping[str, str] = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class _File:
    """A file as it is sent. ``tag``: its entity tag; ``headers``: those of a 200."""

    content: bytes
    tag: str
    headers: Headers


class DashboardApp:
    """An ASGI application for `PAGE` and `ROOT`. Made once: reads the files, which blocks."""

    def __init__(self) -> None:
        folder = resources.files(__package__) / "static"
        files = {
            entry.name: _file(entry.name, entry.read_bytes())
            for entry in folder.iterdir()
            if entry.name.rpartition(".")[2] in _TYPES
        }
        self._files = {PAGE: files[_INDEX], **{f"{ROOT}{name}": file for name, file in files.items()}}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        scope[OPERATION] = "dashboard"
        method = scope["method"]
        file = self._files.get(scope["path"])
        if file is None:
            await send_error(send, method, NotFound("there is nothing at this address; the page is at /"), extra=_OWN)
        elif method not in ("GET", "HEAD"):
            refusal = Unsupported("the dashboard takes GET and HEAD", allow=("GET", "HEAD"))
            await send_error(send, method, refusal, extra=_OWN)
        elif ranges.matches(header(scope, b"if-none-match"), file.tag):
            await send(
                {"type": "http.response.start", "status": 304, "headers": encode([*_ALWAYS, ("etag", file.tag)])}
            )
            await send({"type": "http.response.body"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": file.headers})
            await send({"type": "http.response.body", "body": b"" if method == "HEAD" else file.content})


def _file(name: str, content: bytes) -> _File:
    tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    kind = _TYPES[name.rpartition(".")[2]]
    headers = [("content-type", kind), ("content-length", str(len(content))), ("etag", tag), *_ALWAYS]
    return _File(content, tag, encode(headers))
