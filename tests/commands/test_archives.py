"""export and import: archives that are whole or not there, and what becomes of each of several."""

import os
import signal
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.support import (
    Answer,
    FakeMirror,
    Request,
    Terminal,
    command,
    complaints,
    drawn,
    lines,
    refusal,
    started,
)

A, B = "up/team/a:1.0", "up/team/b:1.0"
TAR = "application/x-tar"
PIECES = [b"x" * 5000, b"y" * 70_000]
CONTENT = b"".join(PIECES)


@pytest.fixture
def fake() -> Iterator[FakeMirror]:
    with FakeMirror() as server:
        server.on("GET", "export", Answer(media_type=TAR, pieces=lambda request: iter(PIECES)))
        server.on("POST", "import", Answer({"results": [imported(A)], "ignored": []}))
        yield server


def imported(reference: str, result: str = "imported", **more: object) -> dict[str, object]:
    return {"reference": reference, "result": result, "bytes": 1024, **more}


def test_an_archive_gets_its_name_once_it_is_whole(fake: FakeMirror, tmp_path: Path) -> None:
    target = tmp_path / "plugins.tar"
    target.write_bytes(b"an older one")
    done = command(
        "export", "--mirror", fake.url, "-o", target, "--platform", "linux/arm64", f"oci://{fake.host}/{A}", B
    )
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == f"{target}: 2 references, 73.2 KiB.\n"
    assert target.read_bytes() == CONTENT
    assert [file.name for file in tmp_path.iterdir()] == ["plugins.tar"]
    assert fake.requests[0].query == [("reference", A), ("reference", B), ("platforms", "linux/arm64")]
    mask = os.umask(0o022)
    os.umask(mask)
    assert stat.S_IMODE(target.stat().st_mode) == 0o666 & ~mask
    found = lines(command("export", "--mirror", fake.url, "-o", target, "--json", "--referrers", A))
    assert found == [{"file": str(target), "bytes": len(CONTENT), "references": [A]}]
    assert ("referrers", "true") in fake.requests[1].query


@pytest.mark.parametrize("is_begun", [True, False])
def test_half_an_archive_is_never_left(fake: FakeMirror, tmp_path: Path, is_begun: bool) -> None:
    target = tmp_path / "plugins.tar"
    target.write_bytes(b"an older one")
    pieces = PIECES[:1] if is_begun else []
    fake.on("GET", "export", Answer(media_type=TAR, pieces=lambda request: iter(pieces), is_cut=True))
    done = command("export", "--mirror", fake.url, "-o", target, A)
    assert (done.exit_code, done.stdout, len(complaints(done))) == (1, "", 1)
    assert "broke off its answer" in complaints(done)[0]
    assert target.read_bytes() == b"an older one"
    assert [file.name for file in tmp_path.iterdir()] == ["plugins.tar"]


@pytest.mark.integration
def test_ctrl_c_leaves_no_archive(fake: FakeMirror, tmp_path: Path) -> None:
    sent, hang = threading.Event(), threading.Event()

    def pieces(request: Request) -> Iterator[bytes]:
        yield PIECES[0]
        sent.set()
        hang.wait(30)

    fake.on("GET", "export", Answer(media_type=TAR, pieces=pieces))
    with Terminal("export", "--mirror", fake.url, "-o", tmp_path / "plugins.tar", A) as terminal:
        assert sent.wait(30)
        terminal.until("4.9 KiB")
        terminal.interrupt()
        assert terminal.end() == 130
        assert "interrupted; nothing is written" in terminal.seen
    hang.set()
    assert list(tmp_path.iterdir()) == []


def test_an_archive_goes_to_standard_output_alone(fake: FakeMirror) -> None:
    done = command("export", "--mirror", fake.url, "-o", "-", A)
    assert (done.exit_code, done.stdout_bytes, done.stderr) == (0, CONTENT, "")


def test_no_archive_is_written_to_a_terminal(fake: FakeMirror) -> None:
    shown = drawn("export", "--mirror", fake.url, "-o", "-", A)
    assert shown.status == 2
    assert "an archive is nothing for a terminal: name a file with -o" in shown.seen
    assert fake.requests == []


def test_every_reference_that_stands_against_an_archive_is_named(fake: FakeMirror, tmp_path: Path) -> None:
    detail = [
        {"reference": A, "code": "MANIFEST_UNKNOWN", "why": "no such tag"},
        {"reference": B, "why": "upstream is down"},
    ]
    fake.on("GET", "export", refusal(404, "MANIFEST_UNKNOWN", "2 references cannot be exported", detail))
    done = command("export", "--mirror", fake.url, "-o", tmp_path / "x.tar", A, B)
    assert done.exit_code == 1
    assert complaints(done) == [f"{A}: no such tag", f"{B}: upstream is down", "nothing is exported"]
    assert list(tmp_path.iterdir()) == []
    fake.on("GET", "export", refusal(400, "NAME_INVALID", "it is no name"))
    assert complaints(command("export", "--mirror", fake.url, "-o", tmp_path / "x.tar", A)) == ["it is no name"]


def test_where_an_archive_cannot_be_written_is_said(fake: FakeMirror, tmp_path: Path) -> None:
    for target in (tmp_path, tmp_path / "nowhere" / "x.tar"):
        done = command("export", "--mirror", fake.url, "-o", target, A)
        assert done.exit_code == 2
        assert complaints(done)[0].startswith(f"{target} cannot be written: ")
    many = [f"up/team/{'x' * 200}{number}:1" for number in range(400)]
    assert (
        "write several archives" in complaints(command("export", "--mirror", fake.url, "-o", tmp_path / "x", *many))[0]
    )


def test_a_full_disk_is_said_and_a_device_stays_one(fake: FakeMirror, tmp_path: Path) -> None:
    done = command("export", "--mirror", fake.url, "-o", "/dev/full", A)
    assert (done.exit_code, complaints(done)) == (1, ["/dev/full cannot be written: No space left on device"])
    assert command("export", "--mirror", fake.url, "-o", "/dev/null", A).exit_code == 0
    assert Path("/dev/null").is_char_device()
    (tmp_path / "link.tar").symlink_to(tmp_path / "plugins.tar")
    assert command("export", "--mirror", fake.url, "-o", tmp_path / "link.tar", A).exit_code == 0
    assert (tmp_path / "link.tar").is_symlink()
    assert (tmp_path / "plugins.tar").read_bytes() == CONTENT


@pytest.mark.integration
def test_a_pipe_that_is_closed_ends_an_export_without_a_word(fake: FakeMirror) -> None:
    fake.on("GET", "export", Answer(media_type=TAR, pieces=lambda request: iter([b"x" * 65536] * 64)))
    process = started("export", "--mirror", fake.url, "-o", "-", A)
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.read(10) == b"x" * 10
    process.stdout.close()
    with process:
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_each_archive_is_taken_in_and_one_that_fails_keeps_none_of_the_others(fake: FakeMirror, tmp_path: Path) -> None:
    first, second, third = (tmp_path / name for name in ("first.tar", "second.tar", "third.tar"))
    for file in (first, third):
        file.write_bytes(CONTENT)
    bad = refusal(400, "ARCHIVE_INVALID", "it holds a link, x")
    results = [imported(A), imported(B, "invalid", bytes=None, why="the digest lies")]
    fake.on("POST", "import", bad, Answer({"results": results, "ignored": []}))
    done = command("import", "--mirror", fake.url, "--pin", "--as", "up/team", first, second, third)
    assert done.exit_code == 1
    assert complaints(done) == [
        f"{first}: it holds a link, x",
        f"{second} cannot be read: No such file or directory",
    ]
    assert done.stdout.splitlines() == [
        f"imported   {A}  1 KiB",
        f"invalid    {B}  the digest lies",
        "1 imported, 1 invalid (1 KiB); 2 archives failed.",
    ]
    for request in fake.requests:
        assert request.query == [("pin", "1"), ("as", "up/team")]
        assert request.headers["content-type"] == TAR
        assert request.headers["content-length"] == str(len(CONTENT))
        assert request.body == CONTENT


def test_an_archive_comes_from_standard_input(fake: FakeMirror) -> None:
    done = command("import", "--mirror", fake.url, "--json", "-", stdin=CONTENT)
    assert (done.exit_code, done.stderr) == (0, "")
    assert fake.requests[0].body == CONTENT
    assert fake.requests[0].headers["transfer-encoding"] == "chunked"
    assert lines(done) == [imported(A)]


def test_nobody_types_an_archive(fake: FakeMirror) -> None:
    shown = drawn("import", "--mirror", fake.url, "-")
    assert shown.status == 1
    assert "an archive is nothing to type" in shown.seen


def test_a_folder_is_no_archive(fake: FakeMirror, tmp_path: Path) -> None:
    done = command("import", "--mirror", fake.url, tmp_path)
    assert (done.exit_code, complaints(done)) == (1, [f"{tmp_path} cannot be read: Is a directory"])


@pytest.mark.integration
def test_ctrl_c_in_an_import_says_what_was_taken_in(fake: FakeMirror, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("first.tar", "second.tar", "third.tar")]
    for file in files:
        file.write_bytes(CONTENT)
    arrived, leave = threading.Event(), threading.Event()

    def hang(request: Request) -> Answer:
        arrived.set()
        leave.wait(30)
        return refusal(500, "UNKNOWN", "")

    fake.on("POST", "import", Answer({"results": [imported(A)]}), hang)
    process = started("import", "--mirror", fake.url, *files)
    assert arrived.wait(30)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    leave.set()
    assert process.returncode == 130
    assert f"interrupted; so far: 1 imported (1 KiB); not taken in: {files[1]}, {files[2]}" in stderr.decode()


def test_a_terminal_sees_how_far_an_import_is(fake: FakeMirror, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(CONTENT)
    shown = drawn("import", "--mirror", fake.url, tmp_path / "x.tar")
    assert shown.status == 0
    assert "x.tar" in shown.seen
    assert "73.2 KiB; the mirror looks at it" in shown.seen
    assert f"{A}  1 KiB" in shown.seen
