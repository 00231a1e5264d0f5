"""What the doctor says of the replicas: at real Redis, with a real mirror where one has to answer."""

import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from mirror.config import Settings
from mirror.doctor.cluster import ClusterCheck
from mirror.doctor.machine import Machine
from mirror.doctor.report import Mark
from mirror.shared import keys
from mirror.store.directory import DataDirectory
from tests.doctor.support import Found, found_by
from tests.support.faults import Fault
from tests.support.ports import ReservedPort
from tests.support.process import merged
from tests.support.redis import RedisServer
from tests.support.replicas import replicated
from tests.support.upstream import FaultyUpstream

pytestmark = pytest.mark.integration

SECRET = "a secret of sixteen bytes and more"


def settings(
    folder: Path, advertise: str | None, *, redis: str = "redis://127.0.0.1:1", secret: str = SECRET, **more: Any
) -> Settings:
    cluster: dict[str, object] = {}
    if advertise is not None:
        file = folder / "secret"
        file.write_text(secret)
        cluster = {"advertise": advertise, "secret_file": str(file)}
    return Settings.model_validate(
        {
            "upstreams": {"ghcr.io": {}},
            "data_dir": str(folder / "data"),
            "metadata": {"url": redis},
            "cluster": cluster,
            **more,
        }
    )


async def cluster(configured: Settings, now: Callable[[], float] = time.time) -> Found:
    return await found_by(ClusterCheck(configured, now=now))


def beat(server: RedisServer, name: str, address: str) -> None:
    """As a worker of a replica does it."""
    with server.client() as client:
        seconds, microseconds = client.time()
        client.hset(keys.members(), name, f"{seconds * 1000 + microseconds // 1000} 0 {address}")


@pytest.mark.needs("redis-server")
async def test_replicas_that_answer_and_share_a_secret_are_well(tmp_path: Path) -> None:
    with replicated(tmp_path, n=2) as (_, _, replicas):
        found = await cluster(Settings.model_validate(replicas[0].settings))
        file = tmp_path / "other-secret"
        file.write_text(SECRET)
        apart = await cluster(
            Settings.model_validate(merged(replicas[0].settings, {"cluster": {"secret_file": str(file)}}))
        )
    assert {finding.mark for finding in found.findings} == {Mark.OK}, found
    assert "2 alive" in found["members"].said
    assert replicas[1].url in found["replica"].said
    for check in ("advertise", "replica"):
        assert apart.mark(check) is Mark.FAIL, apart
        assert "another secret" in apart[check].said
        assert "cluster.secret_file" in apart[check].advice


async def test_authorities_that_cannot_be_read_are_a_failure_that_names_their_file(tmp_path: Path) -> None:
    configured = settings(tmp_path, "https://127.0.0.1:1")
    absent = str(tmp_path / "absent")
    found = await cluster(
        Settings.model_validate(merged(configured.model_dump(mode="json"), {"cluster": {"ca_file": absent}}))
    )
    assert found.mark("ca_file") is Mark.FAIL, found
    assert absent in found["ca_file"].said


async def test_what_answers_and_is_no_replica_is_told(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        found = await cluster(settings(tmp_path, up.url))
    assert found.mark("advertise") is Mark.FAIL
    assert "no replica of this mirror" in found["advertise"].said
    assert "cluster.advertise" in found["advertise"].advice


async def test_nothing_that_answers_is_a_failure_only_once_the_mirror_runs(tmp_path: Path) -> None:
    with ReservedPort() as port:
        configured = settings(tmp_path, f"http://127.0.0.1:{port.number}")
        before = await cluster(configured)
        directory = DataDirectory.open(configured.data_dir)
        try:
            running = await cluster(configured)
        finally:
            directory.close()
    assert before.mark("advertise") is Mark.WARN
    assert running.mark("advertise") is Mark.FAIL
    assert "refuses connections" in running["advertise"].said
    assert "listen" in running["advertise"].advice


@pytest.mark.parametrize(("seconds", "words"), [(0, "another secret"), (400, "its clock is")])
async def test_a_refusal_is_told_with_its_cause(tmp_path: Path, seconds: float, words: str) -> None:
    with FaultyUpstream() as up:
        date = formatdate(time.time() + seconds, usegmt=True)
        up.inject(Fault(status=401, code="UNAUTHORIZED", headers={"date": date}), path="^/peer/")
        found = await cluster(settings(tmp_path, up.url))
    assert found.mark("advertise") is Mark.FAIL
    assert words in found["advertise"].said
    assert SECRET not in found.text


async def test_a_secret_that_is_too_short_or_absent_is_told(tmp_path: Path) -> None:
    with ReservedPort() as port:
        found = await cluster(settings(tmp_path, f"http://127.0.0.1:{port.number}", secret="short"))
    assert found.mark("secret") is Mark.FAIL
    assert "cluster.secret_file" in found["secret"].said


async def test_replicas_that_do_not_advertise_are_a_warning(tmp_path: Path) -> None:
    found = await cluster(settings(tmp_path, None))
    assert found.mark("advertise") is Mark.WARN
    assert "cluster.secret_file" in found["advertise"].advice


@pytest.mark.parametrize("enabled", [True, False])
async def test_what_replicas_lack_to_host_together_is_a_warning_where_they_are_to(
    tmp_path: Path, enabled: bool
) -> None:
    found = await cluster(settings(tmp_path, None, hosted={"enabled": enabled, "prefix": "ours"}))
    told = [finding for finding in found.findings if finding.check == "hosted"]
    assert bool(told) == enabled
    if enabled:
        assert told[0].mark is Mark.WARN
        assert told[0].said.startswith("nothing can be pushed to ours/")
        assert "cluster.secret_file, or hosted.enabled: false" in told[0].advice


@pytest.mark.needs("redis-server")
@pytest.mark.parametrize(("wanted", "enough"), [(2, True), (3, False)])
async def test_fewer_replicas_than_copies_are_a_warning(tmp_path: Path, wanted: int, enough: bool) -> None:
    with RedisServer(tmp_path / "redis") as server, ReservedPort() as port:
        beat(server, "pod-b/1/aa", "http://192.0.2.1:8080")
        found = await cluster(
            settings(tmp_path, f"http://127.0.0.1:{port.number}", redis=server.url, hosted={"replicas": wanted})
        )
    told = [finding.said for finding in found.findings if finding.check == "hosted"]
    assert told == ([] if enough else ["what is pushed lies on 2 of the 3 disks that hosted.replicas asks for"])


@pytest.mark.needs("redis-server")
async def test_one_address_of_two_machines_is_told(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server, ReservedPort() as port:
        address = f"http://127.0.0.1:{port.number}"
        for name in ("pod-a/1/aa", "pod-a/2/bb", "pod-b/1/cc"):
            beat(server, name, address)
        found = await cluster(settings(tmp_path, address, redis=server.url))
    failed = [finding for finding in found.findings if finding.check == "members" and finding.mark is Mark.FAIL]
    assert len(failed) == 1, found
    assert "2 machines: pod-a, pod-b" in failed[0].said
    assert "cluster.advertise" in failed[0].advice


@pytest.mark.needs("redis-server")
async def test_a_loopback_address_beside_others_and_a_clock_that_is_off_are_told(tmp_path: Path) -> None:
    with RedisServer(tmp_path / "redis") as server, ReservedPort() as port, FaultyUpstream(host="127.0.0.2") as other:
        off = formatdate(time.time() - 90, usegmt=True)
        other.inject(Fault(status=404, code="BLOB_UNKNOWN", headers={"date": off}), path="^/peer/")
        beat(server, "pod-b/1/aa", other.url)
        beat(server, "pod-c/1/aa", "http://192.0.2.1:8080")
        found = await cluster(settings(tmp_path, f"http://127.0.0.1:{port.number}", redis=server.url))
    advertise = [finding for finding in found.findings if finding.check == "advertise"]
    assert any("this machine alone" in finding.said and finding.mark is Mark.FAIL for finding in advertise), found
    replicas = {finding.said.partition(": ")[0]: finding for finding in found.findings if finding.check == "replica"}
    assert replicas[other.url].mark is Mark.WARN
    assert "its clock is" in replicas[other.url].said
    assert "NTP" in replicas[other.url].advice
    assert replicas["http://192.0.2.1:8080"].mark is Mark.FAIL


# The process and where it listens.


@pytest.mark.parametrize(
    ("listen", "advertise", "mark"),
    [
        ("127.0.0.1:8080", None, Mark.OK),
        ("127.0.0.1:8080", "http://127.0.0.1:8080", Mark.OK),
        ("127.0.0.1:8080", "http://10.0.0.5:8080", Mark.WARN),
        ("0.0.0.0:8080", "http://10.0.0.5:8080", Mark.OK),
        ("[::1]:8080", "http://[2001:db8::5]:8080", Mark.WARN),
    ],
)
async def test_a_mirror_that_advertises_what_it_does_not_listen_at_is_told(
    tmp_path: Path, listen: str, advertise: str | None, mark: Mark
) -> None:
    found = await found_by(Machine(settings(tmp_path, advertise, listen=listen)))
    assert found.mark("listen") is mark
    if mark is Mark.WARN:
        assert "cluster.advertise" in found["listen"].said
        assert "listen" in found["listen"].advice


@pytest.mark.parametrize(("limit", "mark"), [(256, Mark.WARN), (4096, Mark.OK)])
async def test_few_open_files_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int, mark: Mark) -> None:
    monkeypatch.setattr("resource.getrlimit", lambda _: (256, limit))  # up to the hard limit the mirror goes by itself
    found = await found_by(Machine(settings(tmp_path, None)))
    assert found.mark("open files") is mark
    if mark is Mark.WARN:
        assert "ulimit" in found["open files"].advice
