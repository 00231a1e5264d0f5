"""A client that leaves costs the others nothing."""

import asyncio

from starlette.types import Message, Scope

from mirror.answer import Answer, Filled, Flowing
from mirror.digest import Digest
from mirror.edge.respond import send_answer
from mirror.store.growing import CHUNK, Growing
from mirror.store.overflow import Overflow
from tests.edge.asgi import Sent

_CHUNKS = 200
_SCOPE: Scope = {"type": "http", "method": "GET", "headers": []}


def _come(chunks: int) -> Growing:
    """A fill with many bytes there, and many yet to come."""
    content = Growing(Digest.of(b""), 2 * chunks * CHUNK)
    content.keep_whole = True
    content.overflow = Overflow(0)
    for _ in range(chunks):
        content.overflow.append(bytes(CHUNK))
    return content


async def test_what_is_left_of_a_body_is_not_read_for_a_client_that_has_left() -> None:
    """To a connection that is gone uvicorn sends without a pause, as this `send` does."""
    content = _come(_CHUNKS)
    sent = Sent()

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    answer = Answer("application/octet-stream", content.digest, Flowing(content, False, 0), Filled())
    await send_answer(_SCOPE, gone, sent.send, answer, now=0.0, namespace=None, ranged=True)

    assert len(sent.messages) < 10
    assert not sent.finished
    assert content.waiters == 0


async def test_a_fast_client_lets_others_have_their_turn() -> None:
    content = _come(_CHUNKS)
    sent = Sent()
    turns = 0
    leave = asyncio.Event()

    async def gone() -> Message:
        await leave.wait()
        return {"type": "http.disconnect"}

    async def other() -> None:
        nonlocal turns
        while len(sent.messages) < _CHUNKS // 2:
            turns += 1
            await asyncio.sleep(0)
        leave.set()

    answer = Answer("application/octet-stream", content.digest, Flowing(content, False, 0), Filled())
    await asyncio.gather(send_answer(_SCOPE, gone, sent.send, answer, now=0.0, namespace=None, ranged=True), other())

    assert turns >= _CHUNKS // 4
