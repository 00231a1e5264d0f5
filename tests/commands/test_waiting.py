"""A mirror that is not up yet is asked again, for as long as one says and no longer."""

from collections.abc import Callable

import pytest

from mirror.commands.waiting import until_up
from mirror.errors import CommandError, MirrorRefused, MirrorUnreachable
from tests.commands.support import Answer, FakeMirror, command, complaints, event, refusal
from tests.support.ports import ReservedPort

DOWN = MirrorUnreachable("no mirror answers there")
JOB: dict[str, object] = {
    **{"id": "j1", "began_at": 0.0, "ended_at": None, "by": "the token", "pin": False, "total": 1, "done": 1},
    **{"state": "done", "counts": {"held": 1, "fetched": 0, "refused": 0, "failed": 0}},
}


def answered(status: int) -> MirrorRefused:
    return MirrorRefused("it says so", answered=status, said=None)


class Clock:
    """Time that passes while one pauses."""

    def __init__(self) -> None:
        self.now = 0.0
        self.notes: list[str] = []

    def ask(self, *answers: CommandError | str) -> Callable[[], str]:
        left = list(answers)

        def asked() -> str:
            answer = left.pop(0) if len(left) > 1 else left[0]
            if isinstance(answer, CommandError):
                raise answer
            return answer

        return asked

    def wait(self, within: float, *answers: CommandError | str) -> str:
        return until_up(self.ask(*answers), within, self.notes.append, clock=lambda: self.now, pause=self._pause)

    def _pause(self, seconds: float) -> None:
        assert seconds > 0
        self.now += seconds


def test_it_is_asked_again_until_it_answers_and_that_is_said_once() -> None:
    clock = Clock()
    assert clock.wait(60, DOWN, DOWN, answered(503), answered(502), answered(504), "up") == "up"
    assert clock.notes == ["no mirror answers there; it is asked again, for up to 60 s"]
    assert clock.now < 10


def test_it_is_given_up_when_the_time_is_over_with_what_was_wrong_last() -> None:
    clock = Clock()
    with pytest.raises(MirrorRefused, match="it says so"):
        clock.wait(60, DOWN, answered(503))
    assert clock.now == pytest.approx(60)


def test_without_a_time_to_wait_it_is_asked_once() -> None:
    clock = Clock()
    with pytest.raises(MirrorUnreachable):
        clock.wait(0, DOWN, "up")
    assert (clock.now, clock.notes) == (0, [])


@pytest.mark.parametrize("final", [answered(401), answered(404), answered(500), CommandError("no such certificate")])
def test_what_waiting_does_not_mend_is_said_at_once(final: CommandError) -> None:
    clock = Clock()
    with pytest.raises(CommandError) as raised:
        clock.wait(60, final, "up")
    assert (raised.value, clock.now) == (final, 0)


def test_prewarm_waits_for_a_mirror_that_is_about_to_begin() -> None:
    with FakeMirror() as fake:
        fake.on("POST", "prewarm", refusal(503, "UNAVAILABLE", "it is about to stop"), Answer(JOB, 202))
        held = {"reference": "up/a:1", "result": "held", "digest": None, "why": None, "replica": None}
        told = [event("result", held, 1), event("end", JOB)]
        fake.on("GET", "prewarm/j1/events", Answer(media_type="text/event-stream", pieces=lambda _: iter(told)))
        done = command("prewarm", "--mirror", fake.url, "--wait", "1m", "up/a:1")
        assert done.exit_code == 0, done.stderr
        assert done.stderr == "it is about to stop; it is asked again, for up to 60 s\n"
        assert len(fake.asked("POST", "prewarm")) == 2


def test_prewarm_waits_no_longer_than_it_was_told_to() -> None:
    with ReservedPort() as port:
        done = command("prewarm", "--mirror", f"http://127.0.0.1:{port.number}", "--wait", "300ms", "up/a:1")
    assert done.exit_code == 1
    assert [line.partition(";")[0] for line in done.stderr.splitlines()] == [
        f"no mirror answers at http://127.0.0.1:{port.number}: Connection refused",
        f"wasm-mirror: no mirror answers at http://127.0.0.1:{port.number}: Connection refused",
    ]


def test_waiting_goes_with_something_to_warm() -> None:
    done = command("prewarm", "--jobs", "--wait", "1m")
    assert done.exit_code == 2
    assert "name what to warm" in done.stderr
    assert complaints(command("prewarm", "--wait", "1m", "--token-file", "/nowhere", "a/b:1"))
