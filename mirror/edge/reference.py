"""The reference of all errors that a client can see, made from the tree of errors.

``python -m mirror.edge.reference > docs/errors.md`` writes it anew.
"""

import sys
from collections.abc import Iterator

from mirror import errors

_HEAD = """\
# Errors

<!-- Made by `python -m mirror.edge.reference > docs/errors.md`; a test asserts that it is up to date. -->

What the mirror answers when it does not do what it was asked, under `/v2`, `/modules` and `/api/v1` alike. The body is
that of the OCI distribution specification, which clients print:

```json
{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "…", "detail": {}}]}
```

`message` says in words what is wrong and, where it is known, what to do: it counts more than this page. `detail` is for
programs, and may be missing. Codes that begin with `UPSTREAM_`, `MODULE_`, `ARCHIVE_` or `REQUEST_`, and `UNAVAILABLE`,
are this mirror's own; the others are of the specification.

- **`Retry-After`** comes with every 503 and 504, and with 429 where it is known: the seconds after which to ask again.
- **Agents** show none of it but the status, and do not ask again by themselves: [agents.md](agents.md) has what they
  say, and [failures.md](failures.md) what the mirror does while something fails.
- **A body that was cut** is no error with a code: its status was sent before anything was wrong. The log says why.
- **Commands** print `message`, and end with a status of their own: [commands.md](commands.md).
"""

_SECTIONS: tuple[tuple[str, type[errors.MirrorError]], ...] = (
    ("The request", errors.RequestError),
    ("What is not there", errors.NotFound),
    ("The registry behind the mirror", errors.UpstreamError),
    ("The mirror itself", errors.MirrorError),
)

UNSEEN: frozenset[type[errors.MirrorError]] = frozenset(
    {
        errors.RequestError,
        errors.UpstreamError,
        errors.LeaseLost,
        errors.CommandError,
        errors.MirrorUnreachable,
        errors.MirrorRefused,
        errors.InspectError,
        errors.ClusterError,
        errors.StartError,
    }
)
"""What no client is answered with: bases that nobody raises, and the errors of programs."""

_OF_THE_OTHER = "its own"
_FOR_CODE = ("`size`", "`allow`", "`retry_after`", "`received`")  # sentences about attributes, which no client sees

REMEDIES: dict[type[errors.MirrorError], str] = {
    errors.NameInvalid: "Correct the name: lower-case letters, digits, and `.`, `_`, `-` or `/` between them.",
    errors.TagInvalid: "Correct the tag: letters, digits, `_`, `.` and `-`, 128 at most, no `.` or `-` in front.",
    errors.DigestInvalid: "Write `sha256:` and 64 hex digits, or `sha512:` and 128; of a push, hash the bytes anew.",
    errors.PaginationInvalid: "Follow the `Link` header of the page before instead of making up its query.",
    errors.RangeInvalid: "Ask for bytes that are there: `Content-Range` has the size.",
    errors.Unauthorized: "Log in, or bring the token of `admin.token_file`. Where the message names a setting that is "
    "not set, the operator has to set it first.",
    errors.Denied: "Ask the operator for the right; the message names the setting.",
    errors.ModuleMismatch: "Correct `sha256` where it is written down: `detail` has that of the module as it is now.",
    errors.ManifestInvalid: "Change the artifact as the message says; `wasm-mirror inspect` says it before a push.",
    errors.ArchiveInvalid: "Write the archive anew, with one of the commands that [operators.md](operators.md) lists.",
    errors.UploadInvalid: "Begin the push again. If it fails again, the client sends headers that contradict its body.",
    errors.ChunkInvalid: "Go on where `Range` of the answer ends.",
    errors.UploadStalled: "Ask the upload how far it is, and go on there; look at the network on the way.",
    errors.SizeInvalid: "Push less, or have the operator raise the setting that the message names.",
    errors.RequestInvalid: "Correct the fields in `detail`; [api.md](api.md) has what they may be.",
    errors.MediaTypeInvalid: "Send the `Content-Type` that the message names.",
    errors.TooMany: "Wait for `Retry-After`; do less at a time.",
    errors.Unsupported: "Use one of the methods in `Allow`, or the address that the message names.",
    errors.NotFound: "Correct the address.",
    errors.NameUnknown: "Compare the name with `upstreams` and their `allow` in the settings, and with the registry.",
    errors.NotPinned: "Nothing, it is not pinned; `GET /api/v1/pins` has the names of what is.",
    errors.ManifestUnknown: "Look at the registry whether the tag is there. A tag that was just pushed to it may be "
    "remembered as absent for `negative_for`: `wasm-mirror refresh` asks now.",
    errors.AbsenceRemembered: "The same.",
    errors.BlobUnknown: "Pull the manifest first, under the same repository: it is what links blobs to it.",
    errors.ManifestBlobUnknown: "Push what `detail` names, then the manifest again.",
    errors.UploadUnknown: "Begin the push again.",
    errors.ModuleUnknown: "Change the artifact as the message says; `wasm-mirror inspect REF` shows what is in it.",
    errors.NotNow: "Wait for `Retry-After`, and push again. Where it lasts, bring Redis back: [redis.md](redis.md).",
    errors.UpstreamDenied: "Mend the `credentials` of that upstream; `wasm-mirror doctor` tries them.",
    errors.UpstreamRefused: "As that registry says: the words are its own.",
    errors.UpstreamInvalid: "Look at that registry, and at proxies on the way to it; the message says what was wrong.",
    errors.DigestMismatch: "The same; the content at the registry is damaged, or something on the way changes it.",
    errors.UpstreamUnavailable: "Wait for `Retry-After`. Where it lasts, `wasm-mirror doctor` says which step fails.",
    errors.UpstreamCutShort: "The same. The next request goes on where the body ended.",
    errors.UpstreamTimeout: "The same; look at the way to that registry.",
    errors.StoreError: "Look at the log, at the disk and at [failures.md](failures.md): the operator has to mend it.",
    errors.DiskFull: "Make room on the mirror's disk, or lower `cache.max_size`, and push again.",
    errors.MirrorError: "A fault of the mirror: the log has where it happened. Please report it.",
}
"""What to do about each error that a client can see."""


def seen(base: type[errors.MirrorError] = errors.MirrorError) -> Iterator[type[errors.MirrorError]]:
    """``base`` and all below it that a client can see, in the order in which they are declared."""
    if base not in UNSEEN:
        yield base
    for child in base.__subclasses__():
        if child.__module__ == errors.__name__:  # kinds of them elsewhere have their code and status
            yield from seen(child)


def document() -> str:
    """The whole page."""
    parts, told = [_HEAD], set[type[errors.MirrorError]]()
    for title, base in _SECTIONS:
        rows = [error for error in seen(base) if error not in told]
        told.update(rows)
        parts.append(f"## {title}\n\n| code | status | when | what to do |\n|---|---|---|---|")
        parts += [_row(error) for error in rows]
        parts.append("")
    return "\n".join(parts)


def _row(error: type[errors.MirrorError]) -> str:
    own = error is errors.UpstreamRefused
    code, status = (_OF_THE_OTHER, _OF_THE_OTHER) if own else (f"`{error.code}`", str(error.status))
    return f"| {code} | {status} | {_when(error)} | {REMEDIES[error]} |"


def _when(error: type[errors.MirrorError]) -> str:
    if error is errors.MirrorError:
        return "What nobody has foreseen."
    sentences = " ".join((error.__doc__ or "").split()).replace("``", "`").removesuffix(".").split(". ")
    return ". ".join(one for one in sentences if not one.startswith(_FOR_CODE)) + "."


if __name__ == "__main__":
    sys.stdout.write(document())
