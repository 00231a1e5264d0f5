"""``WWW-Authenticate`` is read as RFC 9110 has it, and whatever comes does no harm."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.upstream.challenges import Challenge, parse_challenges

BEARER = Challenge("bearer", {"realm": "https://auth.example/token", "service": "x"})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (['Bearer realm="https://auth.example/token",service="x"'], [BEARER]),
        (['bEARER   REALM="https://auth.example/token" , Service=x'], [BEARER]),
        (["Bearer realm=https://auth.example/token,service=x"], [BEARER]),
        (
            ['Bearer realm="r",scope="repository:a/b:pull,push repository:c:pull"'],
            [Challenge("bearer", {"realm": "r", "scope": "repository:a/b:pull,push repository:c:pull"})],
        ),
        (['Basic realm="a, b \\"c\\" \\\\d"'], [Challenge("basic", {"realm": 'a, b "c" \\d'})]),
        (["Basic"], [Challenge("basic")]),
        (
            ["Basic realm=x", 'Bearer realm="y"'],
            [Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y"})],
        ),
        (
            ['Basic realm=x, Bearer realm="y"'],
            [Challenge("basic", {"realm": "x"}), Challenge("bearer", {"realm": "y"})],
        ),
        (["Negotiate, Basic realm=x"], [Challenge("negotiate"), Challenge("basic", {"realm": "x"})]),
        (["NTLM TlRMTVNTUAAB==, Basic realm=x"], [Challenge("ntlm"), Challenge("basic", {"realm": "x"})]),
        (['Bearer realm="r",error="invalid_token"'], [Challenge("bearer", {"realm": "r", "error": "invalid_token"})]),
        (['Bearer realm="first",realm="second"'], [Challenge("bearer", {"realm": "first"})]),
        ([" ,, Basic realm=x ,"], [Challenge("basic", {"realm": "x"})]),
        (['Bearer realm="never closed'], [Challenge("bearer")]),
        (['realm="nobody\'s"'], []),
        (['"text"'], []),
        ([""], []),
        ([], []),
    ],
)
def test_challenges_are_told_apart(fields: list[str], expected: list[Challenge]) -> None:
    assert parse_challenges(fields) == expected


TOKEN = st.text("abcdefgh-_.0", min_size=1, max_size=8)
PARAMETERS = st.dictionaries(TOKEN, st.text(st.characters(codec="latin-1"), max_size=30), min_size=1, max_size=4)


@given(st.lists(st.tuples(TOKEN, PARAMETERS), max_size=4))
def test_quoted_challenges_come_back_as_they_were_written(challenges: list[tuple[str, dict[str, str]]]) -> None:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    field = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        for scheme, parameters in challenges
    )
    assert parse_challenges([field]) == [Challenge(scheme, parameters) for scheme, parameters in challenges]


@given(st.lists(st.text(st.characters(codec="latin-1")), max_size=3))
def test_no_field_makes_it_fail(fields: list[str]) -> None:
    for challenge in parse_challenges(fields):
        assert challenge.scheme == challenge.scheme.lower()


def test_a_field_without_a_bound_is_read_in_part() -> None:
    challenges = parse_challenges(["Basic realm=x, " + 'Bearer realm="y", ' * 100_000])
    assert challenges[0] == Challenge("basic", {"realm": "x"})
    assert len(challenges) < 2000
