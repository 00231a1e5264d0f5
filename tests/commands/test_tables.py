"""Tables in a pipe and on a terminal, and words that strangers have chosen."""

import pytest

from mirror.commands import text
from mirror.commands.tables import Column, fitting, plain

COLUMNS = (Column("reference", folds=10), Column("size", right=True), Column("state"))


def test_a_plain_table_is_aligned_and_leaves_nothing_out() -> None:
    long = "ghcr.io/" + "x" * 300 + ":1"
    assert plain(COLUMNS, [["a:1", "9 KiB", ""], [long, "1023.9 MiB", "pinned"]]) == [
        f"{'REFERENCE':<{len(long)}}        SIZE  STATE",
        f"{'a:1':<{len(long)}}       9 KiB  -",
        f"{long}  1023.9 MiB  pinned",
    ]


@pytest.mark.parametrize(
    ("room", "shown"),
    [
        (90, {0: 60, 1: 7, 2: 8, 3: 7}),
        (80, {0: 52, 1: 7, 2: 8, 3: 7}),
        (38, {0: 10, 1: 7, 2: 8, 3: 7}),
        (37, {0: 18, 1: 7, 2: 8}),
        (28, {0: 18, 2: 8}),
        (19, {0: 9, 2: 8}),
        (5, {0: 8, 2: 8}),
    ],
)
def test_a_narrow_terminal_has_fewer_columns_and_never_loses_the_first(room: int, shown: dict[int, int]) -> None:
    columns = (Column("reference", folds=10), Column("hits", spare=1), Column("state"), Column("digest", spare=2))
    assert fitting(columns, [60, 7, 8, 7], room) == shown


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("plain:1.0", "plain:1.0"),
        ("\x1b[2Jgone", "\\x1b[2Jgone"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("evil\u202egnp.exe", "evil\\u202egnp.exe"),
        ("a\u2028b\x9b31m", "a\\u2028b\\x9b31m"),
        ("ümläut", "ümläut"),
    ],
)
def test_nothing_steers_a_terminal(raw: str, safe: str) -> None:
    assert text.escaped(raw) == safe


def test_numbers_in_words() -> None:
    assert [text.size(number) for number in (0, 1023, 1024, 1536, 10 * 1024**3, 1 << 60)] == [
        *("0 bytes", "1023 bytes", "1 KiB", "1.5 KiB", "10 GiB", "1048576 TiB"),
    ]
    assert [text.ago(0, now) for now in (-5, 59, 60, 3599, 3600, 86400 * 30)] == [
        "now",
        "now",
        "1 min",
        "59 min",
        "1 h",
        "30 d",
    ]
    assert [text.seconds(number) for number in (0.04, 9.94, 9.96, 59.4, 59.6, 185)] == [
        *("0.0 s", "9.9 s", "10 s", "59 s", "1 min 0 s", "3 min 5 s"),
    ]
    assert text.moment(0) == "1970-01-01 00:00:00 UTC"
    assert [text.listed(list("abc"[:number])) for number in (1, 2, 3)] == ["a", "a and b", "a, b and c"]
    assert text.shortened("ghcr.io/team/plugin:1.0", 12) == "…/plugin:1.0"
    assert text.shortened("short", 12) == "short"
