"""Sizes, durations, whole numbers, switches, paths."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.config import values

_DAY = 86400.0


@given(st.integers(0, int(values.MAX_DURATION * 1000)))
def test_a_duration_in_milliseconds_survives_being_written_and_read(milliseconds: int) -> None:
    seconds = milliseconds / 1000
    assert values.parse_duration(values.format_duration(seconds)) == seconds


@given(st.floats(1e-9, values.MAX_DURATION, allow_nan=False))
def test_any_duration_survives_being_written_and_read(seconds: float) -> None:
    assert values.parse_duration(values.format_duration(seconds)) == seconds


@given(st.integers(0, values.MAX_SIZE))
def test_a_size_survives_being_written_and_read(size: int) -> None:
    assert values.parse_size(values.format_size(size)) == size


@given(st.integers(0, 1023), st.sampled_from(["KiB", "MiB", "GiB", "TiB", "MB", "GB"]))
def test_a_size_in_a_unit_survives_being_read_and_written(number: int, unit: str) -> None:
    size = values.parse_size(f"{number}{unit}")
    assert values.parse_size(values.format_size(size)) == size


@given(st.text(max_size=60))
def test_any_text_is_a_value_or_a_value_error(text: str) -> None:
    for parse in (values.parse_duration, values.parse_size, values.parse_whole, values.parse_switch, values.parse_file):
        with contextlib.suppress(ValueError):
            parse(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("10s", 10.0),
        ("500ms", 0.5),
        ("1m", 60.0),
        ("1h30m", 5400.0),
        ("1.5h", 5400.0),
        ("1m500ms", 60.5),
        ("1d2h3m4s5ms", 93784.005),
        ("30d", 30 * _DAY),
        ("3650d", values.MAX_DURATION),
        (2, 2.0),
        (0.25, 0.25),
    ],
)
def test_a_duration_is_read(text: object, seconds: float) -> None:
    assert values.parse_duration(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "s",
        "10",
        "-1s",
        "10 s",
        "10S",
        "30m1h",
        "1s1s",
        "1e3s",
        "1,5s",
        ".5s",
        "5.s",
        "nan",
        "inf",
        "٣s",
        "10s\n",
        "3651d",
        "9" * 300 + "d",
        None,
        True,
        [],
        {},
        float("nan"),
        float("inf"),
        -1,
        1e300,
    ],
)
def test_what_is_no_duration_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be a duration"):
        values.parse_duration(text)


def test_a_number_without_a_unit_is_told_how_to_get_one() -> None:
    with pytest.raises(ValueError, match="write 10s for seconds"):
        values.parse_duration("10")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (10, "10s"), (60, "1m"), (90, "90s"), (30 * _DAY, "30d"), (0.5, "500ms"), (0.0005, "0.0005s")],
)
def test_a_duration_is_written_as_one_would_write_it(seconds: float, text: str) -> None:
    assert values.format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1024", 1024),
        ("5B", 5),
        ("1kB", 1000),
        ("1KB", 1000),
        ("1KiB", 1024),
        ("256MiB", 256 << 20),
        ("20GiB", 20 << 30),
        ("1GB", 10**9),
        ("1.5GiB", 3 << 29),
        ("2TiB", 2 << 40),
        (4096, 4096),
    ],
)
def test_a_size_is_read(text: object, size: int) -> None:
    assert values.parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GiB",
        "-1",
        "1 GiB",
        "1gib",
        "1Gi",
        "1.5",
        "0.3B",
        "1e3",
        "٣",
        "1GiB\n",
        "9" * 300,
        None,
        True,
        1.5,
        [],
        -1,
        1 << 61,
        "2000000TiB",
    ],
)
def test_what_is_no_size_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be a size"):
        values.parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0"), (1, "1"), (1025, "1025"), (1000, "1KB"), (1024, "1KiB"), (256 << 20, "256MiB"), (10**9, "1GB")],
)
def test_a_size_is_written_as_one_would_write_it(size: int, text: str) -> None:
    assert values.format_size(size) == text


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("12", 12), ("-3", -3), (7, 7)])
def test_a_whole_number_is_read(text: object, number: int) -> None:
    assert values.parse_whole(text) == number


@pytest.mark.parametrize("text", ["", "1.0", "1_000", "0x10", "1e3", " 1", "zero", "9" * 5000, True, 1.0, None])
def test_what_is_no_whole_number_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be a whole number"):
        values.parse_whole(text)


@pytest.mark.parametrize(
    ("text", "switch"), [("true", True), ("True", True), ("yes", True), ("on", True), ("off", False), (False, False)]
)
def test_a_switch_is_read_as_yaml_reads_it(text: object, switch: bool) -> None:
    assert values.parse_switch(text) is switch


@pytest.mark.parametrize("text", ["", "1", "maybe", 1, 0, None, []])
def test_what_is_no_switch_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match="must be true or false"):
        values.parse_switch(text)


def test_a_path_is_taken_as_it_stands() -> None:
    assert values.parse_file("./data") == Path("data")


@pytest.mark.parametrize("value", ["", "a\0b", None, 5, ["a"]])
def test_what_is_no_path_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="must be a path"):
        values.parse_file(value)


@pytest.mark.parametrize("parse", [values.parse_duration, values.parse_size, values.parse_whole])
def test_an_error_shows_a_bounded_part_of_what_it_was_given(parse: Callable[[object], object]) -> None:
    with pytest.raises(ValueError, match="…") as refused:
        parse("x" * 10_000)
    assert len(str(refused.value)) < 250
