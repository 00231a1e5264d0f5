"""The commands and a mirror as it is: what one says, the other understands."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import Result

from tests.commands.support import command, complaints, lines, started
from tests.support.artifacts import cncf, compat, publish
from tests.support.faults import Fault, Gate
from tests.support.process import MirrorProcess
from tests.support.replicas import replicated
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream
from tests.wasm.modules import plugin

GOOD, BAD, ABSENT = "up/team/good:1.0", "up/team/bad:1.0", "up/team/absent:1.0"
TOKEN = "correct-horse-battery-staple"


@pytest.fixture
def up() -> Iterator[FaultyUpstream]:
    with FaultyUpstream() as server:
        publish(server, "team/good", "1.0", compat(plugin()))
        publish(server, "team/bad", "1.0", cncf(plugin()))
        yield server


class Commands:
    """The commands, of a mirror in this test's loop."""

    def __init__(self, mirror: Running) -> None:
        self.mirror = mirror

    async def __call__(self, *words: str | Path) -> Result:
        return await asyncio.to_thread(command, words[0], "--mirror", f"http://{self.mirror.host}", *words[1:])


@contextlib.asynccontextmanager
async def commands(folder: Path, up: FaultyUpstream) -> AsyncIterator[Commands]:
    async with running(folder, {"up": up}, {"defaults": {"hold_for": "1s"}}) as mirror:
        yield Commands(mirror)


async def test_what_is_prewarmed_is_listed_pinned_and_held_against_purges(tmp_path: Path, up: FaultyUpstream) -> None:
    async with commands(tmp_path, up) as run:
        first = await run("prewarm", "--json", GOOD, BAD, ABSENT, "nowhere.example/x:1", "UP//x")
        again = await run("prewarm", "--json", f"oci://{run.mirror.host}/{GOOD}")
        up.refuse()
        listed = await run("ls", "--json")
        pinned = await run("pin", GOOD)
        already = await run("pin", "--json", GOOD)
        pins = await run("ls", "--pinned", "--json")
        kept = await run("purge", "--json", GOOD, BAD, ABSENT)
        unpinned = await run("unpin", GOOD, BAD)
        gone = await run("purge", GOOD)
        refreshed = await run("refresh", "--json", ABSENT)
        jobs = await run("prewarm", "--jobs")
    assert first.exit_code == 1
    assert {line["reference"]: line["result"] for line in lines(first)} == {
        **{GOOD: "fetched", BAD: "refused", ABSENT: "failed"},
        **{"nowhere.example/x:1": "failed", "UP//x": "failed"},
    }
    assert [line["result"] for line in lines(again)] == ["held"]
    assert {line["reference"] for line in lines(listed)} == {GOOD, BAD}
    assert (pinned.exit_code, pinned.stdout.split()[:2]) == (0, ["pinned", GOOD])
    assert [line["result"] for line in lines(already)] == ["already"]
    (pin,) = lines(pins)
    assert pin["reference"] == GOOD
    assert isinstance(pin["pin"], dict)
    assert pin["pin"]["complete"] is True
    assert [line["result"] for line in lines(kept)] == ["pinned", "purged", "absent"]
    assert unpinned.exit_code == 1
    assert unpinned.stdout.splitlines()[0] == f"unpinned   {GOOD}"
    assert f"{BAD}" in unpinned.stdout.splitlines()[1]
    assert "not pinned" in unpinned.stdout.splitlines()[1]
    assert (gone.exit_code, gone.stdout.split()[:2]) == (0, ["purged", GOOD])
    assert refreshed.exit_code == 1
    assert "JOB" in jobs.stdout
    assert len(jobs.stdout.splitlines()) == 3


async def test_a_mirror_without_a_network_gets_what_another_one_exports(tmp_path: Path, up: FaultyUpstream) -> None:
    archive = tmp_path / "plugins.tar"
    async with commands(tmp_path / "a", up) as run:
        done = await run("export", "-o", archive, GOOD, BAD)
        missing = await run("export", "-o", tmp_path / "none.tar", GOOD, ABSENT)
    assert (done.exit_code, done.stderr) == (0, "")
    assert missing.exit_code == 1
    assert complaints(missing)[-1] in (complaints(missing)[0], "nothing is exported")
    assert ABSENT in missing.stderr
    assert sorted(os.listdir(tmp_path)) == ["a", "plugins.tar"]
    up.refuse()
    broken = tmp_path / "broken.tar"
    broken.write_bytes(archive.read_bytes()[:1000])
    async with commands(tmp_path / "b", up) as run:
        taken = await run("import", "--pin", broken, archive)
        pins = await run("ls", "--pinned", "--json")
        reply = await run.mirror.get("/v2/up/team/good/manifests/1.0")
    assert reply.status == 200
    assert taken.exit_code == 1
    assert complaints(taken)[0].startswith(f"{broken}: ")
    assert taken.stdout.splitlines()[-1].startswith("2 imported (")
    assert {line["reference"] for line in lines(pins)} == {GOOD, BAD}


async def test_what_is_held_is_filtered_read_and_swept(tmp_path: Path, up: FaultyUpstream) -> None:
    size = ["--min-size", "1B", "--max-size", "1GiB"]
    async with commands(tmp_path, up) as run:
        await run("prewarm", GOOD, BAD)
        found = [
            await run("ls", "--json", "--upstream", "up", "--repository", "team/g*", *size, "--min-hits", "0"),
            await run("ls", "--json", "--older-than", "1d"),
            await run("ls", "--json", "--hosted"),
            await run("ls", "--json", "--limit", "1", "--sort", "size"),
            await run("ls", "--json", "--sort", "used", "--reverse"),
        ]
        scrubbed = await run("scrub")
        swept = await run("gc")
    assert [one.exit_code for one in found] == [0] * 5, [one.stderr for one in found]
    assert [len(lines(one)) for one in found] == [1, 0, 0, 1, 2]
    assert (scrubbed.exit_code, scrubbed.stderr) == (0, "")
    assert "none damaged." in scrubbed.stdout
    assert scrubbed.stdout.split()[0] != "0"
    assert (swept.exit_code, swept.stdout.endswith("records went.\n")) == (0, True)


@pytest.mark.integration
def test_a_job_outlives_ctrl_c_and_a_restart_and_can_be_followed(tmp_path: Path, up: FaultyUpstream) -> None:
    (tmp_path / "token").write_text(TOKEN)
    settings = {"admin": {"token_file": str(tmp_path / "token")}}
    gate = Gate()
    up.inject(Fault(gate=gate), path="/team/good/blobs/")
    with MirrorProcess(tmp_path / "mirror", {"up": up.url}, settings) as mirror:
        to = ["--mirror", mirror.url, "--token-file", str(tmp_path / "token")]
        process = started("prewarm", *to, "--pin", BAD, GOOD)
        gate.wait()
        process.send_signal(signal.SIGINT)
        _, stderr = process.communicate(timeout=30)
        assert process.returncode == 130
        job = stderr.decode().split("job ")[1].split()[0]
        follower = started("prewarm", *to, "--json", "--follow", job)
        assert follower.stdout is not None
        assert b'"refused"' in follower.stdout.readline()
        mirror.stop()
        up.reset()
        gate.release()
        mirror.start()
        stdout, stderr = follower.communicate(timeout=60)
        assert (follower.returncode, stderr) == (1, b"")
        assert b'"fetched"' in stdout or b'"held"' in stdout
        assert stdout.count(b"\n") == 1
        assert [line["reference"] for line in lines(command("ls", *to, "--pinned", "--json"))] == [BAD, GOOD]
        refused = command("ls", "--mirror", mirror.url)
        assert (refused.exit_code, len(complaints(refused))) == (1, 1)
        cancelled = command("prewarm", *to, "--cancel", "nothing")
        assert (cancelled.exit_code, len(complaints(cancelled))) == (1, 1)
        assert "no job" in complaints(cancelled)[0]


@pytest.mark.integration
@pytest.mark.needs("redis-server")
def test_what_plugins_in_files_name_is_warm_at_every_replica(tmp_path: Path) -> None:
    with replicated(tmp_path / "replicas", settings={"defaults": {"fresh_for": "1h"}}) as (up, _, replicas):
        names = [f"team/plugin-{number}" for number in range(40)]
        for name in names:
            publish(up, name, "1.0", compat(plugin()))
        for number in range(10):
            documents = [wasm_plugin(f"oci://{replicas[0].host}/up/{name}:1.0") for name in names[number::10]]
            (tmp_path / f"plugins-{number}.yaml").write_text(yaml.safe_dump_all(documents))
        words = [word for file in sorted(tmp_path.glob("*.yaml")) for word in ("-f", file)]
        done = command("prewarm", "--mirror", replicas[0].url, "--json", *words)
        assert (done.exit_code, done.stderr) == (0, "")
        references = [f"up/{name}:1.0" for name in names]
        told = {(line["reference"], line["replica"]) for line in lines(done)}
        assert told == {(one, at) for one in references for at in (None, replicas[1].url, replicas[2].url)}
        up.refuse()
        for mirror in replicas:
            again = command("prewarm", "--mirror", mirror.url, *references)
            assert again.exit_code == 0, again.stdout
            assert again.stdout.splitlines()[-1] == "120 held, at 3 replicas."


def wasm_plugin(url: str) -> dict[str, object]:
    """A WasmPlugin that names its module so."""
    head = {"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin"}
    return {**head, "metadata": {"name": "x", "namespace": "team"}, "spec": {"url": url}}
