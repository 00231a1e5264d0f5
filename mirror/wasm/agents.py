"""What Istio's agents and Envoy Gateway make of an artifact: which layer they read, and why they take it or not.

Sources: Istio's ``pkg/wasm`` and Envoy Gateway's ``internal/wasm``, both of August 2026, on go-containerregistry
0.21.6. Both read an artifact in the same way; a module that is too large is cut by agents, and refused by the gateway.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from mirror.digest import Digest
from mirror.oci import DOCKER_MANIFEST, INDEXES, Descriptor, Manifest
from mirror.wasm import fields
from mirror.wasm.artifact import DOCKER_LAYER, FILE_NAME, OCI_LAYER, RAW_LAYER, Found, Verdict, for_agents, is_module
from mirror.wasm.reasons import AGENTS, PUSH_RAW, Reader, listed, wrong_last

MAX_SIZE = 256 * 1024 * 1024
"""Bytes of a raw module, or of an unpacked archive, that agents read: ``ISTIO_WASM_MAX_BINARY_SIZE_BYTES``."""

SMALLER = "make the layer smaller, or the setting larger"
_ASK_AGAIN = "see that it can be pulled, and ask again"


@dataclass(frozen=True, slots=True)
class Opened:
    """What was found in a layer that is at hand, whose own ``size`` is in bytes.

    ``problem`` says what stopped the reading of an archive, such as "it is not gzipped"; None: nothing did.
    """

    size: int
    found: tuple[Found, ...] = ()
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Taken:
    """A verdict, and what of the artifact was looked at. Not ``told``: what the verdict depends on is not at hand."""

    verdict: Verdict
    found: Found | None = None
    told: bool = True


class Agent:
    """A `Reader` with an artifact of which some layers were ``opened``, by their numbers from 0.

    ``max_size``: how many bytes of a module, or of an unpacked archive, it reads. ``opens``: up to which size a layer
    is opened here.
    """

    def __init__(
        self,
        manifest: Manifest,
        opened: Mapping[int, Opened],
        who: Reader = AGENTS,
        max_size: int = MAX_SIZE,
        opens: int = MAX_SIZE,
    ) -> None:
        self._manifest = manifest
        self._opened = opened
        self._who = who
        self._max_size = max_size
        self._opens = opens
        self._types = _types(manifest)
        self._last = len(manifest.layers) - 1

    def judge(self) -> Taken:
        """Which module it would take, or why none."""
        if (fault := fields.fault(self._manifest)) is not None:
            right = (
                "with sha256 digests only" if "digest" in fault else "with that field as the OCI specification has it"
            )
            return _refuse(f"its manifest cannot be read by {self._who.name}: {fault}", f"push it {right}")
        if self._manifest.media_type in INDEXES:
            return self._index()
        if not self._types:
            return _refuse("it has no layers, so there is no module in it", PUSH_RAW)
        # The body's own word counts, not the Content-Type: a manifest of Docker's without it is read as one of OCI.
        if json.loads(self._manifest.body).get("mediaType") == DOCKER_MANIFEST:
            return self._archive() if self._types[-1] == DOCKER_LAYER else self._wrong_last(DOCKER_LAYER)
        return self._oci()

    def _index(self) -> Taken:
        children = self._manifest.manifests
        if (child := for_agents(self._manifest)) is not None:
            return _not_told(f"the manifest {child.digest}, to which the index leads,")
        if not children:
            return _refuse("the index is empty", "push the image itself, or an index with a child for linux/amd64")
        platforms = [f"{one.platform.os}/{one.platform.architecture}" for one in children if one.platform is not None]
        platforms = [platform.strip("/") or "one without a name" for platform in platforms]
        return _refuse(
            f"the index has no child for linux/amd64, and {self._who.does('take')} no other; it has "
            f"{listed(list(dict.fromkeys(platforms)))}",
            "push the image without an index, or name linux/amd64 as the platform of its child, or no platform",
        )

    def _oci(self) -> Taken:
        """As an image, and if that fails, in the raw layout; a file that is no module does not count as failure."""
        compat = self._archive() if self._types[-1] == OCI_LAYER else None
        if compat is not None and (compat.found is not None or not compat.told):
            return compat
        raw = self._raw() if RAW_LAYER in self._types else None
        if raw is not None and (compat is None or len(self._types) == 2):
            return raw
        return compat or self._wrong_last(OCI_LAYER)

    def _archive(self) -> Taken:
        """The last layer as a gzipped tar."""
        opened, where = self._opened.get(self._last), self._where(self._last)
        if opened is None:
            return self._not_at_hand(self._last)
        first = next(filter(_is_named, opened.found), None)
        if first is not None:
            return self._checked(first, f"{first.name} in {where}")
        if opened.problem is not None:
            return _refuse(
                f"{where} cannot be read: {opened.problem}", f"push it as a tar.gz with {FILE_NAME} as its first file"
            )
        if (holder := self._holder()) is not None:
            return _refuse(
                f"{where} holds no {FILE_NAME}, but layer {holder + 1} does; {self._who.does('read')} only the last "
                "layer",
                f"push the layer that holds {FILE_NAME} as the last one",
            )
        others = [one.name for one in opened.found if one.name is not None]
        return _refuse(
            f"{where} holds no file {FILE_NAME}{f', but {listed(others)}' if others else ''}",
            f"call the module {FILE_NAME} in the archive" if others else f"put a module into it, as {FILE_NAME}",
        )

    def _raw(self) -> Taken:
        """The layout with exactly two layers."""
        count = len(self._types)
        if count != 2:
            layers = "one layer" if count == 1 else f"{count} layers"
            return _refuse(f"it has {layers}; {self._who.does('take')} a raw module only out of exactly two", PUSH_RAW)
        number = self._types.index(RAW_LAYER)
        size = self._manifest.layers[number].size
        if size > self._max_size:
            what = f"{self._who.does('refuse')} it"
            if self._who.truncates:
                what = f"{self._who.does('cut')} it there, without a word, and Envoy cannot load what is left"
            return _refuse(
                f"the module has {size:,} bytes, more than {self._max_size:,}, and {what}", "make the module smaller"
            )
        opened = self._opened.get(number)
        if opened is None:
            return self._not_at_hand(number)
        found = next((one for one in opened.found if one.name is None), None)
        return self._checked(found or Found(number, None, opened.size, magic=False), self._where(number))

    def _checked(self, found: Found, what: str) -> Taken:
        """Whether it begins as a module does; nobody but Envoy looks further."""
        if is_module(found):
            return Taken(Verdict(True), found)
        reason, remedy = f"{what} is no module: it does not begin with \\0asm and a version", "push a compiled module"
        if not found.regular:
            reason = f"{what} is a link, a folder or a device, and no file"
            remedy = f"have no other entry called {FILE_NAME} before the module in the archive"
        elif not found.size:
            reason = f"{what} is empty"
        return Taken(Verdict(False, reason, remedy), found)

    def _wrong_last(self, wanted: str) -> Taken:
        return Taken(wrong_last(self._manifest, self._types, wanted, self._who))

    def _holder(self) -> int | None:
        """The layer in whose archive the file lies."""
        named = (number for number, layer in self._opened.items() if any(map(_is_named, layer.found)))
        return next(named, None)

    def _not_at_hand(self, number: int) -> Taken:
        layer = self._manifest.layers[number]
        if layer.size > self._opens:
            reason = f"cannot tell: {not_opened(self._where(number), layer, self._opens)}"
            return Taken(Verdict(False, reason, SMALLER), told=False)
        return _not_told(f"{self._where(number)} ({layer.digest}, {layer.size:,} bytes)")

    def _where(self, number: int) -> str:
        count = len(self._types)
        if count == 1:
            return "its layer"
        return f"the last of its {count} layers" if number == self._last else f"layer {number + 1} of {count}"


def not_opened(where: str, layer: Descriptor, most: int) -> str:
    """What is said of a layer that is too large to be looked into."""
    return f"{where} has {layer.size:,} bytes, and none is opened that has more than {most:,} (wasm.max_module_size)"


def _is_named(found: Found) -> bool:
    return found.file_name == FILE_NAME


def _refuse(reason: str, remedy: str) -> Taken:
    return Taken(Verdict(False, reason, remedy))


def _not_told(what: str) -> Taken:
    verdict = Verdict(False, f"cannot tell yet: {what} is not at hand", _ASK_AGAIN)
    return Taken(verdict, told=False)


def _types(manifest: Manifest) -> list[str]:
    """The media types of the layers as agents see them.

    They look a layer up by its digest, so that what has the same content as the config, or as a layer before it, has
    the type of that.
    """
    types: dict[Digest, str] = {}
    for named in manifest.named:
        types.setdefault(named.digest, named.media_type)
    return [types[layer.digest] for layer in manifest.layers]
