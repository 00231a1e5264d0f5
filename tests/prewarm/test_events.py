"""Who follows a job sees all of it, wherever the connection breaks; and who leaves stops nothing."""

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import pytest
from starlette.types import Message

from mirror.config import Settings
from mirror.desk import Desk, Event
from mirror.digest import Digest
from mirror.edge.api import prewarm
from mirror.edge.api.admin import Admin
from mirror.edge.api.guard import Guard
from mirror.errors import NotFound
from mirror.job import Outcome, Summary, Underway
from mirror.names import Names
from mirror.warming import Result, Warmed
from tests.cluster.replica import Clock
from tests.edge.asgi import Sent
from tests.support.artifacts import publish, raw, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.jobs import begin, followed, following, shown
from tests.support.pushing import At
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream

NAMED = [f"up/team/plugin:v{n}" for n in range(5)]


def url(mirror: Running) -> str:
    return f"http://{mirror.host}"


def published(up: FaultyUpstream) -> None:
    for n in range(len(NAMED)):
        publish(up, "team/plugin", f"v{n}", raw(wasm_module(2_000, seed=n)))


async def test_a_client_that_comes_back_again_and_again_sees_each_result_once(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        published(up)
        async with running(tmp_path, {"up": up}) as mirror:
            job = await begin(url(mirror), NAMED, parallel=2)
            whole = asyncio.create_task(followed(url(mirror), job))
            seen, last, ended = [], None, False
            while not ended:
                async for event in following(url(mirror), job, last):
                    if event.kind == "result":
                        seen.append(event)
                        last = event.id
                        break  # the connection breaks after each
                    ended = event.kind == "end"
            assert [event.id for event in seen] == [str(n + 1) for n in range(len(NAMED))]
            assert sorted(event.data["reference"] for event in seen) == NAMED
            assert [event for event in await whole if event.kind == "result"] == seen
            assert (await followed(url(mirror), job))[-1].data["counts"]["fetched"] == len(NAMED)


async def test_a_job_goes_on_when_its_clients_leave_and_says_how_far_downloads_are(tmp_path: Path) -> None:
    gate, artifact = Gate(), raw(wasm_module(300_000))
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "v1", artifact)
        up.inject(Fault(gate=gate, gate_at=200_000), path=f"blobs/{artifact.layers[0]}")
        async with running(tmp_path, {"up": up}) as mirror:
            job = await begin(url(mirror), ["up/team/plugin:v1"])
            async for event in following(url(mirror), job):
                if event.kind == "progress" and event.data["bytes"] > 100_000:
                    total = sum(map(len, artifact.blobs.values())) + len(artifact.body)
                    assert event.data["reference"] == "up/team/plugin:v1"
                    assert event.data["bytes"] < event.data["total"] == total
                    break
            gate.release()
            events = await followed(url(mirror), job)
            assert (events[-1].data["state"], events[-1].data["done"]) == ("done", 1)


async def test_a_cancelled_job_ends_for_all_who_follow_it(tmp_path: Path) -> None:
    gate = Gate()
    with FaultyUpstream() as up:
        published(up)
        up.inject(Fault(hold=gate), path="manifests/v3")
        async with running(tmp_path, {"up": up}) as mirror:
            job = await begin(url(mirror), NAMED, parallel=1)
            followers = [asyncio.create_task(followed(url(mirror), job)) for _ in range(2)]
            await gate.reached()
            reply = await At(url(mirror)).ask("DELETE", f"/api/v1/prewarm/{job}")
            gate.release()
            assert (reply.status, reply.json["state"], reply.json["done"]) == (200, "cancelled", 3)
            for events in await asyncio.gather(*followers):
                assert [event.kind for event in events if event.kind != "progress"] == ["result"] * 3 + ["end"]
            told = await shown(url(mirror), job)
            assert (told["state"], len(told["results"]), told["ended_at"] >= told["began_at"]) == ("cancelled", 3, True)
            again = await At(url(mirror)).ask("DELETE", f"/api/v1/prewarm/{job}")
            assert (again.status, again.json["state"]) == (200, "cancelled")


async def test_what_is_no_job_is_told_in_one_line(tmp_path: Path) -> None:
    async with running(tmp_path, {"up": "http://127.0.0.1:1"}) as mirror:
        for method, path, last, status in (
            ("GET", "nothing", None, 404),
            ("DELETE", "nothing", None, 404),
            ("GET", "nothing/events", None, 404),
            ("GET", "..%2fsecret", None, 404),
            ("GET", "nothing/events", "x", 400),
            ("GET", "nothing/events", "-1", 400),
        ):
            headers = {} if last is None else {"last-event-id": last}
            reply = await mirror.ask(method, f"/api/v1/prewarm/{path}", headers)
            assert reply.status == status, (method, path, last)
            assert "\n" not in reply.message


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"references": []}, "references"),
        ({"references": ["up/a:1"] * 10_001}, "references"),
        ({"references": ["up/a:1"], "parallel": 65}, "parallel"),
        ({"references": ["up/a:1"], "parallel": 0}, "parallel"),
        ({"references": ["up/a:1"], "platforms": ["amd64"]}, "platforms"),
        ({"references": ["up/a:1"], "platforms": []}, "platforms"),
        ({"references": ["up/a:1"], "pins": True}, "pins"),
    ],
)
async def test_what_cannot_be_a_job_is_refused_and_the_field_is_named(body: dict[str, object], words: str) -> None:
    desk = _Told([])
    sent = await _asked(desk, "POST", "prewarm", body)
    assert sent.status == 400
    assert words in sent.body.decode()


async def test_a_connection_on_which_nothing_happens_has_a_heartbeat() -> None:
    clock = Clock()
    order = Summary("1", "done", 1.0, 2.0, "me", False, 1, 1, {result.value: 0 for result in Result})
    outcome = Outcome(0, "up/a:1", Warmed(Result.HELD, Digest.of(b""), 0, 0.1234567), "http://10.0.0.2")

    class Slow(_Told):
        async def follow(self, place: str | None, job: str, after: int) -> AsyncGenerator[Event]:
            for event in (None, None, Underway("up/a:1", None, 1, 2), None, None, None, (1, outcome), order):
                yield event
                clock.seconds += 4.0

    sent = await _asked(Slow([]), "GET", "prewarm/1/events", clock=clock)
    blocks = [block.split("\n")[0] for block in sent.body.decode().split("\n\n")]
    assert blocks == ["retry: 1000", "event: progress", ": nothing new", "id: 1", "event: end", ""]
    assert '"seconds":0.123' in sent.body.decode()
    assert '"replica":"http://10.0.0.2"' in sent.body.decode()


class _Told(Desk):
    """Jobs that tests say."""

    def __init__(self, events: Sequence[Event]) -> None:
        self.events = events

    async def place(self, job: str) -> str | None:
        if job != "1":
            raise NotFound("no")
        return None


async def _asked(desk: Desk, method: str, path: str, body: object = None, clock: Clock | None = None) -> Sent:
    settings = Settings.model_validate({"listen": "127.0.0.1:8080", "upstreams": {"up": {"endpoints": ["http://a"]}}})
    admin = Admin(Guard(settings), prewarm.operations(desk, clock or Clock()), Names(settings))
    content = b"" if body is None else json.dumps(body).encode()
    headers = {"host": "127.0.0.1:8080", "content-type": "application/json", "content-length": str(len(content))}
    scope = {
        "type": "http",
        "method": method,
        "path": f"/api/v1/{path}",
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 40000),
    }
    messages: list[Message] = [{"type": "http.request", "body": content, "more_body": False}]

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()  # the client stays
        return messages.pop()

    sent = Sent()
    await admin(scope, receive, sent.send)
    return sent
