"""Credential helpers as programs: what they are told, what is believed of them, and that none outlives its welcome."""

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from mirror.errors import UpstreamUnavailable
from mirror.upstream.helpers import Helper
from mirror.upstream.tokens import Login
from tests.support.waiting import eventually
from tests.upstream.support import helper, says

SETTING = "upstreams.corp.credentials.helper"


def asking(environment: Mapping[str, str], name: str = "fake", within: float = 10.0) -> Helper:
    return Helper(name, "registry.example", SETTING, environment, within)


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet reaped by its parent does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


async def test_a_helper_is_asked_with_get_and_the_server(tmp_path: Path) -> None:
    script = f'echo "$@" > {tmp_path}/asked; cat >> {tmp_path}/asked; echo \'{{"Username": "u", "Secret": "s"}}\''
    assert await asking(helper(tmp_path, "fake", script)).ask() == Login("u", SecretStr("s"))
    assert (tmp_path / "asked").read_text() == "get\nregistry.example\n"


async def test_the_name_token_means_an_identity_token(tmp_path: Path) -> None:
    environment = helper(tmp_path, "fake", says("<token>", "I"))
    assert await asking(environment).ask() == Login("", SecretStr("I"), is_identity_token=True)


async def test_a_helper_has_the_mirrors_environment(tmp_path: Path) -> None:
    environment = helper(tmp_path, "fake", 'printf \'{"Username": "u", "Secret": "%s"}\' "$REGION"')
    assert await asking({**environment, "REGION": "eu"}).ask() == Login("u", SecretStr("eu"))


@pytest.mark.parametrize("stream", [1, 2])
async def test_no_credentials_means_anonymous_and_is_said_once(
    tmp_path: Path, stream: int, caplog: pytest.LogCaptureFixture
) -> None:
    asked = asking(helper(tmp_path, "fake", f"echo credentials not found in native keychain >&{stream}; exit 1"))
    assert await asked.ask() is None
    assert await asked.ask() is None
    assert len(caplog.records) == 1
    assert "docker-credential-fake has no login for registry.example" in caplog.text


async def test_an_empty_secret_means_anonymous(tmp_path: Path) -> None:
    assert await asking(helper(tmp_path, "fake", says("", ""))).ask() is None


async def test_a_helper_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(UpstreamUnavailable, match=rf"docker-credential-fake of {SETTING} is not on PATH"):
        await asking({"PATH": str(tmp_path)}).ask()


async def test_a_file_that_may_not_be_run_is_no_helper(tmp_path: Path) -> None:
    (tmp_path / "docker-credential-fake").write_text("not for running")
    with pytest.raises(UpstreamUnavailable, match="is not on PATH"):
        await asking({"PATH": str(tmp_path)}).ask()


async def test_a_program_that_cannot_be_run_is_told(tmp_path: Path) -> None:
    program = tmp_path / "docker-credential-fake"
    program.write_text("#!/does/not/exist\n")
    program.chmod(0o755)
    with pytest.raises(UpstreamUnavailable, match="cannot be run: No such file"):
        await asking({"PATH": str(tmp_path)}).ask()


@pytest.mark.shows("a credential helper fails, or hangs")
async def test_a_helper_that_fails_is_told_with_what_it_wrote_to_standard_error_alone(tmp_path: Path) -> None:
    script = (
        "echo half-a-secret; "
        "printf 'no region\\n  in /var/lib/robot/config, see https://a.example/b/c\\033[0m' >&2; exit 3"
    )
    with pytest.raises(UpstreamUnavailable) as failed:
        await asking(helper(tmp_path, "fake", script)).ask()
    assert str(failed.value) == (
        f"the credential helper docker-credential-fake of {SETTING} fails (exit status 3): "
        "no region in …/config, see https://a.example/b/c?[0m"
    )


async def test_a_long_complaint_is_shortened_to_its_end(tmp_path: Path) -> None:
    script = "yes complaint | head -c 100000 >&2; echo the end >&2; exit 1"
    with pytest.raises(UpstreamUnavailable, match=r"the end$") as failed:
        await asking(helper(tmp_path, "fake", script)).ask()
    assert len(str(failed.value)) < 500


async def test_a_helper_that_is_killed_is_told(tmp_path: Path) -> None:
    with pytest.raises(UpstreamUnavailable, match=r"fails \(signal 9\), and says nothing on standard error"):
        await asking(helper(tmp_path, "fake", "kill -9 $$")).ask()


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo hidden", "does not print a JSON object"),
        ("echo '[\"hidden\"]'", "does not print a JSON object"),
        ('echo \'{"Username": "hidden"}\'', "without Username and Secret"),
        ('echo \'{"Username": "u", "Secret": 5, "hidden": 1}\'', "without Username and Secret"),
        ("exit 0", "does not print a JSON object"),
        ("yes hidden | head -c 3000000", "does not print a JSON object"),
    ],
)
async def test_what_is_no_answer_is_told_and_not_shown(tmp_path: Path, script: str, words: str) -> None:
    with pytest.raises(UpstreamUnavailable, match=words) as failed:
        await asking(helper(tmp_path, "fake", script)).ask()
    assert "hidden" not in str(failed.value)
    assert failed.value.__cause__ is None


async def test_a_helper_that_does_not_listen_is_heard(tmp_path: Path) -> None:
    environment = helper(tmp_path, "fake", 'exec <&-; echo \'{"Username": "u", "Secret": "s"}\'')
    assert await asking(environment).ask() == Login("u", SecretStr("s"))


@pytest.mark.shows("a credential helper fails, or hangs")
async def test_a_helper_that_hangs_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    script = f"sleep 600 & echo $! $$ > {tmp_path}/pids; wait"
    began = time.monotonic()
    with pytest.raises(UpstreamUnavailable, match=r"does not answer within 1 s"):
        await asking(helper(tmp_path, "fake", script), within=1.0).ask()
    assert time.monotonic() - began < 5
    pids = [int(word) for word in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    await eventually(lambda: not any(is_alive(pid) for pid in pids), what="the end of both processes")


async def test_what_a_helper_left_behind_holds_up_nobody(tmp_path: Path) -> None:
    """It has ended, but what it started still holds its standard output."""
    script = f"sleep 600 & echo $! > {tmp_path}/pid"
    with pytest.raises(UpstreamUnavailable, match="does not answer"):
        await asking(helper(tmp_path, "fake", script), within=1.0).ask()
    pid = int((tmp_path / "pid").read_text())
    await eventually(lambda: not is_alive(pid), what="its end")


async def test_who_stops_waiting_leaves_no_process_behind(tmp_path: Path) -> None:
    task = asyncio.ensure_future(asking(helper(tmp_path, "fake", f"echo $$ > {tmp_path}/pid; exec sleep 600")).ask())
    written = tmp_path / "pid"
    await eventually(lambda: written.exists() and written.read_text().strip())
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(int(written.read_text()))


async def test_a_helper_inherits_no_open_file(tmp_path: Path) -> None:
    read, write = os.pipe()
    try:
        environment = helper(tmp_path, "fake", f"test ! -e /proc/self/fd/{write} || exit 4\n{says('u', 's')}")
        assert await asking(environment).ask() == Login("u", SecretStr("s"))
    finally:
        os.close(read)
        os.close(write)
