"""Programs are made once, whoever asks, and who cannot have one is told how to get it."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from tests.support.origins import Built, FromNpm, Kept, MissingProgram, Packaged


@dataclass(frozen=True)
class Written(Kept):
    """A program that is a file with its version; the first ``failures`` tries to write it fail."""

    version: str = "1"
    failures: list[str] = field(default_factory=list)
    how: ClassVar[str] = "a test writes it"

    def _key(self) -> Iterator[bytes]:
        yield self.version.encode()

    def _make(self, folder: Path) -> Path:
        file = folder / "made"
        file.write_text(self.version)
        if self.failures:
            raise MissingProgram(self.failures.pop())
        return file


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("WASM_MIRROR_TEST_CACHE", str(folder))
    return folder


def programs(cache: Path) -> list[str]:
    return sorted(path.read_text() for path in cache.iterdir() if path.suffix != ".lock")


def test_a_program_is_made_once_for_each_version(cache: Path) -> None:
    assert Written("tool").find() is None
    place = Written("tool").provide()
    assert Written("tool").find() == place
    assert Written("tool", failures=["it is not made again"]).provide() == place
    assert Written("tool", version="2").provide() != place
    assert programs(cache) == ["1", "2"]


def test_a_program_that_could_not_be_made_leaves_nothing_and_is_tried_again(cache: Path) -> None:
    tool = Written("tool", failures=["no network"])
    with pytest.raises(MissingProgram, match="no network"):
        tool.provide()
    assert tool.find() is None
    assert programs(cache) == []
    assert tool.provide().read_text() == "1"


def test_a_missing_program_says_how_to_get_it(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("package.json", "package-lock.json"):
        (tmp_path / name).write_text("{}")
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    for program, wanted in (
        (Packaged("tool", "a-package"), "apt-get install a-package"),
        (Built("tool", "example.com/tool@v1"), "Go, which is not installed"),
        (FromNpm("tool", source=tmp_path), "apt-get install npm"),
    ):
        with pytest.raises(MissingProgram, match=wanted):
            program.provide()
