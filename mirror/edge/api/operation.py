"""An operation of the admin API: what it takes, who carries it out, and what it gives. One value for all who ask: the
application that answers, the OpenAPI document and the page of the documentation.
"""

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import BaseModel, ConfigDict
from starlette.types import Receive, Scope

from mirror.edge.body import pieces_of
from mirror.edge.respond import header
from mirror.errors import MirrorError
from mirror.names import Names
from mirror.oci import Reference

ROOT: Final = "/api/v1/"
JSON: Final = "application/json"

_LONGEST_NOTE = 2000
_PARAMETER = re.compile(r"\{([a-z_]+)(:path)?\}")


class Asked(BaseModel):
    """What a query or a body says. A field that nobody knows is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, allow_inf_nan=False)


class Told(BaseModel):
    """What an answer says. All fields are always there."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, json_schema_serialization_defaults_required=True
    )


@dataclass(frozen=True, slots=True)
class Streamed:
    """An answer that is sent as it comes.

    When the client leaves, or the mirror stops, ``content`` is closed. An error in it cuts the connection: what can be
    found out before is for the handler to raise.
    """

    content: AsyncIterator[bytes]
    media_type: str
    headers: Sequence[tuple[str, str]] = ()


class Call:
    """A request for an operation, as its handler sees it.

    ``path`` are the parameters of the path, decoded; ``query`` and ``body`` what the operation's models made of them,
    or None. ``who`` is in words. The handler may add to ``headers``, those of an answer that is JSON.
    """

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        names: Names,
        path: Mapping[str, str],
        who: str,
        query: Any = None,
        body: Any = None,
    ) -> None:
        self.scope = scope
        self.path = path
        self.who = who
        self.query = query
        self.body = body
        self.headers: list[tuple[str, str]] = []
        self.notes: list[str] = []
        self._receive = receive
        self._names = names

    def reference(self, text: str) -> Reference:
        """What a reference means here; see `Names.of_text`."""
        return self._names.of_text(text)

    def header(self, name: str) -> str | None:
        """The value of a request's header, or None."""
        return header(self.scope, name.lower().encode("latin-1"))

    def stream(self) -> AsyncIterator[bytes]:
        """The raw body, as fast as it is taken. Raises `UploadStalled`, and `BodyCut` when the client has left."""
        return pieces_of(self._receive)

    def note(self, text: str) -> None:
        """Have the line that logs this change say so, too; as much of it as a line should have."""
        text = text if len(text) <= _LONGEST_NOTE else f"{text[:_LONGEST_NOTE]}…"
        self.notes.append(text if text.isprintable() else repr(text))


Handler = Callable[[Call], Awaitable[BaseModel | Streamed]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method at one address under `ROOT`, as it is answered and as the OpenAPI document describes it.

    ``method`` is GET, POST, PUT or DELETE; HEAD comes with GET. In ``path``, ``{name}`` is one segment and
    ``{name:path}`` all that is left. ``answer`` is the model of the JSON answer, None for what streams. ``query`` and
    ``body`` are models, of `Asked`; ``takes`` is the media type of a body that the handler reads itself, ``gives`` that
    of the answer. ``reads`` are headers of a request that the handler looks at, ``tells`` those that a success always
    has, with what each means. ``events`` are those of a ``text/event-stream``, by their names, with the models of their
    data. ``errors`` are those beyond what any operation may answer. ``status`` is that of success.
    """

    method: str
    path: str
    summary: str
    answer: type[BaseModel] | None
    handler: Handler
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    takes: str | None = None
    gives: str = JSON
    status: int = 200
    reads: Mapping[str, str] = field(default_factory=dict)
    tells: Mapping[str, str] = field(default_factory=dict)
    events: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    errors: Sequence[type[MirrorError]] = ()

    @property
    def changes(self) -> bool:
        """Whether it may change something."""
        return self.method not in ("GET", "HEAD")

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names of the parameters of the path."""
        return tuple(name for name, _ in _PARAMETER.findall(self.path))

    @property
    def template(self) -> str:
        """The path as people and OpenAPI write it, without `ROOT`."""
        return _PARAMETER.sub(r"{\1}", self.path)

    def pattern(self) -> re.Pattern[str]:
        """What a decoded path has to be, without `ROOT`."""
        pieces = []
        end = 0
        for found in _PARAMETER.finditer(self.path):
            pieces.append(re.escape(self.path[end : found.start()]))
            pieces.append(f"(?P<{found[1]}>{'.+' if found[2] else '[^/]+'})")
            end = found.end()
        return re.compile("".join([*pieces, re.escape(self.path[end:])]), re.DOTALL)
