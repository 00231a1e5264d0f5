"""The URL by which an object names a module, as agents read it, to what the mirror is asked for.

Sources: Istio's ``WasmPlugin`` (no scheme means ``oci://``) and ``pkg/wasm``; go-containerregistry's ``name`` (a first
part without a dot or a port belongs to the repository, and the registry is Docker Hub); ``/modules/`` of this mirror.
"""

import re
from typing import Final
from urllib.parse import unquote, urlsplit

_MODULES = re.compile(r"/modules/(?P<reference>[^/:@]+/[^:@]+[:@].+?)(?:\.wasm)?")
_VARIABLE = re.compile(r"\{\{|\$[\w({]")
_DIGEST = "@sha256:"
_MAX_LENGTH: Final = 1024
_HUB = "docker.io"


def wrong(url: str) -> str | None:
    """What is wrong with the form of ``url``, in words, so that no agent could read it; None where nothing is."""
    if _VARIABLE.search(url):
        return "has a variable that nothing was filled in for"
    if len(url) > _MAX_LENGTH:
        return f"is longer than {_MAX_LENGTH} characters"
    if not url or not url.isprintable() or " " in url:
        return "is no URL"
    return None


def reference(url: str) -> str | None:
    """The reference that ``url`` names, without a scheme; None where it names no artifact of a registry.

    A URL under ``/modules/`` of any host is that of a mirror when it ends as those do, with a tag or a digest.
    """
    scheme, marked, rest = url.partition("://")
    if not marked or scheme.lower() == "oci":
        return _as_agents_read(rest if marked else url)
    if is_plain(url):
        try:
            path = unquote(urlsplit(url).path)
        except ValueError:  # such as a bracket that nothing closes
            return None
        found = _MODULES.fullmatch(path)
        return found["reference"] if found and path.isprintable() else None
    return None


def contradiction(url: str, sha256: str) -> str | None:
    """What agents have against a URL with a digest and a field ``sha256`` that says another one.

    Of a URL under ``/modules/`` it says nothing: there ``sha256`` is the module's, and the digest its manifest's.
    """
    _, marked, digest = url.partition(_DIGEST)
    if marked and sha256 and digest != sha256 and not is_plain(url):
        return f"agents will refuse it: the URL says sha256:{digest[:12]}… and sha256 says {sha256[:12]}…"
    return None


def is_plain(url: str) -> bool:
    """Whether a web server is asked for it."""
    return url.lower().startswith(("http://", "https://"))


def _as_agents_read(rest: str) -> str:
    first, slash, _ = rest.partition("/")
    if slash and ("." in first or ":" in first):
        return rest
    return f"{_HUB}/{rest}"
