"""``make fuzz`` runs for a bounded time, and what goes wrong joins the corpus."""

from dataclasses import replace
from pathlib import Path

import pytest

from tests.wasm import fuzz
from tests.wasm.fuzz import KINDS, Kind


def broken(content: bytes) -> None:
    raise RuntimeError(f"no reader for {len(content)} bytes")


def test_it_ends_in_time_and_says_what_was_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert fuzz.fuzz(0.01, first=1) == 0
    assert capsys.readouterr().out == "50 faulty modules and as many archives were read, from the seed 1 on\n"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_what_goes_wrong_is_kept_in_the_corpus(
    kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    content = kind.make(7)
    failing = replace(kind, make=lambda _: content, read=broken, folder=tmp_path)
    monkeypatch.setattr(fuzz, "KINDS", (failing,))
    assert fuzz.fuzz(0.01, first=7) == 1
    (kept,) = tmp_path.iterdir()
    assert kept.read_bytes() == content
    assert kept.name.endswith(kind.suffix)
    assert f"WRONG: {kind.name}, seed 7: kept as {kept}" in capsys.readouterr().out


def test_too_much_memory_is_wrong() -> None:
    hungry = replace(KINDS[0], read=lambda _: bytearray(4 * fuzz.MEMORY))
    assert isinstance(fuzz.wrong(hungry, b""), AssertionError)
