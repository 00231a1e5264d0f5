"""What is pushed, held against what agents and Envoy take: said to its author at once, or refused (``wasm.check``).

What is no Wasm artifact, a chart, a signature, a container, is nobody's business here. An index is let in as it is:
what it names was looked at when it was pushed.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mirror.digest import Digest
from mirror.errors import ManifestInvalid, StoreError
from mirror.oci import IMAGES, Manifest, Reference
from mirror.store.blobs import Blob
from mirror.upstream.queue import FairQueue
from mirror.wasm import artifact
from mirror.wasm.artifact import Verdict
from mirror.wasm.description import Description
from mirror.wasm.examine import examine
from mirror.wasm.facts import Facts, facts_of
from mirror.wasm.module import looks_like_wasm

log = logging.getLogger(__name__)

_THREADS = 2
_FEW = 4
"""Of an image with so many layers each is looked at for a module, whatever its type: tools have many names for one."""


class Admission:
    """Judges what is pushed. Wired once; `close` ends it."""

    def __init__(
        self,
        check: str,
        max_module_size: int,
        folder: Path,
        noted: Callable[[Sequence[Digest], Facts], None],
    ) -> None:
        """``check`` is the setting ``wasm.check``; ``folder`` is for files that have no name. ``noted`` is told what
        was found of manifests that are let in.
        """
        self._check = check
        self._max_module_size = max_module_size
        self._folder = folder
        self._noted = noted
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="admit")
        self._turns = FairQueue(_THREADS)

    def layers(self, manifest: Manifest) -> list[Digest]:
        """The layers that must be at hand to judge it; none: there is nothing to judge."""
        if self._check == "off" or manifest.media_type not in IMAGES:
            return []
        count = len(manifest.layers)
        first = range(count) if count <= _FEW else ()
        numbers = dict.fromkeys((*first, *artifact.layers_to_open(manifest, self._max_module_size)))
        return [manifest.layers[number].digest for number in numbers]

    async def warnings(
        self, reference: Reference, manifest: Manifest, layer: Callable[[Digest], Blob | None]
    ) -> tuple[str, ...]:
        """What its author should hear of a manifest, for which ``layer`` gives what `layers` named.

        Raises `ManifestInvalid` where the settings keep it out, and `StoreError` when it cannot be looked into.
        """
        held = [blob for digest in self.layers(manifest) if (blob := layer(digest)) is not None]
        bare = any(looks_like_wasm(bytes(blob.read(0, 4))) for blob in held)  # whatever it is called
        if not held or not (bare or artifact.modules(manifest, self._max_module_size)):
            return ()
        contents = {blob.digest: blob.read(0, blob.size) for blob in held}
        description = await self._look(reference, manifest, contents)
        if not description.complete:
            return ()
        facts, against = facts_of(description), _against(description)
        is_ours = bare or facts.verdict != "not_wasm"
        if self._check != "enforce" or against is None or not is_ours:
            self._noted([manifest.digest], facts)
        if against is None or not is_ours:
            return description.warnings if is_ours else ()
        words, verdict = against
        if self._check == "enforce":
            raise ManifestInvalid(
                f"{words}: {verdict.reason}; to mend it: {verdict.remedy} (wasm.check: enforce)",
                detail={"reason": verdict.reason, "remedy": verdict.remedy},
            )
        told = f"{words}: {verdict.reason}; to mend it: {verdict.remedy}"
        log.warning("%s (%s) is pushed: %s", reference, manifest.digest, told)
        return (told, *description.warnings)

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look(self, reference: Reference, manifest: Manifest, contents: dict[Digest, memoryview]) -> Description:
        """An archive may take seconds to look into, so repositories take turns."""
        turn = await self._turns.enter(f"{reference.upstream}/{reference.repository}", first=False)
        try:
            return await asyncio.get_running_loop().run_in_executor(
                self._threads,
                lambda: examine(manifest, contents, max_module_size=self._max_module_size, folder=self._folder),
            )
        except OSError as error:
            log.error("the disk fails (%s); %s cannot be looked into", error.strerror or error, reference)
            raise StoreError(f"the mirror's disk fails, and {reference} cannot be looked into there") from error
        finally:
            turn.leave()


def _against(description: Description) -> tuple[str, Verdict] | None:
    """Who will not take it, and why; agents first, who see it first."""
    if not description.agent.accepted:
        return "agents will refuse this", description.agent
    if not description.envoy.accepted:
        return "agents take this, and Envoy will not run it", description.envoy
    return None
