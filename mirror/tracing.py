"""Traces, as the rest of the mirror sees them: the span that work is done in, if its request is traced at all.

A request that is traced has a span, and so has what it waits for: a download, a question to an upstream or to another
replica. The span goes along with the work, in the context that asyncio gives to each task. Where nothing is traced
there is none, and all that is here does nothing; who makes spans, and sends them, is `mirror.telemetry`.
"""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from enum import Enum
from typing import Protocol

from mirror.errors import MirrorError

Attributes = Mapping[str, str | int | bool]
"""What is said of a span. Never a header, a query, or what else may hold a secret."""

CARRIERS = ("traceparent", "tracestate")
"""The headers by which a trace goes on elsewhere. Source: W3C Trace Context, sections 3.2 and 3.3."""


class Kind(Enum):
    """What a span is about."""

    SERVER = "a request that is answered"
    CLIENT = "a request that is sent"
    INTERNAL = "work here"


class Span(Protocol):
    """A piece of work: when it began and ended, and what became of it."""

    def child(self, name: str, kind: Kind, attributes: Attributes) -> "Span":
        """A piece of this work, which begins now."""
        ...

    def name(self, name: str) -> None:
        """What it is called, where that is known later than when it began."""
        ...

    def say(self, attributes: Attributes) -> None:
        """What has come to be known of it."""
        ...

    def link(self, other: "Span") -> None:
        """It has to do with ``other``, which may be of another trace."""
        ...

    def fail(self, kind: str, message: str = "") -> None:
        """It did not do what it was for."""
        ...

    def end(self) -> None:
        """It is over."""
        ...

    def carried(self) -> Mapping[str, str]:
        """The headers that tell of it to whom a request is sent."""
        ...


_CURRENT: ContextVar[Span | None] = ContextVar("the span that work is done in", default=None)


def current() -> Span | None:
    """The span of what is done now; None where that is not traced."""
    return _CURRENT.get()


def begin(name: str, kind: Kind, attributes: Attributes) -> Span | None:
    """A span within the current one; the caller ends it."""
    span = _CURRENT.get()
    return None if span is None else span.child(name, kind, attributes)


def carried() -> Mapping[str, str]:
    """The headers that tell of the current span."""
    span = _CURRENT.get()
    return {} if span is None else span.carried()


@contextmanager
def inside(span: Span | None) -> Iterator[None]:
    """Do work in this span, and end it; a failure that is raised is its own."""
    if span is None:
        yield
        return
    token = _CURRENT.set(span)
    try:
        yield
    except MirrorError as failure:
        span.fail(type(failure).__name__, failure.message)
        raise
    except asyncio.CancelledError:  # nobody needed it any more
        span.say({"wasm_mirror.abandoned": True})
        raise
    except BaseException as failure:
        span.fail(type(failure).__name__)  # a message of somebody else's may hold anything
        raise
    finally:
        _CURRENT.reset(token)
        span.end()
