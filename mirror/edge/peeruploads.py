"""``/peer/v1/uploads/<id>?principal=…&path=…&query=…&host=…``: requests for uploads of this replica that came in at
another one, as they came in. `mirror.passing` says what is signed, and why.

The answer is one document with status, headers and body for the client, signed; it comes before the end of the body
where the body is refused.
"""

from collections.abc import Mapping

from starlette.types import Message, Receive, Scope, Send

from mirror.cluster.secret import Secret
from mirror.edge.auth import send_refusal
from mirror.edge.push import Passed, Pushes
from mirror.edge.respond import header, query, send_json
from mirror.errors import MirrorError, UploadUnknown
from mirror.oci import Resource, parse_path
from mirror.passing import CREDENTIALS, ROOM, Question, Reply

_FRAMING = (b"content-length", b"transfer-encoding")


class PeerUploads:
    """A `mirror.edge.peers.Room`."""

    def __init__(self, secret: Secret, pushes: Pushes) -> None:
        self._secret = secret
        self._pushes = pushes

    async def answer(self, scope: Scope, receive: Receive, send: Send, query: Mapping[str, str], nonce: str) -> None:
        """Answer one request."""
        upload = scope["path"].rpartition(f"/{ROOM}/")[2]
        reply = await self._reply(scope, receive, Question.of(scope["method"], upload, query))
        document = reply.document()
        signature = [("x-signature", self._secret.sign_answer(nonce, document))]
        await send_json(send, "GET", document, signature, "application/json")

    async def _reply(self, scope: Scope, receive: Receive, question: Question) -> Reply:
        """What the client is to hear."""
        if question.only == "proof":
            return Reply(204)
        inner, heard = _as_it_came_in(scope, question), _Heard()
        try:
            path = parse_path(question.path)
            if path.resource is not Resource.UPLOAD or path.upload != question.upload:
                raise UploadUnknown("the address is that of another upload")
            passed = Passed(question.principal, question.start, question.only == "size")
            size = await self._pushes.passed(inner, receive, heard.send, path, query(inner), passed)
            if size is not None:
                return Reply(204, size=size)
        except MirrorError as error:
            await send_refusal(heard.send, question.method, error)
        return heard.reply()


class _Heard:
    """An answer that is not sent yet. They are small: errors, and answers without a body."""

    def __init__(self) -> None:
        self._status = 0
        self._headers: tuple[tuple[str, str], ...] = ()
        self._body = b""

    async def send(self, message: Message) -> None:
        """What an application sends."""
        if message["type"] == "http.response.start":
            self._status = message["status"]
            pairs = message["headers"]
            self._headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in pairs)
        else:
            self._body += message.get("body", b"")

    def reply(self) -> Reply:
        """All of it."""
        return Reply(self._status, self._headers, self._body)


def _as_it_came_in(scope: Scope, question: Question) -> Scope:
    """The request as the client has made it; the body's framing is that of the one that passed it on."""
    headers = [(name, value) for name, value in scope["headers"] if name in _FRAMING]
    headers.append((b"host", question.host.encode("latin-1", "replace")))
    if question.span:
        headers.append((b"content-range", question.span.encode("latin-1", "replace")))
    if (credentials := header(scope, CREDENTIALS.encode())) is not None:
        headers.append((b"authorization", credentials.encode("latin-1")))
    return {
        "type": "http",
        "method": question.method,
        "path": question.path,
        "raw_path": question.path.encode(),
        "query_string": question.query.encode("latin-1", "replace"),
        "headers": headers,
        "client": scope.get("client"),
    }
