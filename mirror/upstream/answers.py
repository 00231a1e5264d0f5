"""What an endpoint's answers say: records of the good ones, our errors for the others.

Source: OCI distribution specification 1.1, "Error Codes", "Pulling manifests", "Listing Tags", "Listing Referrers".
"""

import contextlib
import json
import re
import time
from base64 import b64decode
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qs

import httpx

from mirror.digest import Digest
from mirror.errors import (
    DigestInvalid,
    MirrorError,
    NameUnknown,
    TagInvalid,
    UpstreamInvalid,
    UpstreamUnavailable,
)
from mirror.oci import parse_object, parse_tag

_MAX_RETRY_AFTER = 86400.0
_MAX_WORDS = 500
_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,39}")
_SECONDS = re.compile(r"\d{1,9}")
_SIZE = re.compile(r"\d{1,18}")
_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_NEXT_LINK = re.compile(r'<([^>]{1,4096})>[^,<]*;\s*rel\s*=\s*"?next"?', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class ManifestHead:
    """What is known of a manifest without its body. ``media_type`` is empty when not told."""

    digest: Digest | None
    media_type: str
    size: int | None


@dataclass(frozen=True, slots=True)
class TagPage:
    """One page of a repository's tags; ``next`` is the ``n`` and ``last`` with which the next page is asked for."""

    tags: tuple[str, ...]
    next: tuple[int | None, str] | None


@dataclass(frozen=True, slots=True)
class ReferrersPage:
    """One page of an index of referrers, its exact bytes. ``next`` is opaque, for asking for the next page."""

    body: bytes
    filters_applied: str | None
    next: str | None


def media_type(response: httpx.Response) -> str:
    """The ``Content-Type`` without parameters, in lower case."""
    return str(response.headers.get("content-type", "")).partition(";")[0].strip().lower()


def length(response: httpx.Response) -> int | None:
    """The ``Content-Length``, where there is one."""
    text = response.headers.get("content-length", "")
    return int(text) if _SIZE.fullmatch(text) else None


def digest(response: httpx.Response) -> Digest | None:
    """The ``Docker-Content-Digest``; None when it is missing, or of a kind that we do not know."""
    try:
        return Digest.parse(response.headers.get("docker-content-digest", ""))
    except DigestInvalid:
        return None


def content_range(response: httpx.Response) -> tuple[int, int | None] | None:
    """First byte and whole size (None when not told) of a 206; None when it does not say. Source: RFC 9110, 14.4."""
    found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
    if found is None or int(found[1]) > int(found[2]):
        return None
    return int(found[1]), None if found[3] == "*" else int(found[3])


def retry_after(response: httpx.Response) -> float | None:
    """``Retry-After`` in seconds; a date counts by the clock of who sent it. Source: RFC 9110, 10.2.3."""
    text = response.headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(text):
        return min(float(text), _MAX_RETRY_AFTER)
    try:
        until = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError):
        return None
    try:
        now = parsedate_to_datetime(response.headers.get("date", "")).timestamp()
    except (ValueError, TypeError):
        now = time.time()
    return min(max(0.0, until - now), _MAX_RETRY_AFTER)


def refuse_disguise(response: httpx.Response, endpoint: str, what: str) -> None:
    """Raise `UpstreamInvalid` for a good status with encoded content, or with a page of HTML (a proxy's, a login).

    A blob may be a page of HTML; then its registry names its digest.
    """
    encoding = response.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ("identity", ""):
        raise UpstreamInvalid(
            f"{endpoint} sends {what} with Content-Encoding {encoding[:40]!r}, though identity was asked for",
            detail={"endpoint": endpoint},
        )
    if media_type(response) in ("text/html", "application/xhtml+xml") and digest(response) is None:
        raise UpstreamInvalid(
            f"{endpoint} sends a page of HTML with status {response.status_code} in the place of {what}",
            detail={"endpoint": endpoint, "status": response.status_code},
        )


def failure(response: httpx.Response, body: bytes, endpoint: str, what: str, unknown: type[MirrorError]) -> MirrorError:
    """The error for a status that is neither good nor 401 nor 403. ``unknown`` is for a plain 404."""
    status, codes = response.status_code, error_codes(body)
    detail: dict[str, object] = {"endpoint": endpoint, "status": status}
    if codes:  # upstream's own words are left out: they might repeat what we sent, a token for example
        detail["codes"] = codes
    told = f" ({', '.join(codes)})" if codes else ""
    if status == 404:
        kind = NameUnknown if "NAME_UNKNOWN" in codes else unknown
        return kind(f"{endpoint} does not have {what}{told}", detail=detail)
    if status == 429:
        message = f"{endpoint} limits how often it may be asked, and answers 429{told}"
        return UpstreamUnavailable(message, detail=detail, retry_after=retry_after(response))
    if status >= 500 or status in (408, 425):
        message = f"{endpoint} answers {status}{told}"
        return UpstreamUnavailable(message, detail=detail, retry_after=retry_after(response))
    return UpstreamInvalid(f"{endpoint} answers {status}{told} when asked for {what}", detail=detail)


def error_codes(body: bytes) -> list[str]:
    """The codes of an OCI error body, as far as it is one; never raises."""
    try:
        errors = json.loads(body)["errors"]
        return [error["code"] for error in errors[:5] if _CODE.fullmatch(error["code"])]
    except (ValueError, TypeError, LookupError, RecursionError):
        return []


def words_of(response: httpx.Response, body: bytes) -> str:
    """What an OCI error body says, for the author of what was refused: bounded, printable, and nothing that we sent.

    Empty when it says nothing, or repeats who we are. Never raises.
    """
    try:
        errors = json.loads(body)["errors"][:3]
        told = "; ".join(": ".join(_strings(error, "code", "message", "detail")) for error in errors)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return ""
    said = re.sub(r"\s+", " ", "".join(one if one.isprintable() else " " for one in told)).strip()
    if any(secret in told or secret in said for secret in _secrets(response.request)):
        return ""
    return said if len(said) <= _MAX_WORDS else f"{said[:_MAX_WORDS]}…"


def _strings(error: dict[str, object], *names: str) -> list[str]:
    return [value for name in names if isinstance(value := error.get(name), str) and value]


def _secrets(request: httpx.Request) -> list[str]:
    """What the request has proved who we are with."""
    kind, _, secret = request.headers.get("authorization", "").partition(" ")
    found = [secret]
    if kind.lower() == "basic":
        with contextlib.suppress(ValueError):
            found.append(b64decode(secret).decode().partition(":")[2])
    return [one for one in found if one]


def read_tags(body: bytes, link: str | None, endpoint: str) -> TagPage:
    """A page of tags; raises `UpstreamInvalid`."""
    tags = parse_object(body, f"the list of tags of {endpoint}").get("tags")
    if tags is None:  # what a registry without tags says
        tags = []
    try:
        names = tuple(parse_tag(tag) for tag in tags) if isinstance(tags, list) else None
    except (TypeError, TagInvalid):
        names = None
    if names is None:
        raise UpstreamInvalid(
            f"{endpoint} sends a list of tags that holds something else", detail={"endpoint": endpoint}
        )
    query = parse_qs(next_query(link) or "")
    last, n = query.get("last", [""])[0], query.get("n", [""])[0]
    return TagPage(names, (int(n) if _SECONDS.fullmatch(n) else None, last) if last else None)


def next_query(link: str | None) -> str | None:
    """The query in the URL of the next page, as a ``Link`` field (RFC 8288) has it; the rest is not used."""
    found = _NEXT_LINK.search(link[:8192]) if link else None
    return found[1].partition("?")[2].partition("#")[0] or None if found else None
