"""The first minute of a new user: what is not given is supplied or asked for, what is wrong is said with what to do."""

import errno
import socket
from pathlib import Path

import httpx
import pytest
import yaml

from mirror.commands.greeting import greeting, reached
from mirror.commands.group import SECTIONS
from mirror.config.known import PUBLIC
from mirror.config.models import Settings
from mirror.errors import StartError
from mirror.listening import bind
from mirror.occupants import occupant
from tests.commands.support import ROOT, Terminal, command, complaints
from tests.support.ports import ReservedPort

LEAST = "upstreams: {ghcr.io: {}}\n"


def settings(folder: Path, text: str = LEAST, name: str = "settings.yaml") -> Path:
    """A file of settings."""
    file = folder / name
    file.write_text(text)
    return file


def said(*words: str | Path, **environment: str) -> str:
    """What a command that cannot be done says, with status 2, in lines that all bear its name."""
    result = command(*words, stdin=None, **environment)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    return "\n".join(complaints(result))


# Wrong use.


def test_without_arguments_it_says_what_to_do_first() -> None:
    result = command()
    assert result.exit_code == 2
    assert "wasm-mirror serve " in result.output
    assert "wasm-mirror COMMAND --help" in result.output
    assert all(len(line) <= 80 for line in result.output.splitlines())


def test_help_lists_every_command_once_by_what_it_is_for() -> None:
    listed = [name for names in SECTIONS.values() for name in names]
    output = command("--help").output
    for name in listed:
        assert output.count(f"\n  {name} ") == 1, name
    assert "Others:" not in output
    assert "..." not in output.partition("\n")[2], "a purpose that is cut short"


def test_each_command_has_its_purpose_examples_and_where_settings_come_from() -> None:
    for name in (name for names in SECTIONS.values() for name in names):
        output = command(name, "--help").output
        assert f"wasm-mirror {name}" in output.partition("Example")[2], name
        if "--config" in output:
            assert "WASM_MIRROR_CONFIG" in output, name
        elif name != "completion":
            assert "WASM_MIRROR_URL" in output, name
            assert "WASM_MIRROR_TOKEN_FILE" in output, name


@pytest.mark.parametrize(
    ("words", "meant"),
    [(["prewam"], "prewarm"), (["chekc-config"], "check-config"), (["ls", "--srot", "size"], "--sort")],
)
def test_what_is_misspelt_is_answered_with_what_was_meant(words: list[str], meant: str) -> None:
    result = command(*words)
    assert result.exit_code == 2
    assert "id you mean" in result.stderr
    assert meant in result.stderr
    assert "--help" in result.stderr


# Settings.


def test_without_a_file_this_machine_alone_is_served_with_the_public_registries() -> None:
    shown = yaml.safe_load(command("check-config").stdout)
    assert shown["listen"] == "127.0.0.1:8080"
    assert tuple(shown["upstreams"]) == PUBLIC


def test_without_a_file_nothing_public_is_served_to_others() -> None:
    words = said("check-config", WASM_MIRROR_LISTEN="0.0.0.0:8080")
    assert "upstreams: must name" in words
    assert "--config" in words
    alone = command("check-config", WASM_MIRROR_UPSTREAMS='{"quay.io": {}}')
    assert list(yaml.safe_load(alone.stdout)["upstreams"]) == ["quay.io"]


def test_a_file_without_upstreams_gets_none_that_it_did_not_name(tmp_path: Path) -> None:
    words = said("check-config", "--config", settings(tmp_path, ""))
    assert "settings.yaml: upstreams: must name" in words
    assert "`upstreams: {ghcr.io: {}}`" in words


def test_what_serves_without_a_file_is_what_make_run_serves() -> None:
    example = yaml.safe_load((ROOT / "config" / "wasm-mirror.yaml").read_text())
    assert tuple(example["upstreams"]) == PUBLIC
    assert Settings.model_fields["data_dir"].get_default() == Path(example["data_dir"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("upstreams: {\n", ["settings.yaml:2: is not valid YAML"]),
        (f"{LEAST}listn: 127.0.0.1:1\n", ["settings.yaml:2: listn: unknown key", "did you mean listen?"]),
        (f"{LEAST}listen: 8080\n", ["settings.yaml:2: listen: must be HOST:PORT such as 127.0.0.1:8080"]),
        (f"{LEAST}workers: 0\nlog: {{level: loud}}\n", ["settings.yaml:2: workers", "settings.yaml:3: log.level"]),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_line(tmp_path: Path, text: str, words: list[str]) -> None:
    found = said("serve", "--config", settings(tmp_path, text))
    assert [one for one in words if one not in found] == [], found


def test_a_file_that_is_not_there_and_a_folder_lead_to_one_that_is(tmp_path: Path) -> None:
    settings(tmp_path, name="wasm-mirror.yaml")
    for wrong in (tmp_path / "wasm-miror.yaml", tmp_path):
        words = said("serve", "--config", wrong)
        assert "--config" in words
        assert f"did you mean {tmp_path / 'wasm-mirror.yaml'}?" in words


# Where it listens, and where its data lies.


def refusal(listen: str) -> str:
    """Why nothing can listen there."""
    with pytest.raises(StartError) as refused:
        bind(Settings(listen=listen, upstreams={"ghcr.io": {}}))
    assert "set `listen` (or --listen, WASM_MIRROR_LISTEN)" in str(refused.value)
    return str(refused.value)


def test_of_a_port_in_use_it_is_said_by_whom_and_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        found = occupant(port)
        assert found is not None
        assert found.startswith("python")
        assert refusal(f"127.0.0.1:{port}").startswith(f"127.0.0.1:{port} is in use by {found}; stop it")
    with ReservedPort() as free:
        assert occupant(free.number) is None


def test_where_nobody_knows_who_has_a_port_it_is_another_program(tmp_path: Path) -> None:
    assert occupant(1, tmp_path) is None
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text("head\n 0: 0100007F:0001 00000000:0000 0A 0:0 00:0 0 0 0 4711 1\n")
    assert occupant(1, tmp_path) is None
    fds = tmp_path / "12" / "fd"
    fds.mkdir(parents=True)
    (fds / "3").symlink_to("socket:[4711]")
    (tmp_path / "12" / "cmdline").write_bytes(b"/usr/bin/python3\0/opt/venv/bin/wasm-mirror\0serve\0")
    assert occupant(1, tmp_path) == "another wasm-mirror (process 12)"
    assert occupant(2, tmp_path) is None


def test_an_address_of_another_machine_is_said_to_be_one() -> None:
    words = refusal("192.0.2.1:8080")
    assert "no address of this machine" in words
    assert "0.0.0.0" in words


def test_a_port_for_administrators_alone_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(socket.socket, "bind", denied)
    assert "a port above 1023" in refusal("127.0.0.1:80")


def test_a_data_dir_that_cannot_be_used_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    words = said("serve", "--listen", "127.0.0.1:0", "--data-dir", tmp_path / "file")
    assert f"data_dir {tmp_path / 'file'} cannot be used: it is no directory" in words
    words = said("serve", "--listen", "127.0.0.1:0", "--data-dir", "/proc/nowhere")
    assert "data_dir /proc/nowhere cannot be used" in words
    assert "choose another data_dir" in words


# Commands without a mirror.


def test_without_a_mirror_a_command_says_which_was_asked_and_how_to_name_another() -> None:
    with ReservedPort() as free:
        url = f"http://127.0.0.1:{free.number}"
        result = command("ls", "--mirror", url)
        health = command("health", WASM_MIRROR_LISTEN=f"127.0.0.1:{free.number}")
    assert result.exit_code == 1
    (words,) = complaints(result)
    assert all(
        part in words for part in (url, "Connection refused", "wasm-mirror serve", "--mirror", "WASM_MIRROR_URL")
    )
    assert health.exit_code == 1
    assert complaints(health) == [f"127.0.0.1:{free.number} does not answer: Connection refused"]


# A mirror that has just been started.


@pytest.mark.integration
def test_a_mirror_at_a_terminal_says_what_to_do_next_and_good_bye(tmp_path: Path) -> None:
    file = settings(tmp_path, f"{LEAST}drain_for: 0s\ndata_dir: {tmp_path / 'data'}\nlisten: 127.0.0.1:0\n")
    with Terminal("serve", "--config", file) as terminal:
        terminal.until("Ctrl-C")
        seen = terminal.seen
        url = seen.partition(" serves ghcr.io at ")[2].partition(";")[0]
        assert httpx.get(f"{url}/readyz", trust_env=False).status_code == 200
        assert f"data in {tmp_path / 'data'}" in seen
        assert f"curl -sI {url}/v2/ghcr.io/" in seen
        assert f"{url}/\r" in seen, "the dashboard"
        terminal.interrupt()
        assert terminal.end() == 0
        assert "stopping" in terminal.seen.removeprefix(seen)
        assert terminal.seen.splitlines()[-1].endswith(" stopped")


def test_what_to_do_next_can_be_done_as_it_stands() -> None:
    first, second, third, _ = greeting("http://0.0.0.0:8080", "http://127.0.0.1:9090", ["ghcr.io", "corp"])
    assert first.endswith(" http://127.0.0.1:9090/")
    assert "http://127.0.0.1:8080/v2/ghcr.io/istio-ecosystem/wasm-extensions/basic_auth/manifests/1.12.0" in second
    assert third.endswith(" oci://127.0.0.1:8080/ghcr.io/istio-ecosystem/wasm-extensions/basic_auth:1.12.0")
    assert " oci://10.0.0.5:80/corp/REPOSITORY:TAG" in [*greeting("http://10.0.0.5:80", "", ["corp"])][2]
    assert reached("https://[::]:443") == "https://[::1]:443"
