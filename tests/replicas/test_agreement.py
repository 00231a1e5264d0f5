"""Answers that no single mirror could have given are found."""

from tests.replicas.agreement import ABSENT, disagreements
from tests.support.load import Outcome


def answer(version: str, began: float, ended: float, status: int = 200) -> Outcome:
    return Outcome("here", "/", began, ended, status, True, status == 200, version, "")


def test_an_older_version_is_wrong_only_after_a_newer_one_has_been_given() -> None:
    old, new = answer("a", 2, 3), answer("b", 0, 1)
    assert disagreements([old, new], ["a", "b"]) == ["here gave version 0 after here had given version 1"]
    assert disagreements([old, new], ["b", "a"]) == []
    at_the_same_time = answer("a", 0.5, 3)
    assert disagreements([at_the_same_time, new], ["a", "b"]) == []


def test_a_deletion_has_a_place_in_the_story() -> None:
    gone = answer("", 0, 1, status=404)
    assert disagreements([gone, answer("b", 2, 3)], ["a", ABSENT, "b"]) == []
    assert disagreements([gone, answer("a", 2, 3)], ["a", ABSENT, "b"])


def test_an_answer_that_is_none_is_wrong() -> None:
    assert disagreements([answer("", 0, 1, status=500)], ["a"]) == ["here gave failed: "]
