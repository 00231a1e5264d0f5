"""An open page hears what changes, until it leaves or the mirror is about to stop; and not too many may listen."""

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

from starlette.types import Message, Scope

from mirror.edge.api import events
from mirror.edge.api.admin import Admin
from mirror.edge.api.guard import Guard
from mirror.edge.api.operation import ROOT
from mirror.names import Names
from mirror.watching import Seen, Subject, Watching
from tests.edge.api.stand import HERE, SETTINGS, fault
from tests.edge.asgi import Sent
from tests.support.admin import operated
from tests.support.artifacts import compat, publish, wasm_module
from tests.support.faults import Fault, Gate
from tests.support.listening import Fits, all_heard, heard, listening
from tests.support.running import running
from tests.support.upstream import FaultyUpstream
from tests.support.waiting import eventually

AT_ONCE = ("overview", "upstreams", "fills", "replicas", "prewarm")


class Page:
    """A page that follows an `Admin` without a server, until it leaves."""

    def __init__(self, admin: Admin, method: str = "GET") -> None:
        self.sent = Sent()
        self._left = asyncio.Event()
        headers = [(name.encode(), value.encode()) for name, value in HERE.items()]
        scope: Scope = {"type": "http", "method": method, "path": f"{ROOT}events", "raw_path": b"", "query_string": b""}
        self.answering = asyncio.create_task(
            admin({**scope, "headers": headers, "client": ("127.0.0.1", 1)}, self._receive, self.sent.send)
        )

    async def leave(self) -> None:
        """Close the connection, and wait until that was noticed."""
        self._left.set()
        await self.answering

    async def _receive(self) -> Message:
        await self._left.wait()
        return {"type": "http.disconnect"}


async def look() -> Seen:
    return Seen(b"{}", None)


def stand(most: int = 8, draining: Callable[[], bool] = lambda: False) -> tuple[Watching, Admin]:
    watching = Watching({"replicas": Subject(look, every=0.01)}, most)
    return watching, Admin(Guard(SETTINGS), events.operations(watching.listen), Names(SETTINGS), draining)


async def test_a_page_that_goes_away_is_noticed_and_nothing_is_looked_at_any_more() -> None:
    watching, admin = stand()
    page = Page(admin)
    await eventually(lambda: b"event: replicas" in page.sent.body)
    assert (page.sent.headers["content-type"], page.sent.headers["cache-control"]) == ("text/event-stream", "no-store")
    await page.leave()
    assert not watching.looks


async def test_no_more_pages_may_listen_than_are_allowed() -> None:
    watching, admin = stand(most=1)
    first = Page(admin)
    await eventually(lambda: watching.looks)
    second = Page(admin)
    await second.answering
    assert (second.sent.status, fault(second.sent)["code"]) == (429, "TOOMANYREQUESTS")
    assert int(second.sent.headers["retry-after"]) > 0
    await first.leave()
    third = Page(admin)
    await eventually(lambda: third.sent.messages)
    assert third.sent.status == 200
    await third.leave()


async def test_who_asks_for_the_headers_alone_is_no_listener() -> None:
    watching, admin = stand(most=1)
    for _ in range(3):
        page = Page(admin, "HEAD")
        await page.answering
        assert (page.sent.status, page.sent.body) == (200, b"")
    assert not watching.looks


async def test_a_mirror_that_is_about_to_stop_ends_it() -> None:
    stops = False
    watching, admin = stand(draining=lambda: stops)
    page = Page(admin)
    await eventually(lambda: b"event: replicas" in page.sent.body)
    stops = True
    await page.answering
    assert page.sent.finished
    assert not watching.looks


async def test_it_tells_how_all_stands_and_then_what_a_pull_changes(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", compat(wasm_module()))
        async with running(tmp_path, {"ghcr.io": up.url}) as mirror, listening(mirror.address) as said:
            first = await all_heard(said, dict.fromkeys(AT_ONCE, lambda told: True))
            for kind in ("upstreams", "fills", "replicas", "prewarm"):
                assert first[kind] == (await operated(mirror, "GET", kind)).json
            assert first["overview"]["lookups"]["miss"] == 0
            assert (await mirror.get("/modules/ghcr.io/team/plugin:1")).status == 200
            changed: dict[str, Fits] = {
                "overview": lambda told: bool(told["lookups"]["miss"] == 1),
                "upstreams": lambda told: bool(told["upstreams"][0]["requests"] == len(up.requests)),
            }
            await all_heard(said, changed)
            numbers = itertools.count()
            hearing = asyncio.create_task(heard(said, "modules"))
            while not hearing.done():  # what comes before the first look is no change
                tag = f"t{next(numbers)}"
                publish(up, "team/plugin", tag, compat(wasm_module()))
                assert (await mirror.get(f"/modules/ghcr.io/team/plugin:{tag}")).status == 200
                await asyncio.wait({hearing}, timeout=2.5)
            assert (await hearing)["changed"] > 0


async def test_it_tells_how_far_a_download_is(tmp_path: Path) -> None:
    gate = Gate()
    artifact = compat(wasm_module(1_000_000))
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", artifact)
        up.inject(Fault(gate=gate, gate_at=300_000), path="/blobs/")
        async with running(tmp_path, {"ghcr.io": up.url}) as mirror, listening(mirror.address) as said:
            assert (await heard(said, "fills"))["fills"] == []
            pulling = asyncio.create_task(mirror.get("/modules/ghcr.io/team/plugin:1"))
            await gate.reached()
            begun: dict[str, Fits] = {
                "fills": lambda told: [one["bytes"] for one in told["fills"]] == [300_000],
                "overview": lambda told: bool(told["fills"] == 1),
            }
            told = (await all_heard(said, begun))["fills"]
            assert told["fills"][0]["digest"] in map(str, artifact.layers)
            gate.release()
            assert (await pulling).status == 200
            await heard(said, "fills", lambda told: told["total"] == 0)


async def test_a_job_is_told_from_its_beginning_to_its_end(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", compat(wasm_module()))
        async with running(tmp_path, {"ghcr.io": up.url}) as mirror, listening(mirror.address) as said:
            job = (await operated(mirror, "POST", "prewarm", {"references": ["ghcr.io/team/plugin:1"]})).json["id"]
            done = await heard(said, "prewarm", lambda told: [one["state"] for one in told["jobs"]] == ["done"])
            assert done["jobs"][0]["id"] == job
