"""An artifact's layers looked into, its module read, and what all who might take it would make of that. Blocks."""

import hashlib
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from mirror.digest import Digest
from mirror.oci import Manifest
from mirror.wasm import agents, hosts
from mirror.wasm.agents import SMALLER, Agent, Opened, Taken, not_opened
from mirror.wasm.archive import ArchiveError, Entry, Limits, extract, modules_in
from mirror.wasm.artifact import Found, Layout, Verdict, is_archive, is_module, layers_to_open, layout_of
from mirror.wasm.description import Description, bounded
from mirror.wasm.module import Malformed, looks_like_wasm, read_module
from mirror.wasm.reasons import AGENTS, GATEWAY, compared, misled

Content = memoryview | bytes

_PIECE = 1024 * 1024
_GZIP = b"\x1f\x8b"
_IN_MEMORY = 16 * 1024 * 1024
"""Bytes up to which a module out of an archive is read in memory; larger ones go to a file."""


def examine(
    manifest: Manifest,
    contents: Mapping[Digest, Content],
    *,
    max_module_size: int = agents.MAX_SIZE,
    agents_size: int = agents.MAX_SIZE,
    index: Manifest | None = None,
    between: Sequence[Manifest] = (),
    pinned_index: bool = False,
    folder: Path | None = None,
    read: bool = True,
) -> Description:
    """Describe an artifact of which the layers in ``contents`` are at hand, whole and verified.

    ``max_module_size`` is the mirror's ``wasm.max_module_size``, ``agents_size`` what agents and Envoy Gateway read.
    ``index`` led to ``manifest``, by way of those ``between``; ``pinned_index``: it was asked for by its digest. What
    the answer depends on and is
    not at hand makes it not `Description.complete`. Large modules are unpacked into a nameless file in ``folder``
    (None: where temporary files go). Without ``read`` a module is chosen, but not looked into. Raises `OSError` when
    that folder takes no file, and nothing else.
    """
    limits = Limits(output=agents_size)
    wanted = layers_to_open(manifest, max_module_size)
    opened = {
        number: _open(number, manifest.layers[number].media_type, contents[manifest.layers[number].digest], limits)
        for number in wanted
        if manifest.layers[number].digest in contents
    }
    agent = Agent(manifest, opened, AGENTS, agents_size, max_module_size).judge()
    gateway = Agent(manifest, opened, GATEWAY, agents_size, max_module_size).judge()
    described = Description(
        layout=layout_of(manifest),
        agent=agent.verdict,
        gateway=gateway.verdict,
        envoy=agent.verdict,
        digest=manifest.digest,
        media_type=manifest.media_type,
        index=None if index is None else index.digest,
        found=tuple(one for layer in opened.values() for one in layer.found),
        warnings=_warnings(agent, opened),
        complete=agent.told and len(opened) == len(wanted),
    )
    chosen = _choose(agent, described, opened)
    if agent.told and not opened and (large := _too_large(manifest, max_module_size)) is not None:
        described = _without_module(described, large, SMALLER)
    elif isinstance(chosen, Found):
        content = contents[manifest.layers[chosen.layer].digest]
        described = replace(described, chosen=chosen)
        if read:
            described = _read(described, content, limits, max_module_size, folder)
    else:
        described = _without_module(described, chosen)
    return bounded(described if index is None else _led_by((index, *between, manifest), described, pinned=pinned_index))


def examine_file(content: Content) -> Description:
    """Describe a bare ``.wasm``; agents and gateway are said to take it as what it would be in an artifact."""
    found = Found(0, None, len(content), looks_like_wasm(bytes(content[:4])))
    verdict = Verdict(is_module(found))
    if not verdict.accepted:
        reason = "the file is no module: it does not begin with \\0asm and a version"
        verdict = Verdict(False, reason, "look at what the compiler made")
    described = Description(Layout.FILE, verdict, verdict, verdict, found=(found,))
    if not verdict.accepted:
        return _without_module(described, verdict.reason)
    return bounded(_read_module(replace(described, chosen=found), memoryview(content), _sha256(content)))


def _open(number: int, media_type: str, content: Content, limits: Limits) -> Opened:
    """What there is in a layer. One that only looks gzipped need not be an archive."""
    content = memoryview(content)
    if looks_like_wasm(bytes(content[:4])):
        found = Found(number, None, len(content), magic=True)
        return Opened(len(content), (found,), "it is not gzipped" if is_archive(media_type) else None)
    if not is_archive(media_type) and bytes(content[:2]) != _GZIP:
        return Opened(len(content))
    problem = None
    try:
        entries = tuple(modules_in(_pieces(content), limits))
    except ArchiveError as error:
        entries, problem = error.found, _cause(error)
    found_here = (Found(number, one.name, one.size, one.magic, one.index, one.regular) for one in entries)
    return Opened(len(content), tuple(found_here), problem)


def _choose(agent: Taken, described: Description, opened: Mapping[int, Opened]) -> Found | str:
    """The module to describe, or a sentence that says why there is none."""
    if agent.verdict.accepted and agent.found is not None:
        return agent.found
    good = [one for one in described.found if is_module(one)]
    if len(good) == 1:
        return good[0]
    if not good:
        return _nothing(agent, described, opened)
    names = ", ".join(one.name or f"layer {one.layer + 1}" for one in good[:3])
    return f"it holds {len(good)} modules ({names}), and none of them where agents look: {agent.verdict.reason}"


def _nothing(agent: Taken, described: Description, opened: Mapping[int, Opened]) -> str:
    """Why there is no module at all."""
    if not agent.told or agent.found is not None or described.layout is Layout.INDEX:
        return agent.verdict.reason
    if not described.complete:
        return "cannot tell yet: not all layers that may hold a module are at hand"
    if not opened:
        return agent.verdict.reason  # which is about the types of the layers
    broken = next(
        (f", and layer {number + 1} cannot be read: {one.problem}" for number, one in opened.items() if one.problem), ""
    )
    return f"it holds no module{broken}"


def _too_large(manifest: Manifest, max_module_size: int) -> str | None:
    """What is said of a layer that may hold a module, and is not opened; None: there is none."""
    large = set(layers_to_open(manifest, sys.maxsize)) - set(layers_to_open(manifest, max_module_size))
    return None if not large else not_opened(f"layer {min(large) + 1}", manifest.layers[min(large)], max_module_size)


def _without_module(described: Description, problem: str, remedy: str = "") -> Description:
    return replace(described, problem=problem, envoy=Verdict(False, problem, remedy or described.agent.remedy))


def _read(
    described: Description, content: Content, limits: Limits, max_module_size: int, folder: Path | None
) -> Description:
    """Add what the chosen module says of itself."""
    chosen = described.chosen
    assert chosen is not None
    if chosen.size > max_module_size:
        problem = f"the module has {chosen.size:,} bytes, more than wasm.max_module_size ({max_module_size:,})"
        remedy = "make the module smaller, or the setting larger"
        return replace(described, problem=problem, envoy=Verdict(False, problem, remedy))
    if chosen.name is None:
        return _read_module(described, memoryview(content), _sha256(content))
    try:
        with _unpacked(memoryview(content), chosen, limits, folder) as (module, digest):
            return _read_module(described, module, digest)
    except ArchiveError as error:
        return _without_module(described, f"the module cannot be unpacked: {_cause(error)}")


def _read_module(described: Description, content: memoryview, digest: Digest) -> Description:
    described = replace(described, module_digest=digest)
    try:
        module = read_module(content)
    except Malformed as error:
        described = replace(described, problem=str(error))
        return replace(described, envoy=Verdict(False, str(error), "compile the module anew, and push it whole"))
    warnings = described.warnings
    if recent := [f"{one.module}.{one.name}" for one in hosts.recent(module)]:
        warnings = (*warnings, f"the module imports {', '.join(recent[:3])}, which Envoy has since 1.38 only")
    return replace(
        described,
        module=module,
        envoy=hosts.for_envoy(module),
        lacking=hosts.lacking(module),
        warnings=warnings,
    )


@contextmanager
def _unpacked(
    content: memoryview, chosen: Found, limits: Limits, folder: Path | None
) -> Iterator[tuple[memoryview, Digest]]:
    """A module out of an archive, with its digest, for as long as the block runs."""
    entry = Entry(chosen.entry, chosen.name or "", chosen.size, chosen.magic)
    hashed = hashlib.sha256()
    with _buffer(chosen.size, folder) as buffer:
        at = 0
        for piece in extract(_pieces(content), entry, limits):
            hashed.update(piece)
            buffer[at : at + len(piece)] = piece
            at += len(piece)
        with memoryview(buffer).toreadonly() as view:
            yield view, Digest("sha256", hashed.hexdigest())


@contextmanager
def _buffer(size: int, folder: Path | None) -> Iterator[mmap.mmap]:
    """Memory of this size; when it is large, that of a file."""
    with tempfile.TemporaryFile(dir=folder) if size > _IN_MEMORY else nullcontext() as file:
        if file is not None:
            os.posix_fallocate(file.fileno(), 0, size)  # a full disk then is an error, and no signal
        with mmap.mmap(-1 if file is None else file.fileno(), size) as buffer:
            yield buffer


def _cause(error: ArchiveError) -> str:
    """What is wrong, as the end of a sentence."""
    return str(error.__cause__ or error)


def _pieces(content: memoryview) -> Iterator[memoryview]:
    return (content[at : at + _PIECE] for at in range(0, len(content), _PIECE))


def _sha256(content: Content) -> Digest:
    return Digest("sha256", hashlib.sha256(content).hexdigest())


def _warnings(agent: Taken, opened: Mapping[int, Opened]) -> tuple[str, ...]:
    """What is worth knowing about an artifact that agents take."""
    if agent.found is None or not agent.verdict.accepted or agent.found.name is None:
        return ()
    layer = opened[agent.found.layer]
    warnings = []
    if sum(one.file_name == agent.found.file_name for one in layer.found) > 1:
        warnings.append(
            f"the archive has several files {agent.found.file_name}; agents take the first, {agent.found.name}"
        )
    if layer.problem is not None:
        warnings.append(
            f"agents stop reading at {agent.found.name} and do not see that what follows is broken: {layer.problem}"
        )
    return tuple(warnings)


def _led_by(way: Sequence[Manifest], described: Description, *, pinned: bool) -> Description:
    """Add what becomes of an artifact that indexes led to. Who pins the first gets the last, of another digest."""
    index = way[0]
    for above, below in pairwise(way):
        if (against := misled(above, below)) is not None:
            return replace(described, agent=against, gateway=against)
    if not pinned:
        return described
    remedy = f"pin the child instead: @{described.digest}"
    reason = compared(index.digest, "agents fail")
    return replace(
        described,
        agent=Verdict(False, reason, remedy),
        gateway=Verdict(False, compared(index.digest, "Envoy Gateway fails"), remedy),
        warnings=(*described.warnings, f"{reason}; {remedy}"),
    )
