"""What is kept of a description: enough to say in a list what an artifact is, and who would not take it."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Final, Literal, NamedTuple, get_args

from mirror.digest import Digest
from mirror.oci import Manifest
from mirror.wasm.artifact import Layout
from mirror.wasm.description import Description
from mirror.wasm.reasons import compared, misled

Verdict = Literal["accepted", "refused", "not_wasm"]
"""What agents would do with an artifact; not_wasm: an image without any module."""

VERDICTS: Final[tuple[str, ...]] = get_args(Verdict)

_MOST_VERSIONS, _LONGEST_VERSION = 8, 32

_IMAGES = frozenset({Layout.DOCKER, Layout.COMPAT, Layout.OTHER})
"""Layouts in which containers come too."""


class Facts(NamedTuple):
    """What was found of an artifact.

    ``layout``: one of `Layout`'s values. ``abi``: the versions of the Proxy-Wasm ABI that its module exports.
    ``why``: one sentence that says why agents would not take it, or else why Envoy would not run it; None: both do.
    """

    layout: str
    abi: tuple[str, ...]
    verdict: Verdict
    why: str | None


def facts_of(description: Description) -> Facts:
    """What is kept of a description that is `Description.complete`."""
    against = next((one for one in (description.agent, description.envoy) if not one.accepted), None)
    versions = () if description.module is None else description.module.abi_versions[:_MOST_VERSIONS]
    abi = tuple(_plain(version[:_LONGEST_VERSION], "") for version in versions)  # which are a stranger's words
    why = None if against is None else _plain(against.reason, "\N{REPLACEMENT CHARACTER}", spaces=True)
    return Facts(description.layout.value, abi, verdict_of(description), why)


def about(way: Sequence[Manifest]) -> tuple[Digest, ...]:
    """The manifests of which holds what was found by way of them, from the one that was named to the image: all, but
    for an image that an index on the way is wrong about.
    """
    digests = tuple(manifest.digest for manifest in way)
    return digests if all(misled(above, below) is None for above, below in pairwise(way)) else digests[:-1]


def misnamed(index: Digest, facts: Facts) -> Facts:
    """What holds of an index that is named by its digest, in place of what holds of its tags."""
    if facts.layout == Layout.INDEX.value:  # which agents refuse by any name
        return facts
    return facts._replace(verdict="refused", why=compared(index, "agents fail"))


def verdict_of(description: Description) -> Verdict:
    """What agents would do with it."""
    if description.agent.accepted:
        return "accepted"
    return "not_wasm" if description.layout in _IMAGES and not description.found else "refused"


def _plain(text: str, otherwise: str, *, spaces: bool = False) -> str:
    """The text without what would not be seen in a line of it."""
    return "".join(sign if sign.isprintable() and (spaces or sign != " ") else otherwise for sign in text)
