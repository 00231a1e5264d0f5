"""What is left of a rate limit, in every form in which registries say it, and in none."""

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.upstream import ratelimit
from mirror.upstream.ratelimit import LONGEST_BELIEF, LOOK_AGAIN_AFTER, RateLimit

NOW = 1_800_000_000.0


def read(**fields: str) -> RateLimit | None:
    headers = httpx.Headers({name.replace("_", "-"): value for name, value in fields.items()})
    return ratelimit.read(headers, NOW)


@pytest.mark.parametrize(
    ("fields", "remaining", "resets_in"),
    [
        # Docker Hub.
        ({"ratelimit_limit": "100;w=21600", "ratelimit_remaining": "76;w=21600"}, 0.76, None),
        ({"ratelimit_limit": "100;w=21600", "ratelimit_remaining": "0;w=21600"}, 0.0, None),
        # Three fields.
        ({"ratelimit_limit": "10", "ratelimit_remaining": "5", "ratelimit_reset": "50"}, 0.5, 50),
        ({"ratelimit_limit": "10, 10;w=1, 50;w=60", "ratelimit_remaining": "1", "ratelimit_reset": "1"}, 0.1, 1),
        ({"ratelimit_limit": "10", "ratelimit_remaining": "5", "ratelimit_reset": str(int(NOW) + 30)}, 0.5, 30),
        ({"ratelimit_limit": "10", "ratelimit_remaining": "5", "ratelimit_reset": str(int(NOW) - 30)}, 0.5, 0),
        ({"ratelimit_remaining": "0", "ratelimit_reset": "7"}, 0.0, 7),
        ({"ratelimit_limit": "10", "ratelimit_remaining": "50"}, 1.0, None),
        ({"ratelimit_limit": "0", "ratelimit_remaining": "0"}, 0.0, None),
        # A dictionary.
        ({"ratelimit": "limit=100, remaining=50, reset=30"}, 0.5, 30),
        ({"ratelimit": "remaining=5,limit=100,reset=2"}, 0.05, 2),
        ({"ratelimit": "limit=100;w=60, remaining=8"}, 0.08, None),
        # A list of named policies.
        ({"ratelimit": '"default";r=50;t=30', "ratelimit_policy": '"default";q=100;w=60'}, 0.5, 30),
        (
            {
                "ratelimit": '"burst";r=9;t=1, "day";r=10;t=9000',
                "ratelimit_policy": '"day";q=1000;w=86400, "burst";q=10;w=1',
            },
            0.01,
            9000,
        ),
        ({"ratelimit": "default;r=3;t=5", "ratelimit_policy": "default;q=4"}, 0.75, 5),
        ({"ratelimit": '"default";r=0;t=5'}, 0.0, 5),
    ],
)
def test_what_is_left_is_read(fields: dict[str, str], remaining: float, resets_in: float | None) -> None:
    found = read(**fields)
    assert found is not None
    assert found.remaining == pytest.approx(remaining)
    assert found.resets_in == resets_in


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"ratelimit_limit": "100"},
        {"ratelimit_remaining": "76"},
        {"ratelimit_limit": "100", "ratelimit_remaining": "many"},
        {"ratelimit_limit": "100", "ratelimit_remaining": "-5"},
        {"ratelimit_limit": "100", "ratelimit_remaining": "5.5"},
        {"ratelimit_limit": "100", "ratelimit_remaining": "9" * 400},
        {"ratelimit_limit": "0", "ratelimit_remaining": "3"},
        {"ratelimit": "limit=100"},
        {"ratelimit": "limit=ten, remaining=one"},
        {"ratelimit": '"default";r=50;t=30'},
        {"ratelimit": '"default";r=50', "ratelimit_policy": '"other";q=100'},
        {"ratelimit": ";;;,,,==="},
        {"x_ratelimit_limit": "1", "x_ratelimit_remaining": "0"},
    ],
)
def test_what_does_not_say_is_no_limit(fields: dict[str, str]) -> None:
    assert read(**fields) is None


_pieces = st.sampled_from(
    [
        "limit",
        "remaining",
        "reset",
        "r",
        "t",
        "q",
        "w",
        "=",
        ";",
        ",",
        " ",
        '"',
        "0",
        "7",
        "100",
        "-",
        ".",
        "é",
        "\t",
        "*",
    ]
)
_field = st.one_of(st.text(max_size=60), st.lists(_pieces, max_size=30).map("".join))


_NAMES = ("ratelimit", "ratelimit-policy", "ratelimit-limit", "ratelimit-remaining", "ratelimit-reset")


@given(st.dictionaries(st.sampled_from(_NAMES), _field))
def test_nothing_in_a_field_is_too_much_for_it(fields: dict[str, str]) -> None:
    found = ratelimit.read(fields, NOW)
    if found is not None:
        assert 0 <= found.remaining <= 1
        assert 0 <= found.holds_for <= LONGEST_BELIEF


def test_a_limit_that_names_no_end_is_looked_at_again_soon() -> None:
    assert RateLimit(0.0, None).holds_for == LOOK_AGAIN_AFTER
    assert RateLimit(0.0, 20).holds_for == 20
    assert RateLimit(0.0, 10**8).holds_for == LONGEST_BELIEF
