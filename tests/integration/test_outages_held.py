"""While a registry is away, in whatever way, what is held is served as if nothing had happened."""

import time
from functools import partial
from pathlib import Path

import pytest

from tests.integration.client import blob, get, manifest, pull, serves, until
from tests.integration.mirrored import mirrored
from tests.integration.outages import OUTAGES, Outage, answering, replaced_by, silent
from tests.support.artifacts import publish, raw, wasm_module
from tests.support.certificates import self_signed
from tests.support.faults import Fault
from tests.support.process import MirrorProcess
from tests.support.upstream import FaultyUpstream

ALWAYS_ASK = {"fresh_for": "0s"}
VERSIONS = {f"v{number}": raw(wasm_module(2000 + number, seed=number)) for number in range(4)}
ROUNDS = 8
OPENS_AFTER = 5
"""Failures in a row after which an upstream is not asked any more for a while."""

each_outage = pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES.keys())


def publish_all(up: FaultyUpstream) -> None:
    for tag, artifact in VERSIONS.items():
        publish(up, "team/plugin", tag, artifact)


async def hold_all(url: str) -> None:
    """Pull all by tag, and wait until all lies on the disk: the last byte is sent before the file has its name."""
    for tag, artifact in VERSIONS.items():
        assert (await pull(url, "up/team/plugin", tag)).whole
        for layer in artifact.layers:
            await until(partial(blob, url, "up/team/plugin", layer), lambda got: got.cache_status == "hit")


async def nothing_is_noticed(url: str, up: FaultyUpstream, outage: Outage) -> None:
    """Pull everything by digest and by tag during ``outage``, one after the other."""
    async with outage(up) as asked:
        for artifact in VERSIONS.values():
            pulled = await pull(url, "up/team/plugin", artifact.digest)
            assert pulled.whole
            assert {got.cache_status for got in (pulled.manifest, *pulled.layers)} == {"hit"}
        assert asked() == 0, "held digests need no upstream"

        began = time.monotonic()
        for _ in range(ROUNDS):
            for tag, artifact in VERSIONS.items():
                got = await manifest(url, "up/team/plugin", tag)
                assert (got.status, got.body) == (200, artifact.body)
                assert got.cache_status.startswith("fwd=stale")
                assert got.seconds < 2.5, "revalidate_for is 1 s"
        assert time.monotonic() - began < 8, "a time-out is waited for once, not by each of 32"
        assert asked() <= OPENS_AFTER + len(VERSIONS)
        assert (await get(url, "/readyz")).status == 200


@each_outage
@pytest.mark.shows("a registry refuses connections, hangs, or answers with errors or what is not HTTP")
async def test_held_tags_are_served_within_a_second_and_held_digests_without_a_question(
    tmp_path: Path, outage: Outage
) -> None:
    async with mirrored(tmp_path, defaults=ALWAYS_ASK) as (up, url):
        publish_all(up)
        await hold_all(url)
        await nothing_is_noticed(url, up, outage)


@pytest.mark.needs("openssl")
@pytest.mark.parametrize("wrong", ["another-certificate", "no-handshake"])
@pytest.mark.shows("a registry shows a certificate that is not trusted, or never finishes the handshake")
async def test_so_they_are_when_it_is_tls_that_fails(tmp_path: Path, wrong: str) -> None:
    for name in ("right", "other"):
        (tmp_path / name).mkdir()
    right, other = self_signed(tmp_path / "right"), self_signed(tmp_path / "other")
    outage = silent if wrong == "no-handshake" else replaced_by(_never_reached, other)
    trust = {"SSL_CERT_FILE": str(right.certificate)}
    with FaultyUpstream(tls=right.for_servers) as up:
        publish_all(up)
        with MirrorProcess(tmp_path, {"up": up.url}, {"defaults": ALWAYS_ASK}, env=trust) as mirror:
            await hold_all(mirror.url)
            await nothing_is_noticed(mirror.url, up, outage)


async def _never_reached(*_: object) -> None:
    raise AssertionError("the mirror spoke HTTP to a server whose certificate it does not trust")


@pytest.mark.shows("a registry refuses connections, hangs, or answers with errors or what is not HTTP")
@pytest.mark.integration
async def test_when_it_is_back_held_tags_follow_it_again(tmp_path: Path) -> None:
    old, new = raw(wasm_module(3000, seed=1)), raw(wasm_module(3000, seed=2))
    async with mirrored(tmp_path, defaults=ALWAYS_ASK) as (up, url):
        publish(up, "team/plugin", "v1", old)
        assert (await pull(url, "up/team/plugin", "v1")).whole
        async with answering(Fault(status=500))(up) as asked:
            for _ in range(ROUNDS):
                assert serves(old)(await manifest(url, "up/team/plugin", "v1"))
            assert asked() <= OPENS_AFTER
        publish(up, "team/plugin", "v1", new)
        await until(lambda: manifest(url, "up/team/plugin", "v1"), serves(new), within=30)
