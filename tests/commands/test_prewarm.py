"""prewarm: a job that is begun, followed over broken connections, interrupted, ended."""

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mirror.commands import following
from mirror.commands.client import Client
from mirror.commands.following import follow
from mirror.commands.spelling import batches
from mirror.errors import CommandError, MirrorUnreachable
from tests.commands.support import (
    Answer,
    FakeMirror,
    Request,
    Terminal,
    command,
    complaints,
    drawn,
    event,
    lines,
    refusal,
    started,
)

A, B, C = "up/team/a:1.0", "up/team/b:1.0", "up/team/c:1.0"
SSE = "text/event-stream"
HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"
"""What takes the cursor from a terminal, and gives it back."""


def job(state: str = "running", total: int = 3, done: int = 0, **more: object) -> dict[str, object]:
    counts = {"held": 1, "fetched": done, "refused": 0, "failed": 0}
    fixed = {"id": "j1", "began_at": 0.0, "ended_at": None, "by": "the token", "pin": False, "counts": counts}
    return {**fixed, "state": state, "total": total, "done": done, **more}


def result(reference: str, word: str, **more: object) -> dict[str, object]:
    return {"reference": reference, "result": word, "digest": None, "why": None, "replica": None, **more}


RESULTS = [
    result(A, "held"),
    result(B, "fetched", bytes=1536, seconds=0.82),
    result(C, "fetched", bytes=512, seconds=1.0, replica="http://10.0.0.5:8080"),
]
EVENTS = [
    b"retry: 1000\n\n",
    event("result", RESULTS[0], 1),
    event("progress", {"reference": B, "replica": None, "bytes": 700, "total": 1536}),
    b": nothing new\n\n",
    event("result", RESULTS[1], 2),
    event("result", RESULTS[2], 3),
    event("end", job("done", done=3)),
]


def streaming(*pieces: bytes) -> Answer:
    return Answer(media_type=SSE, pieces=lambda request: iter(pieces))


@pytest.fixture
def fake() -> Iterator[FakeMirror]:
    with FakeMirror() as server:
        server.on("POST", "prewarm", Answer(job(), 202))
        server.on("GET", "prewarm/j1", Answer(job()))
        server.on("GET", "prewarm/j1/events", streaming(*EVENTS))
        yield server


def test_each_reference_has_a_line_as_soon_as_it_is_known(fake: FakeMirror) -> None:
    done = command("prewarm", "--mirror", fake.url, A, B, C)
    assert done.exit_code == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"held       {A}",
        f"fetched    {B}  1.5 KiB in 0.8 s",
        f"fetched    {C}  512 bytes in 1.0 s, at http://10.0.0.5:8080",
        "1 held, 2 fetched (2 KiB), at 2 replicas.",
    ]
    assert fake.requests[0].document == {"references": [A, B, C], "pin": False}


def test_what_was_asked_for_is_what_the_mirror_is_asked_for(fake: FakeMirror) -> None:
    options = ("--pin", "--parallel", "3", "--platform", "linux/arm64", "--platform", "linux/amd64")
    assert command("prewarm", "--mirror", fake.url, *options, f"oci://{fake.host}/{A}").exit_code == 0
    assert fake.requests[0].document == {
        **{"references": [A], "pin": True, "parallel": 3},
        "platforms": ["linux/arm64", "linux/amd64"],
    }


def test_a_program_gets_the_results_and_nothing_else(fake: FakeMirror) -> None:
    done = command("prewarm", "--mirror", fake.url, "--json", A, B, C)
    assert (done.exit_code, lines(done), done.stderr) == (0, RESULTS, "")


@pytest.mark.parametrize("word", ["refused", "failed", "unheard-of"])
def test_what_is_refused_or_fails_is_said_with_the_reason_and_status_1(fake: FakeMirror, word: str) -> None:
    bad = result(B, word, why="agents take only one layer")
    fake.on("GET", "prewarm/j1/events", streaming(EVENTS[1], event("result", bad, 2), event("end", job("done"))))
    done = command("prewarm", "--mirror", fake.url, A, B)
    assert done.exit_code == 1
    assert f"{word:<9}  {B}  agents take only one layer" in done.stdout


def test_a_connection_that_breaks_is_resumed_and_no_result_comes_twice(
    fake: FakeMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_PAUSES", (0.0,))

    def rest(request: Request) -> Answer:
        return streaming(*EVENTS[1 + int(request.headers.get("last-event-id", "0")) :])

    fake.on(
        *("GET", "prewarm/j1/events"),
        Answer(media_type=SSE, pieces=lambda request: iter(EVENTS[:2]), is_cut=True),
        refusal(503, "UNAVAILABLE", "it is about to stop"),
        Answer(b"<html>bad gateway", 502),
        streaming(b": nothing new\n\n"),
        rest,
    )
    done = command("prewarm", "--mirror", fake.url, "--json", A, B, C)
    assert (done.exit_code, lines(done)) == (0, RESULTS)
    seen = [request.headers.get("last-event-id") for request in fake.asked("GET", "prewarm/j1/events")]
    assert seen == [None, "1", "1", "1", "1"]


def test_a_mirror_that_stays_silent_is_given_up_and_the_job_is_named(
    fake: FakeMirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "_PAUSES", (0.0,))
    monkeypatch.setattr(following, "PATIENCE", 0.0)
    fake.on("GET", "prewarm/j1/events", Answer(media_type=SSE, pieces=lambda request: iter(EVENTS[:2]), is_cut=True))
    done = command("prewarm", "--mirror", fake.url, A, B, C)
    assert done.exit_code == 1
    assert f"held       {A}" in done.stdout
    assert complaints(done)[-1] == (
        "so far: 1 held; job j1 may go on there: `wasm-mirror prewarm --follow j1` shows it, "
        "`wasm-mirror prewarm --cancel j1` ends it"
    )


@pytest.mark.parametrize(("word", "paused"), [(EVENTS[1], [0.1, 0.1, 0.5]), (b": still there\n\n", [0.1, 0.5, 1.0])])
def test_silence_is_counted_from_the_last_word_on(fake: FakeMirror, word: bytes, paused: list[float]) -> None:
    fake.on("GET", "prewarm/j1/events", streaming(EVENTS[1]), streaming(word), streaming())
    now = 0.0
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        nonlocal now
        now += 40
        pauses.append(seconds)

    with Client(fake.url, None) as client, pytest.raises(MirrorUnreachable, match="before the job has ended"):
        list(follow(client, "j1", clock=lambda: now, pause=pause))
    assert pauses == paused


def test_what_is_no_event_of_a_mirror_is_said(fake: FakeMirror) -> None:
    for answer, words in (
        (streaming(b"data: {\n\n"), "an event that is no JSON object"),
        (streaming(event("end", {"id": "j1"})), "is not understood (job: state)"),
        (Answer({"jobs": []}), "no text/event-stream"),
        (refusal(401, "UNAUTHORIZED", "token"), "answered 401"),
    ):
        fake.on("GET", "prewarm/j1/events", answer)
        done = command("prewarm", "--mirror", fake.url, A)
        assert done.exit_code == 1
        assert words in complaints(done)[0]


@pytest.mark.integration
def test_ctrl_c_says_what_was_done_and_what_goes_on(fake: FakeMirror) -> None:
    hang = threading.Event()

    def pieces(request: Request) -> Iterator[bytes]:
        yield from EVENTS[:3]
        hang.wait(30)

    fake.on("GET", "prewarm/j1/events", Answer(media_type=SSE, pieces=pieces))
    process = started("prewarm", "--mirror", fake.url, A, B, C)
    assert process.stdout is not None
    first = process.stdout.readline()  # though it is a pipe: nobody waits for the end to see a line
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    hang.set()
    assert process.returncode == 130
    assert (first, stdout) == (f"held       {A}\n".encode(), b"")
    assert stderr.decode().strip().splitlines() == [
        "wasm-mirror: interrupted; so far: 1 held",
        f"wasm-mirror: job j1 goes on at {fake.url}: `wasm-mirror prewarm --follow j1` shows it, `wasm-mirror prewarm "
        "--cancel j1` ends it",
    ]
    assert fake.asked("DELETE", "prewarm/j1") == []


def test_a_terminal_shows_bars_for_what_is_under_way(fake: FakeMirror) -> None:
    evil = result("up/\x1b[2Jevil:1", "held")
    fake.on("GET", "prewarm/j1/events", streaming(*EVENTS[:2], event("result", evil, 2), *EVENTS[2:]))
    shown = drawn("prewarm", "--mirror", fake.url, A, B, C)
    assert shown.status == 0
    assert "1.5 KiB in 0.8 s" in shown.seen
    assert "2 held, 2 fetched (2 KiB), at 2 replicas." in shown.seen
    assert "\x1b[2J" not in shown.seen
    assert "up/\\x1b[2Jevil:1" in shown.seen
    assert shown.seen.count(HIDDEN) == shown.seen.count(SHOWN) == 1


def test_json_is_json_on_a_terminal_too(fake: FakeMirror) -> None:
    shown = drawn("prewarm", "--mirror", fake.url, "--json", A, B, C)
    assert (shown.status, [json.loads(line) for line in shown.seen.splitlines()]) == (0, RESULTS)


def test_ctrl_c_on_a_terminal_gives_it_back(fake: FakeMirror) -> None:
    hang = threading.Event()

    def pieces(request: Request) -> Iterator[bytes]:
        yield from EVENTS[:3]
        hang.wait(30)

    fake.on("GET", "prewarm/j1/events", Answer(media_type=SSE, pieces=pieces))
    with Terminal("prewarm", "--mirror", fake.url, A, B, C, columns=60) as terminal:
        terminal.until("700 bytes of 1.5 KiB")
        terminal.until("1 of 3; 1 held")
        terminal.interrupt()
        assert terminal.end() == 130
        assert "interrupted; so far: 1 held" in terminal.seen
        assert terminal.seen.count(HIDDEN) == terminal.seen.count(SHOWN) == 1
    hang.set()


def test_a_job_can_be_followed_and_cancelled_by_its_name(fake: FakeMirror) -> None:
    followed = command("prewarm", "--mirror", fake.url, "--json", "--follow", "j1")
    assert (followed.exit_code, lines(followed)) == (0, RESULTS)
    fake.on("DELETE", "prewarm/j1", Answer(job("cancelled", done=1)))
    cancelled = command("prewarm", "--mirror", fake.url, "--cancel", "j1")
    assert cancelled.stdout == "Job j1 is cancelled: 1 of 3 references done (1 held, 1 fetched).\n"
    fake.on("GET", "prewarm/j1/events", streaming(EVENTS[1], event("end", job("cancelled", done=1))))
    followed = command("prewarm", "--mirror", fake.url, "--follow", "j1")
    assert (followed.exit_code, complaints(followed)) == (1, ["job j1 was cancelled, with 1 of 3 references done"])
    fake.on("GET", "prewarm/j9", refusal(404, "UNKNOWN", "there is no job 'j9' (any more)"))
    absent = command("prewarm", "--mirror", fake.url, "--follow", "j9")
    assert (absent.exit_code, complaints(absent)) == (1, ["there is no job 'j9' (any more)"])


def test_jobs_are_listed(fake: FakeMirror) -> None:
    jobs = [job(), job("done", id="j0", done=3)]
    fake.on("GET", "prewarm", Answer({"jobs": jobs}))
    assert command("prewarm", "--mirror", fake.url, "--jobs").stdout.splitlines() == [
        "JOB  STATE    BEGAN                      DONE  RESULTS",
        "j1   running  1970-01-01 00:00:00 UTC  0 of 3  1 held",
        "j0   done     1970-01-01 00:00:00 UTC  3 of 3  1 held, 3 fetched",
    ]
    assert lines(command("prewarm", "--mirror", fake.url, "--jobs", "--json")) == jobs


def test_references_come_out_of_files_and_what_is_broken_is_said_and_the_rest_is_warmed(
    fake: FakeMirror, tmp_path: Path
) -> None:
    (tmp_path / "refs.txt").write_text(f"# ours\n{A}\noci://{B}\n")
    plugin = {"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "x"}}
    (tmp_path / "plugin.yaml").write_text(f"{ {**plugin, 'spec': {'url': 'oci://ghcr.io/team/c:1.0'}} }\n---\n{{: :\n")
    with (tmp_path / "big.yaml").open("wb") as big:
        big.truncate(1 << 30)
    names = [tmp_path / name for name in ("refs.txt", "plugin.yaml", "big.yaml", "nothing.yaml")]
    done = command("prewarm", "--mirror", fake.url, *(word for name in names for word in ("-f", name)))
    assert done.exit_code == 1
    references = fake.requests[0].document["references"]
    assert isinstance(references, list)
    assert [one.removeprefix("oci://") for one in references] == [A, B, "ghcr.io/team/c:1.0"]
    told = complaints(done)
    assert len(told) == 3, told
    for name, line in zip(("plugin.yaml", "big.yaml", "nothing.yaml"), told, strict=True):
        assert name in line
    assert "1 held, 2 fetched" in done.stdout
    in_json = lines(command("prewarm", "--mirror", fake.url, "--json", "-f", names[2], A))
    assert [line["result"] for line in in_json] == ["invalid", "held", "fetched", "fetched"]


def test_where_a_reference_stands_is_said_when_it_fails(fake: FakeMirror, tmp_path: Path) -> None:
    (tmp_path / "refs.txt").write_text(f"{A}\n# and\n{B}\n")
    bad = result(B, "failed", why="upstream is down")
    typed = result(C, "failed", why="so is this one")
    ends = [event("end", job("done"))]
    fake.on("GET", "prewarm/j1/events", streaming(EVENTS[1], event("result", bad, 2), event("result", typed, 3), *ends))
    done = command("prewarm", "--mirror", fake.url, "-f", tmp_path / "refs.txt", C)
    assert done.stdout.splitlines()[:3] == [
        f"held       {A}",
        f"failed     {B}  upstream is down [{tmp_path}/refs.txt:3]",
        f"failed     {C}  so is this one",
    ]
    found = lines(command("prewarm", "--mirror", fake.url, "--json", "-f", tmp_path / "refs.txt", C))
    assert [line.get("where") for line in found] == [f"{tmp_path}/refs.txt:1", f"{tmp_path}/refs.txt:3", None]


def test_references_come_from_standard_input(fake: FakeMirror) -> None:
    plugin = f"kind: WasmPlugin\napiVersion: extensions.istio.io/v1alpha1\nspec: {{url: 'oci://{fake.host}/{A}'}}\n"
    assert command("prewarm", "--mirror", fake.url, "-f", "-", stdin=plugin.encode()).exit_code == 0
    assert fake.requests[0].document["references"] == [A]


def test_what_is_no_reference_is_said_and_the_rest_is_warmed(fake: FakeMirror) -> None:
    done = command("prewarm", "--mirror", fake.url, "docker://x/y:1", A)
    assert done.exit_code == 1
    assert complaints(done) == ["docker://x/y:1 is no reference: it begins with its upstream, or with oci://"]
    assert fake.requests[0].document["references"] == [A]


def test_where_nothing_is_named_nothing_is_done(fake: FakeMirror, tmp_path: Path) -> None:
    done = command("prewarm", "--mirror", fake.url, "-f", tmp_path)
    assert (done.exit_code, done.stdout, fake.requests) == (0, "", [])
    assert "there is nothing to do" in done.stderr


def test_a_cluster_that_cannot_be_asked_is_said_and_the_rest_is_warmed(fake: FakeMirror, tmp_path: Path) -> None:
    done = command("prewarm", "--mirror", fake.url, "--cluster", "--kubeconfig", tmp_path / "nowhere", A, KUBECONFIG="")
    assert done.exit_code == 1
    assert len(complaints(done)) == 1
    assert fake.requests[0].document["references"] == [A]


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--pin"],
        ["--jobs", A],
        ["--follow", "j1", "--cancel", "j1"],
        ["-n", "team", A],
        ["--context", "x", "-f", "y"],
        ["--parallel", "0", A],
        ["--parallel", "x", A],
        ["--platform", "linux", A],
        ["--follow", "../pins"],
        ["--cancel", ""],
    ],
    ids=" ".join,
)
def test_wrong_use_is_said_before_anybody_is_asked(fake: FakeMirror, words: list[str]) -> None:
    done = command("prewarm", "--mirror", fake.url, *words)
    assert (done.exit_code, fake.requests) == (2, [])


def test_more_than_one_job_can_hold_becomes_several() -> None:
    names = [f"up/team/{number}:1" for number in range(25_000)]
    jobs = list(batches(names, 10_000))
    assert [name for job in jobs for name in job] == names
    assert [len(job) for job in jobs] == [10_000, 10_000, 5_000]
    long = [f"up/{'x' * 200}/{number}:1" for number in range(6_000)]
    assert [name for job in batches(long, 10_000) for name in job] == long
    assert len(list(batches(long, 10_000))) == 2
    assert list(batches([], 10_000)) == []


def test_what_was_not_begun_is_said(fake: FakeMirror, tmp_path: Path) -> None:
    (tmp_path / "refs.txt").write_text("".join(f"up/team/{number}:1\n" for number in range(10_002)))
    fake.on("POST", "prewarm", Answer(job(), 202), refusal(429, "TOOMANYREQUESTS", "too many jobs run"))
    done = command("prewarm", "--mirror", fake.url, "-f", tmp_path / "refs.txt")
    assert done.exit_code == 1
    assert complaints(done) == ["2 references were not asked for: they are for another job", "too many jobs run"]


@pytest.mark.integration
def test_a_reader_that_leaves_ends_it_without_a_word(fake: FakeMirror) -> None:
    go_on = threading.Event()

    def pieces(request: Request) -> Iterator[bytes]:
        yield from EVENTS[:2]
        go_on.wait(30)
        yield from EVENTS[4:]

    fake.on("GET", "prewarm/j1/events", Answer(media_type=SSE, pieces=pieces))
    process = started("prewarm", "--mirror", fake.url, A, B, C)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    go_on.set()
    assert process.stderr is not None
    with process:
        assert process.stderr.read() == b""
    assert process.returncode == 1


def test_the_client_says_what_a_caller_may_handle(fake: FakeMirror) -> None:
    with Client(fake.url, None) as client, pytest.raises(CommandError, match="has no /api/v1/nothing"):
        client.call("GET", "nothing")
