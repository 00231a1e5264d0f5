"""refresh, pin, unpin, purge, gc, scrub: what is asked for, what is said of it, and with which status it ends."""

import signal
import threading
from collections.abc import Iterator

import pytest

from mirror.commands import sweeping
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
from tests.support.ports import ReservedPort

A, B = "up/team/a:1.0", "up/team/longer-name:2.0"
DIGEST = f"sha256:{'ab' * 32}"


@pytest.fixture
def fake() -> Iterator[FakeMirror]:
    with FakeMirror() as server:
        yield server


def told(*results: dict[str, object]) -> Answer:
    return Answer({"results": list(results)})


def one(reference: str, result: str, **more: object) -> dict[str, object]:
    return {"reference": reference, "result": result, **more}


def test_each_reference_has_a_line_with_what_became_of_it(fake: FakeMirror) -> None:
    fake.on(
        "POST", "refresh", told(one(A, "unchanged", digest=DIGEST), one(B, "moved", digest=DIGEST, replica="http://b"))
    )
    done = command("refresh", "--mirror", fake.url, A, f"oci://{B}")
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"unchanged  {A:<{len(B) + 6}}  {DIGEST}",
        f"moved      {B:<{len(B) + 6}}  {DIGEST}, at http://b",
        "1 unchanged, 1 moved, at 2 replicas.",
    ]
    assert [request.document for request in fake.requests] == [{"references": [A, f"oci://{B}"]}]


@pytest.mark.parametrize(
    ("name", "path", "good", "bad"),
    [
        ("refresh", "refresh", ["unchanged", "moved", "held", "fetched"], ["gone", "failed", "invalid", "unheard-of"]),
        ("pin", "pins", ["pinned", "already"], ["failed", "invalid"]),
        ("purge", "purge", ["purged"], ["absent", "pinned", "failed", "invalid"]),
    ],
)
def test_the_status_says_whether_all_was_done(
    fake: FakeMirror, name: str, path: str, good: list[str], bad: list[str]
) -> None:
    for result in good:
        fake.on("POST", path, told(one(A, result)))
        assert command(name, "--mirror", fake.url, A).exit_code == 0, result
    for result in bad:
        fake.on("POST", path, told(one(A, result, why="the reason"), one(B, good[0])))
        done = command(name, "--mirror", fake.url, A, B)
        assert done.exit_code == 1, result
        assert "the reason" in done.stdout
        assert f"{good[0]:<9}  {B}" in done.stdout, "the others are done all the same"


def test_a_program_gets_what_the_mirror_said_a_line_each(fake: FakeMirror) -> None:
    results = [one(A, "purged", bytes=5, later="field"), one(B, "absent", why="\x1b[31mnot here")]
    fake.on("POST", "purge", told(*results))
    done = command("purge", "--mirror", fake.url, "--json", A, B)
    assert (done.exit_code, lines(done), done.stderr) == (1, results, "")
    assert done.stdout.isascii()
    assert "\x1b" not in done.stdout


def test_words_of_strangers_steer_no_terminal(fake: FakeMirror) -> None:
    fake.on("POST", "pins", told(one("a\x1b[2J", "fail\x1bed", why="b\u202ec\nd", replica="\x9b")))
    done = command("pin", "--mirror", fake.url, A)
    assert done.stdout.splitlines() == ["fail\\x1bed  a\\x1b[2J       b\\u202ec\\nd, at \\x9b"]


def test_the_mirror_by_its_own_address_is_the_mirror(fake: FakeMirror) -> None:
    fake.on("POST", "pins", told(one(A, "pinned")))
    command("pin", "--mirror", fake.url, f"oci://{fake.host}/{A}", f"{fake.url}/modules/{A}.wasm", A, "x:5000/y:1")
    assert fake.requests[0].document == {"references": [A, "x:5000/y:1"]}


def test_what_is_no_reference_is_said_without_asking_and_the_others_are_done(fake: FakeMirror) -> None:
    fake.on("POST", "pins", told(one(A, "pinned")))
    fake.on("DELETE", f"pins/{A}", Answer({"reference": A}))
    bad = ["docker://x/y:1", "", "x" * 5000]
    for name in ("pin", "unpin"):
        done = command(name, "--mirror", fake.url, bad[0], A, *bad[1:])
        assert done.exit_code == 1
        table = done.stdout.splitlines()
        assert [line.split()[0] for line in table] == ["invalid", "invalid", "invalid", f"{name}ned", "3"]
        assert table[0].endswith("docker://x/y:1 is no reference: it begins with its upstream, or with oci://")
    assert len(fake.requests) == 2
    export = command("export", "--mirror", fake.url, "-o", "-", *bad, A)
    assert (export.exit_code, len(complaints(export)), len(fake.requests)) == (2, 3, 2)


def test_many_references_are_asked_for_in_batches(fake: FakeMirror) -> None:
    def answer(request: Request) -> Answer:
        references = request.document["references"]
        assert isinstance(references, list)
        return told(*(one(name, "pinned") for name in references))

    fake.on("POST", "pins", answer)
    names = [f"up/team/{number}:1" for number in range(45)]
    done = command("pin", "--mirror", fake.url, "--json", *names)
    assert [line["reference"] for line in lines(done)] == names
    assert len(fake.requests) == 3


def test_a_mirror_that_goes_away_leaves_what_was_done_said(fake: FakeMirror) -> None:
    names = [f"up/team/{number}:1" for number in range(25)]
    done_first = told(*(one(name, "pinned") for name in names[:20]))
    fake.on("POST", "pins", done_first, Answer(pieces=lambda request: iter([b'{"resu']), is_cut=True))
    done = command("pin", "--mirror", fake.url, *names)
    assert done.exit_code == 1
    assert len(done.stdout.splitlines()) == 20
    assert complaints(done)[-1] == "of 25 references 20 are answered for: 20 pinned"


def test_a_name_that_is_not_pinned_is_one_clear_line_and_the_others_are_unpinned(fake: FakeMirror) -> None:
    fake.on("DELETE", f"pins/{A}", refusal(404, "NAME_UNKNOWN", f"{A} is not pinned"))
    fake.on("DELETE", f"pins/{B}", Answer({"reference": B}))
    fake.on("DELETE", "pins/a?b#c", refusal(400, "NAME_INVALID", "it is no name"))
    done = command("unpin", "--mirror", fake.url, A, B, "a?b#c")
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        f"failed     {A:<{len(B)}}  {A} is not pinned",
        f"unpinned   {B}",
        f"failed     {'a?b#c':<{len(B)}}  it is no name",
        "2 failed, 1 unpinned.",
    ]
    assert command("unpin", "--mirror", fake.url, B).exit_code == 0


def test_what_stands_against_all_is_said_once(fake: FakeMirror) -> None:
    for answer, words in (
        (refusal(401, "UNAUTHORIZED", "it asks for the token in admin.token_file"), "--token-file, WASM_MIRROR_TOKEN"),
        (refusal(404, "UNKNOWN", "there is nothing at this address"), "has no /api/v1/pins for DELETE"),
        (refusal(405, "UNSUPPORTED", "by GET and HEAD"), "one of an older release"),
        (Answer(b"<html>", 502), "answered 502, and not as a wasm-mirror does"),
        (Answer(b"{", 200), "what is no JSON object; is it a wasm-mirror?"),
        (Answer([], 200), "what is no JSON object; is it a wasm-mirror?"),
    ):
        fake.on("DELETE", f"pins/{A}", answer)
        done = command("unpin", "--mirror", fake.url, A, B)
        assert (done.exit_code, done.stdout) == (1, "")
        (complaint,) = complaints(done)
        assert words in complaint


def test_a_token_that_is_wrong_is_said(fake: FakeMirror) -> None:
    fake.on("POST", "gc", refusal(401, "UNAUTHORIZED", "it asks for the token in admin.token_file"))
    done = command("gc", WASM_MIRROR_URL=fake.url, WASM_MIRROR_TOKEN="hunter2")
    assert complaints(done) == [
        f"{fake.url} answered 401: it asks for the token in admin.token_file (the one that was given here is another)"
    ]
    assert fake.requests[0].headers["authorization"] == "Bearer hunter2"


def test_an_answer_of_another_shape_is_said(fake: FakeMirror) -> None:
    fake.on("POST", "refresh", Answer({"result": []}))
    assert "has no list of results; is it a wasm-mirror" in complaints(command("refresh", "--mirror", fake.url, A))[0]
    fake.on("POST", "refresh", told({"reference": 5, "result": "moved"}))
    assert "is not understood (result: reference)" in complaints(command("refresh", "--mirror", fake.url, A))[0]


def test_wrong_use_is_status_2(fake: FakeMirror) -> None:
    with ReservedPort() as port:
        nobody = command("gc", "--mirror", f"http://127.0.0.1:{port.number}")
    assert (nobody.exit_code, len(complaints(nobody))) == (1, 1)
    assert "name another address with --mirror (WASM_MIRROR_URL)" in complaints(nobody)[0]
    assert command("gc", "--mirror", "no url").exit_code == 2
    assert command("gc", "--mirror", fake.url, "--token-file", "/nowhere").exit_code == 2
    assert command("pin", "--mirror", fake.url).exit_code == 2
    assert command("pins").exit_code == 2


def test_what_gc_made_go_is_said(fake: FakeMirror) -> None:
    swept = {"blobs": 3, "bytes": 12 * 1024**2, "uploads": 1, "records": 0}
    fake.on("POST", "gc", Answer(swept))
    assert command("gc", "--mirror", fake.url).stdout == "3 blobs (12 MiB), 1 upload and 0 records went.\n"
    assert lines(command("gc", "--mirror", fake.url, "--json")) == [swept]


def state(kind: str, **more: object) -> Answer:
    found: dict[str, object] = {
        "began_at": 100.0,
        "ended_at": None,
        "blobs": 4,
        "read": 0,
        "bytes_read": 0,
        "damaged": [],
        "restored": 0,
    }
    return Answer({"state": kind, **found, "missing": [], **more})


def test_a_scrub_is_followed_to_its_end(fake: FakeMirror, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeping, "LOOK_EVERY", 0.0)
    end = state(
        "idle", ended_at=103.5, read=4, bytes_read=2048, damaged=[DIGEST, "sha256:b"], restored=1, missing=["sha256:b"]
    )
    fake.on("POST", "scrub", state("running"))
    fake.on("GET", "scrub", state("running", read=2), Answer(pieces=lambda request: iter([]), is_cut=True), end)
    done = command("scrub", "--mirror", fake.url)
    assert done.exit_code == 1
    assert done.stdout.splitlines() == [
        f"damaged  {DIGEST}",
        "damaged  sha256:b",
        "missing  sha256:b",
        "4 blobs (2 KiB) read in 3.5 s: 2 damaged, 1 restored, 1 out of service, for nobody has them.",
    ]
    fake.on("GET", "scrub", state("idle", ended_at=103.5, read=4))
    done = command("scrub", "--mirror", fake.url, "--json")
    assert (done.exit_code, [line["state"] for line in lines(done)]) == (0, ["idle"])


def test_a_scrub_need_not_be_waited_for(fake: FakeMirror) -> None:
    fake.on("POST", "scrub", state("running"))
    done = command("scrub", "--mirror", fake.url, "--no-wait")
    assert (done.exit_code, done.stdout) == (0, "Reading 4 blobs.\n")
    assert fake.asked("GET", "scrub") == []


@pytest.mark.integration
def test_ctrl_c_ends_the_command_and_not_the_scrub(fake: FakeMirror) -> None:
    fake.on("POST", "scrub", state("running"))
    fake.on("GET", "scrub", state("running", read=2, bytes_read=1024))
    with Terminal("scrub", "--mirror", fake.url) as terminal:
        terminal.until("1 KiB, 0 damaged")
        terminal.interrupt()
        assert terminal.end() == 130
        assert f"interrupted; the mirror at {fake.url} goes on reading" in terminal.seen


@pytest.mark.integration
def test_ctrl_c_in_the_middle_says_what_was_done(fake: FakeMirror) -> None:
    arrived, leave = threading.Event(), threading.Event()

    def hang(request: Request) -> Answer:
        arrived.set()
        leave.wait(30)
        return told()

    names = [f"up/team/{number}:1" for number in range(25)]
    fake.on("POST", "pins", told(*(one(name, "pinned") for name in names[:20])), hang)
    process = started("pin", "--mirror", fake.url, *names)
    assert arrived.wait(30)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=30)
    leave.set()
    assert process.returncode == 130
    assert b"interrupted; of 25 references 20 are answered for: 20 pinned" in stderr


def test_colours_are_for_terminals_and_not_when_they_are_unwanted(fake: FakeMirror) -> None:
    fake.on("POST", "pins", told(one(A, "pinned"), one(B, "failed", why="no")))
    for name, value, coloured in (("TERM", "xterm", True), ("NO_COLOR", "1", False), ("TERM", "dumb", False)):
        shown = drawn("pin", "--mirror", fake.url, A, B, environment={name: value})
        assert shown.status == 1
        assert A in shown.seen
        assert ("\x1b[32m" in shown.seen) is coloured, shown.seen
