"""Requests for uploads that another replica has: passed on to there, both ways, as they come.

Who asks and what they may do has been found here, and is held against the rules there once more.
"""

from dataclasses import replace

from mirror.edge.body import announced, chunk_of, is_empty
from mirror.edge.headers import encode
from mirror.edge.respond import header
from mirror.edge.uploads import Push
from mirror.passing import Passing, Question, Reply

_WITH_BODY = frozenset({"PATCH", "PUT"})


class Forward:
    """A `mirror.edge.uploads.Forwarding`."""

    def __init__(self, passing: Passing, *, with_credentials: bool) -> None:
        """``with_credentials``: the owner needs those of the client."""
        self._passing = passing
        self._with_credentials = with_credentials

    @property
    def name(self) -> str:
        """What the ids of this replica's own uploads begin with."""
        return self._passing.name

    def owner(self, upload: str) -> str | None:
        """The address of the other replica that has the upload, if that is alive."""
        return self._passing.owner(upload)

    async def pass_on(self, push: Push, upload: str, owner: str) -> None:
        """Answer what the owner answers: when its body has ended, or earlier, if it is refused."""
        question = _question(push, upload)
        has_body = question.method in _WITH_BODY and not is_empty(push.scope)
        chunk = chunk_of(push.scope, push.receive) if has_body else None
        credentials = header(push.scope, b"authorization") if self._with_credentials else None
        if chunk is not None and chunk.start is None:
            reply = await self._passing.size(owner, question, credentials)
            if reply.size is None:
                await _send(push, reply)
                return
            question = replace(question, start=reply.size)
        if chunk is not None:
            length = announced(push.scope)
            reply = await self._passing.ask(owner, question, chunk.content, length, credentials)
        else:
            reply = await self._passing.ask(owner, question, credentials=credentials)
        await _send(push, reply)


def _question(push: Push, upload: str) -> Question:
    scope = push.scope
    method = "GET" if scope["method"] == "HEAD" else scope["method"]
    return Question(
        method,
        upload,
        push.principal,
        scope["path"],
        scope["query_string"].decode("latin-1"),
        header(scope, b"host") or "",
        (header(scope, b"content-range") or "") if method in _WITH_BODY else "",
    )


async def _send(push: Push, reply: Reply) -> None:
    body = b"" if push.scope["method"] == "HEAD" else reply.body
    await push.send({"type": "http.response.start", "status": reply.status, "headers": encode(reply.headers)})
    await push.send({"type": "http.response.body", "body": body})
