"""What a mirror says, and what is said when it does not."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import Result

from mirror.commands.client import Client
from mirror.digest import Digest
from mirror.errors import CommandError
from mirror.inspector.remote import Mirror, name_of
from tests.inspector.support import error, inspect, told
from tests.support.artifacts import cncf, compat, index, publish, raw
from tests.support.certificates import self_signed
from tests.support.faults import Fault
from tests.support.ports import ReservedPort
from tests.support.process import MirrorProcess, clean_environment
from tests.support.running import running
from tests.support.upstream import FaultyUpstream
from tests.wasm.modules import plugin

MODULE = plugin()
NAME = "team/plugin"
TOKEN = "correct-horse-battery-staple"
REFERENCE = "up/team/plugin:1.0"


@pytest.fixture
def up() -> Iterator[FaultyUpstream]:
    with FaultyUpstream() as server:
        yield server


@pytest.mark.integration
@pytest.mark.needs("openssl")
def test_the_program_asks_a_running_mirror_over_https(tmp_path: Path, up: FaultyUpstream) -> None:
    artifact = index(raw(MODULE))
    publish(up, NAME, "1.0", artifact)
    publish(up, NAME, "cncf", cncf(MODULE))
    shown = self_signed(tmp_path)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    settings = {
        "tls": {"certificate": str(shown.certificate), "key": str(shown.key)},
        "admin": {"token_file": str(tmp_path / "token")},
    }
    with MirrorProcess(tmp_path / "mirror", {"up": up.url}, settings) as mirror:
        environment = {
            **clean_environment(),
            "WASM_MIRROR_URL": mirror.url,
            "WASM_MIRROR_TOKEN_FILE": str(tmp_path / "token"),
            "SSL_CERT_FILE": str(shown.certificate),
        }
        command = [sys.executable, "-m", "mirror.cli", "inspect", REFERENCE, f"oci://{mirror.host}/up/{NAME}:cncf"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert (done.returncode, done.stderr) == (1, "")
    assert Digest.of(MODULE).hex in done.stdout
    assert str(artifact.digest) in done.stdout
    assert "1 accepted, 1 refused." in done.stdout
    assert "\x1b" not in done.stdout, "no colours where there is no terminal"


async def test_a_mirror_and_a_file_say_the_same_of_a_module(tmp_path: Path, up: FaultyUpstream) -> None:
    publish(up, NAME, "1.0", compat(MODULE))
    async with running(tmp_path, {"up": up}) as mirror:
        url = f"http://{mirror.host}"
        asked = [
            await asyncio.to_thread(told, "--mirror", url, reference)
            for reference in (
                REFERENCE,
                f"oci://{REFERENCE}",
                f"oci://{mirror.host}/{REFERENCE}",
                f"oci://wasm-mirror.istio-system:8080/{REFERENCE}",
                f"{url}/modules/{REFERENCE}.wasm",
                f"http://wasm-mirror.istio-system/modules/{REFERENCE}?sha256=0",
                f"up/{NAME}@{compat(MODULE).digest}",
            )
        ]
    (tmp_path / "plugin.wasm").write_bytes(MODULE)
    here = told(tmp_path / "plugin.wasm")
    assert all(one == asked[0] for one in asked)
    assert asked[0].module is not None
    assert here.module is not None
    assert asked[0].module.model_copy(update={"file": None, "layer": None}) == here.module.model_copy(
        update={"file": None, "layer": None}
    )


async def test_what_the_mirror_refuses_is_said_in_its_words(tmp_path: Path, up: FaultyUpstream) -> None:
    publish(up, NAME, "1.0", compat(MODULE))
    async with running(tmp_path, {"up": up}, {"defaults": {"hold_for": "1s"}}) as mirror:

        async def refused(reference: str) -> Result:
            return await asyncio.to_thread(inspect, "--mirror", f"http://{mirror.host}", reference)

        unknown = await refused("nowhere.example/team/plugin:1.0")
        aliasless = await refused("localhost:5000/team/plugin:1.0")
        fileless = await refused("plugin")
        missing = await refused(f"up/{NAME}:2.0")
        up.inject(Fault(flip_at=20), path="/manifests/3.0")
        publish(up, NAME, "3.0", raw(MODULE))
        wrong = await refused(f"up/{NAME}:3.0")
        up.refuse()
        down = await refused("up/other/plugin:1.0")
    assert [one.exit_code for one in (unknown, aliasless, fileless, missing, wrong, down)] == [2, 2, 2, 2, 1, 2]
    assert "no upstream 'nowhere.example' is configured; add it under `upstreams`" in error(unknown)
    assert "localhost:5000 was taken for the mirror's own address" in error(aliasless)
    assert error(fileless).endswith("(nor is there such a file or directory here)")
    assert error(missing).startswith(f"up/{NAME}:2.0: ")
    assert error(wrong).startswith(f"up/{NAME}:3.0: ")
    assert error(down).startswith("up/other/plugin:1.0: ")
    assert f"so says the mirror at http://{mirror.host}, where `wasm-mirror doctor` says more" in error(down)


async def test_a_token_that_is_missing_or_wrong_is_said_with_the_setting_and_never_shown(
    tmp_path: Path, up: FaultyUpstream
) -> None:
    publish(up, NAME, "1.0", compat(MODULE))
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    right.write_text(f"{TOKEN}\n")
    wrong.write_text("hunter2-hunter2-hunter2")
    async with running(tmp_path, {"up": up}, {"admin": {"token_file": str(right)}}) as mirror:

        async def asked(*options: str | Path, **environment: str) -> Result:
            words = (REFERENCE, "--mirror", f"http://{mirror.host}", *options)
            return await asyncio.to_thread(inspect, *words, **environment)

        accepted = [
            await asked("--token-file", right),
            await asked(WASM_MIRROR_TOKEN=TOKEN),
            await asked(WASM_MIRROR_TOKEN_FILE=str(right)),
            await asked(WASM_MIRROR_TOKEN=TOKEN, WASM_MIRROR_TOKEN_FILE=str(wrong)),
            await asked("--token-file", right, WASM_MIRROR_TOKEN="another-token-altogether"),
        ]
        missing, other = await asked(), await asked("--token-file", wrong)
    assert [one.exit_code for one in accepted] == [0] * len(accepted), accepted
    assert "hunter2" not in other.output
    assert (missing.exit_code, other.exit_code) == (2, 2)
    for result in (missing, other):
        assert "answered 401: " in error(result)
        assert "admin.token_file" in error(result)
        assert f"/modules/{REFERENCE}?info" in error(result), "where no token is asked for"
    assert "--token-file, WASM_MIRROR_TOKEN or WASM_MIRROR_TOKEN_FILE" in error(missing)
    assert "the one that was given here is another" in error(other)


def test_a_token_that_is_none_is_said_and_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "token"
    for content in (b"", b"hunter2 two words", b"hunter2\xff", b"hunter2\nx: y", b"hunter2" * 1000):
        file.write_bytes(content)
        for options, environment in (
            (("--token-file", file), {}),
            ((), {"WASM_MIRROR_TOKEN_FILE": str(file)}),
        ):
            result = inspect(REFERENCE, *options, **environment)
            assert result.exit_code == 2
            assert str(file) in error(result)
            assert "hunter2" not in result.output
    result = inspect(REFERENCE, WASM_MIRROR_TOKEN="hunter2 two words")
    assert error(result).startswith("WASM_MIRROR_TOKEN holds no token")
    assert "hunter2" not in result.output
    result = inspect(REFERENCE, "--token-file", tmp_path / "nothing")
    assert error(result) == f"--token-file {tmp_path / 'nothing'} cannot be read: No such file or directory"


def test_a_mirror_that_does_not_run_is_said(up: FaultyUpstream) -> None:
    with ReservedPort() as port:
        result = inspect("--mirror", f"http://127.0.0.1:{port.number}", REFERENCE)
    assert result.exit_code == 2
    assert error(result) == (
        f"no mirror answers at http://127.0.0.1:{port.number}: Connection refused; start it there (wasm-mirror "
        "serve), or name another address with --mirror (WASM_MIRROR_URL)"
    )


@pytest.mark.needs("openssl")
async def test_what_is_wrong_with_tls_is_said(tmp_path: Path, up: FaultyUpstream) -> None:
    with FaultyUpstream(tls=self_signed(tmp_path).for_servers) as secure:
        untrusted = await asyncio.to_thread(inspect, "--mirror", secure.url, REFERENCE)
        plain = await asyncio.to_thread(inspect, "--mirror", secure.url.replace("https", "http"), REFERENCE)
    async with running(tmp_path, {"up": up}) as mirror:
        secret = await asyncio.to_thread(inspect, "--mirror", f"https://{mirror.host}", REFERENCE)
    unreadable = inspect("--mirror", "https://127.0.0.1:1", REFERENCE, SSL_CERT_FILE=str(tmp_path / "nothing"))
    assert [one.exit_code for one in (untrusted, plain, secret, unreadable)] == [2, 2, 2, 2]
    assert "is not trusted: self-signed certificate; name its authority's PEM file in SSL_CERT_FILE" in error(untrusted)
    assert "is it https://?" in error(plain)
    assert "is it http://?" in error(secret)
    assert error(unreadable) == f"SSL_CERT_FILE: {tmp_path / 'nothing'} cannot be read: No such file or directory"


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8080", "ftp://x", "http://x/path", "http://anna:hunter2@x", "http://x:99999"]
)
def test_an_address_that_is_none_is_said(url: str) -> None:
    result = inspect("--mirror", url, REFERENCE)
    assert result.exit_code == 2
    assert error(result).startswith("--mirror (WASM_MIRROR_URL) must")
    assert "hunter2" not in result.output


DIGEST = f"sha256:{64 * '0'}"


@pytest.mark.parametrize(
    ("reference", "name", "host"),
    [
        ("ghcr.io/team/plugin:1.0", "ghcr.io/team/plugin:1.0", None),
        ("OCI://ghcr.io/team/plugin", "ghcr.io/team/plugin:latest", None),
        (f"ghcr.io/team/plugin:1.0@{DIGEST}", f"ghcr.io/team/plugin@{DIGEST}", None),
        ("plugin:1.0", "plugin:1.0", None),
        ("oci://mirror.example/ghcr.io/team/plugin:1.0", "ghcr.io/team/plugin:1.0", "mirror.example"),
        ("Mirror.Example/ghcr.io/team/plugin:1.0", "ghcr.io/team/plugin:1.0", "Mirror.Example"),
        ("oci://elsewhere:8080/ghcr.io/team/plugin:1.0", "ghcr.io/team/plugin:1.0", "elsewhere:8080"),
        ("[::1]:8080/ghcr.io/team/plugin:1.0", "ghcr.io/team/plugin:1.0", "[::1]:8080"),
        ("http://elsewhere/modules/ghcr.io/team/plugin:1.0.wasm?sha256=0", "ghcr.io/team/plugin:1.0", None),
        (f"https://elsewhere/modules/ghcr.io/plugin@{DIGEST}", f"ghcr.io/plugin@{DIGEST}", None),
    ],
)
def test_a_reference_is_one_whatever_the_host_before_it(reference: str, name: str, host: str | None) -> None:
    assert name_of(reference, "mirror.example") == (name, host)


@pytest.mark.parametrize(
    "reference",
    ["", "UP/plugin:1", "up/plugin:", "up/plugin@sha256:1", "up//plugin", "oci://", "docker://up/x", "http://x/y.wasm"],
)
def test_a_reference_that_is_none_is_said_without_asking(reference: str, up: FaultyUpstream) -> None:
    result = inspect("--mirror", up.url, reference)
    assert result.exit_code == 2
    assert error(result)
    assert up.count() == 0


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(html=True), "what is no JSON object; is it a wasm-mirror?"),
        (Fault(status=404), "has no /api/v1/modules"),
        (Fault(status=404, html=True), "has no /api/v1/modules"),
        (Fault(status=502, html=True), "answered 502, and not as a wasm-mirror does"),
        (Fault(redirect="http://127.0.0.1:1{path}"), "answered 307, and not as a wasm-mirror does"),
        (Fault(drop=True), "no mirror answers at"),
        (Fault(status=404, code="MANIFEST_UNKNOWN"), "up/team/plugin:1.0: the fake registry says so"),
    ],
    ids=["html", "none", "html 404", "html 502", "redirect", "drop", "unknown"],
)
def test_an_answer_that_is_no_description_is_said(up: FaultyUpstream, fault: Fault, words: str) -> None:
    up.inject(fault)
    result = inspect("--mirror", up.url, REFERENCE)
    assert result.exit_code == 2
    assert words in error(result)
    assert up.count() == 1


@pytest.mark.parametrize("fault", [Fault(hang=True), Fault(stall_after=3)], ids=["no answer", "half an answer"])
def test_a_mirror_that_does_not_answer_is_not_waited_for_without_end(up: FaultyUpstream, fault: Fault) -> None:
    up.inject(fault)
    with (
        pytest.raises(CommandError, match=r"did not answer within 0\.2 s; .*ask again"),
        Client(up.url, None, within=0.2) as client,
    ):
        Mirror(client).describe(REFERENCE)


def test_the_whole_answer_has_its_time_not_each_piece(up: FaultyUpstream) -> None:
    seconds = iter(range(0, 1000, 30))
    up.inject(Fault(html=True))
    with (
        pytest.raises(CommandError, match="did not answer within 20 s"),
        Client(up.url, None, within=20, clock=lambda: float(next(seconds))) as client,
    ):
        Mirror(client).describe(REFERENCE)


def test_an_answer_without_end_is_not_read(up: FaultyUpstream) -> None:
    up.inject(Fault(pad_to=1 << 30))
    with pytest.raises(CommandError, match="answered with more than 67,108,864 bytes"), Client(up.url, None) as client:
        Mirror(client).describe(REFERENCE)


def test_no_proxy_stands_between_this_machine_and_itself(up: FaultyUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    with ReservedPort() as port:
        for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{port.number}")
        with pytest.raises(CommandError, match="no such address"), Client(up.url, None) as client:
            Mirror(client).describe(REFERENCE)
    assert up.count() == 1


def test_the_token_and_nothing_else_goes_along(up: FaultyUpstream) -> None:
    for token in (TOKEN, None):
        with pytest.raises(CommandError), Client(up.url, token) as client:
            Mirror(client).describe(REFERENCE)
        (request,) = up.requests
        assert request.headers.get("authorization") == (f"Bearer {TOKEN}" if token else None)
        assert request.path == "/api/v1/modules/up/team/plugin:1.0"
        up.reset()
