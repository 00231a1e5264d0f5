"""Logging: lines for people, or a JSON object a line. One line for a fill, none for a hit."""

import asyncio
import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

_QUIET = ("httpx", "httpcore", "asyncio")
"""Libraries whose own words are for their developers."""

_EXPECTED = ("Invalid HTTP request received.", "ASGI callable returned without completing response.")
"""What uvicorn says where nothing is wrong: an agent tries TLS on a plain port, a body without its digest is cut.
Nor is anything wrong with a request that is cancelled because the time for an orderly stop is over.
"""


def configure(level: str, style: Literal["text", "json"]) -> None:
    """Send everything to standard error, from ``level`` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if style == "json" else _Text())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    server = logging.getLogger("uvicorn.error")
    server.setLevel(logging.DEBUG if root.level <= logging.DEBUG else logging.WARNING)
    server.filters[:] = [_demote]


def _demote(record: logging.LogRecord) -> bool:
    cancelled = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    if record.msg in _EXPECTED or cancelled:
        record.levelno, record.levelname = logging.DEBUG, "DEBUG"
        return logging.getLogger().isEnabledFor(logging.DEBUG)
    return True


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        text = f"{moment} {record.levelname.lower():7} {_one_line(record.getMessage())}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def _one_line(text: str) -> str:
    """No client can forge a line of the log, and no author of a module can steer the terminal that shows it."""
    if text.isprintable():
        return text
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
