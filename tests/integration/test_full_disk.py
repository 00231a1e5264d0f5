"""A real file system that is full, that fills up in the middle, that fails: nobody who pulls notices."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import httpx
import pytest

from tests.support.artifacts import OCI_CONFIG, RAW_LAYER, Artifact, image, publish, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.filesystem import FailingDisk, SmallDisk
from tests.support.process import MirrorProcess
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

MIB = 1 << 20
DISK = 32 * MIB
NAME = "/v2/up/team/plugin"
HOSTED = "/v2/hosted/team/plugin"


def artifact(number: int, size: int) -> Artifact:
    return image([(RAW_LAYER, wasm_module(size, number))], config=(OCI_CONFIG, b'{"number":%d}' % number))


HELD, OTHER, LATER, PUSHED = (artifact(number, size * MIB) for number, size in enumerate((2, 6, 3, 1)))


Disk = TypeVar("Disk", bound=SmallDisk)


@contextmanager
def mirror_on_a_small_disk(
    folder: Path, kind: Callable[[MirrorProcess, int], Disk]
) -> Iterator[tuple[FaultyUpstream, MirrorProcess, Disk]]:
    """It holds one artifact of its upstream, and one that was pushed; all that upstream has stays fresh."""
    settings = {"defaults": {"fresh_for": "1h"}, "cache": {"high_water": 1.0, "low_water": 0.99}}
    with FaultyUpstream() as up:
        for tag, one in (("held", HELD), ("other", OTHER), ("later", LATER)):
            publish(up, "team/plugin", tag, one)
        mirror = MirrorProcess(folder, {"up": up.url}, settings)
        with kind(mirror, DISK) as disk, mirror:
            pull(mirror, NAME, "held", HELD)
            push(mirror)
            yield up, mirror, disk


def pull(mirror: MirrorProcess, name: str, tag: str, one: Artifact) -> None:
    """As an agent; every byte is right."""
    with httpx.Client(base_url=mirror.url, trust_env=False, timeout=30) as client:
        manifest = client.get(f"{name}/manifests/{tag}")
        assert (manifest.status_code, manifest.content) == (200, one.body)
        for digest in one.layers:
            layer = client.get(f"{name}/blobs/{digest}")
            assert (layer.status_code, layer.content) == (200, one.blobs[digest])


def push(mirror: MirrorProcess) -> None:
    with httpx.Client(base_url=mirror.url, trust_env=False, timeout=30) as client:
        for digest, content in PUSHED.blobs.items():
            assert client.post(f"{HOSTED}/blobs/uploads/?digest={digest}", content=content).status_code == 201
        kind = {"content-type": PUSHED.media_type}
        assert client.put(f"{HOSTED}/manifests/1", content=PUSHED.body, headers=kind).status_code == 201


def all_that_is_held_comes(mirror: MirrorProcess) -> None:
    pull(mirror, NAME, "held", HELD)
    pull(mirror, HOSTED, "1", PUSHED)


@pytest.mark.shows("the disk is full, or fails")
def test_on_a_file_system_that_is_full_pulls_stream_through_and_nothing_is_lost(tmp_path: Path) -> None:
    with mirror_on_a_small_disk(tmp_path, SmallDisk) as (up, mirror, disk):
        disk.fill()
        pull(mirror, NAME, "other", OTHER)
        pull(mirror, NAME, "other", OTHER)
        assert up.count(path=f"/blobs/{OTHER.layers[0]}") >= 2, "it is not kept"
        all_that_is_held_comes(mirror)
        with httpx.Client(base_url=mirror.url, trust_env=False, timeout=30) as client:
            begun = client.post(f"{HOSTED}/blobs/uploads/?digest={OTHER.layers[0]}", content=b"x")
            assert begun.status_code >= 400, "what cannot be kept is not taken in"
        disk.make_room()
        pull(mirror, NAME, "later", LATER)
        pull(mirror, NAME, "later", LATER)
        wait_until(lambda: up.count(path=f"/blobs/{LATER.layers[0]}") == 1, what="it is kept again")
        push(mirror)
        all_that_is_held_comes(mirror)


@pytest.mark.shows("the disk is full, or fails")
def test_a_file_system_that_fills_up_in_the_middle_of_a_fill_cuts_nobody(tmp_path: Path) -> None:
    with mirror_on_a_small_disk(tmp_path, SmallDisk) as (up, mirror, disk):
        disk.leave(3 * MIB)
        pull(mirror, NAME, "other", OTHER)
        all_that_is_held_comes(mirror)
        disk.make_room()
        pull(mirror, NAME, "other", OTHER)
        before = up.count(path=f"/blobs/{OTHER.layers[0]}")
        pull(mirror, NAME, "other", OTHER)
        assert up.count(path=f"/blobs/{OTHER.layers[0]}") == before, "it is kept now"


@pytest.mark.shows("the disk is full, or fails")
def test_a_mirror_that_is_killed_on_a_full_file_system_starts_there_and_serves(tmp_path: Path) -> None:
    with mirror_on_a_small_disk(tmp_path, SmallDisk) as (_, mirror, disk):
        disk.fill()
        mirror.kill()
        mirror.start()
        all_that_is_held_comes(mirror)
        pull(mirror, NAME, "other", OTHER)
        disk.make_room()
        mirror.kill()
        mirror.start()
        all_that_is_held_comes(mirror)


@pytest.mark.shows("the disk is full, or fails")
def test_a_disk_that_fails_and_goes_read_only_loses_nothing_and_pulls_stream_through(tmp_path: Path) -> None:
    with mirror_on_a_small_disk(tmp_path, FailingDisk) as (up, mirror, disk):
        disk.fail()
        all_that_is_held_comes(mirror)
        pull(mirror, NAME, "other", OTHER)
        with httpx.Client(base_url=mirror.url, trust_env=False, timeout=30) as client:
            begun = client.post(
                f"{HOSTED}/blobs/uploads/?digest={OTHER.layers[0]}", content=OTHER.blobs[OTHER.layers[0]]
            )
            assert begun.status_code >= 500, "what cannot be kept is not taken in"
        all_that_is_held_comes(mirror)
        mirror.kill()
        disk.replace()
        mirror.start()
        all_that_is_held_comes(mirror)
        pull(mirror, NAME, "later", LATER)
        pull(mirror, NAME, "later", LATER)
        assert up.count(path=f"/blobs/{LATER.layers[0]}") == 1, "it is kept again"
        push(mirror)


@pytest.mark.shows("the disk is full, or fails")
def test_a_disk_that_fails_in_the_middle_of_a_fill_cuts_nobody(tmp_path: Path) -> None:
    with mirror_on_a_small_disk(tmp_path, FailingDisk) as (up, mirror, disk), ThreadPoolExecutor() as threads:
        gate, layer = Gate(), OTHER.layers[0]
        up.inject(Fault(gate=gate, gate_at=2 * MIB), method="GET", path=f"/blobs/{layer}", times=1)
        pulling = [threads.submit(pull, mirror, NAME, "other", OTHER) for _ in range(5)]
        try:
            wait_until(lambda: up.count(method="GET", path=f"/blobs/{layer}") == 1, what="upstream is asked")
            disk.fail()
        finally:
            gate.release()
        for one in pulling:
            one.result(60)
        all_that_is_held_comes(mirror)
