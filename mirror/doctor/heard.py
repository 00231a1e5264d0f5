"""What the mirror's own code writes to its log while the doctor runs it: causes that an error alone does not name."""

import logging
from types import TracebackType
from typing import Self

from mirror.errors import MirrorError

_LOG = logging.getLogger("mirror")


class Heard(logging.Handler):
    """As a context manager it takes in the warnings and errors that name ``setting``; nothing else hears them."""

    def __init__(self, setting: str) -> None:
        super().__init__(logging.WARNING)
        self._setting = setting
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Take in a line."""
        line = record.getMessage()
        if self._setting in line and line not in self._lines:
            self._lines.append(line)

    def instead_of(self, failure: MirrorError) -> str:
        """The log's words where it says why, those of ``failure`` otherwise."""
        return "; ".join(self._lines) or failure.message

    def __enter__(self) -> Self:
        _LOG.addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _LOG.removeHandler(self)
