"""Texts out of files, folders and standard input: bounded, each file once, and no more in memory than one file."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, Literal

from mirror.references.named import Findings, shown

MAX_FILE: Final = 16 << 20
MAX_ALL: Final = 100 << 20
MAX_FILES: Final = 10_000
MAX_FOLDERS: Final = 32
"""How deep folders lie in one another."""
STANDARD_INPUT: Final = "standard input"

_SUFFIXES = (".yaml", ".yml", ".json")


class Files:
    """The texts of files; what cannot be read becomes a problem."""

    def __init__(self, findings: Findings, stdin: BinaryIO | None) -> None:
        self._findings = findings
        self._stdin = stdin
        self._left = MAX_ALL
        self._files = 0
        self._seen: set[tuple[int, int]] = set()

    def texts(self, paths: Sequence[Path | Literal["-"]]) -> Iterator[tuple[str, str, bool]]:
        """Each text, the name of its file, and whether somebody named that file, rather than a folder that it is in."""
        for path in paths:
            if path == "-":
                yield from self._input()
            elif os.path.isdir(path):
                yield from self._folder(path, 1)
            else:
                yield from self._file(path, named=True)
            if self._left < 0 or self._files > MAX_FILES:
                return

    def _input(self) -> Iterator[tuple[str, str, bool]]:
        if self._stdin is None:
            self._findings.problem(STANDARD_INPUT, "is closed")
            return
        try:
            yield from self._text(STANDARD_INPUT, self._stdin, named=True)
        except OSError as error:
            self._findings.problem(STANDARD_INPUT, f"cannot be read: {error.strerror or error}")

    def _folder(self, folder: Path, depth: int) -> Iterator[tuple[str, str, bool]]:
        """Files before folders: in those that Kubernetes mounts, the files have the names that people know."""
        name = shown(str(folder))
        try:
            if not self._is_new(folder.stat()):
                return
            inside = sorted(folder.iterdir())
            folders = [path for path in inside if os.path.isdir(path)]
        except OSError as error:
            self._findings.problem(name, f"cannot be read: {error.strerror}")
            return
        for path in inside:
            if path.suffix.lower() in _SUFFIXES and os.path.isfile(path):
                self._files += 1
                if self._files > MAX_FILES:
                    self._findings.problem(name, f"there are more than {MAX_FILES} files; the rest was not read")
                    return
                yield from self._file(path, named=False)
                if self._left < 0:
                    return
        if folders and depth == MAX_FOLDERS:
            self._findings.problem(name, f"folders are nested deeper than {MAX_FOLDERS} levels; those were not read")
            return
        for path in folders:
            yield from self._folder(path, depth + 1)
            if self._left < 0 or self._files > MAX_FILES:
                return

    def _file(self, path: Path, *, named: bool) -> Iterator[tuple[str, str, bool]]:
        name = shown(str(path))
        try:
            with path.open("rb") as file:
                about = os.fstat(file.fileno())
                if stat.S_ISREG(about.st_mode) and not self._is_new(about):
                    return
                yield from self._text(name, file, named=named)
        except FileNotFoundError:
            self._findings.problem(name, "does not exist")
        except OSError as error:
            self._findings.problem(name, f"cannot be read: {error.strerror or error}")

    def _text(self, name: str, file: BinaryIO, *, named: bool) -> Iterator[tuple[str, str, bool]]:
        content = file.read(MAX_FILE + 1)
        if len(content) > MAX_FILE:
            words = f"is larger than {MAX_FILE >> 20}MiB, which no file of references or plugins is; it was not read"
            self._findings.problem(name, words)
            return
        self._left -= len(content)
        if self._left < 0:
            self._findings.problem(name, f"it is more than {MAX_ALL >> 20}MiB in all; from here on nothing was read")
            return
        zero = content.find(b"\0")
        if zero >= 0:
            self._findings.problem(_at(name, content, zero), "has a zero byte, so that it is no text")
            return
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self._findings.problem(_at(name, content, error.start), "is not UTF-8 text")
            return
        del content
        yield text, name, named

    def _is_new(self, about: os.stat_result) -> bool:
        """Whether a file or folder was not read before, under whatever name."""
        key = (about.st_dev, about.st_ino)
        new = key not in self._seen
        self._seen.add(key)
        return new


def _at(name: str, content: bytes, offset: int) -> str:
    newlines = content.count(b"\n", 0, offset)
    return f"{name}:{newlines + 1}"
