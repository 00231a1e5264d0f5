"""Whether the answers of replicas for a tag fit one story: as if there were one mirror, to which all clients come."""

from collections.abc import Sequence

from tests.support.load import Outcome

ABSENT = "absent"
"""What a tag is that has been deleted."""


def given(outcome: Outcome) -> str:
    """The version that an answer is; what went wrong, where it is none."""
    return outcome.digest if outcome.right else ABSENT if outcome.status == 404 else f"failed: {outcome.error}"


def disagreements(outcomes: Sequence[Outcome], story: Sequence[str]) -> list[str]:
    """The answers to requests that began when another had already ended with a version that comes later in ``story``.

    An answer that is not in the story is one too.
    """
    order = {version: number for number, version in enumerate(story)}
    found = [f"{outcome.url} gave {given(outcome)}" for outcome in outcomes if given(outcome) not in order]
    numbered = [(outcome, order[given(outcome)]) for outcome in outcomes if given(outcome) in order]
    ended = sorted(numbered, key=lambda one: one[0].ended)
    latest, by, seen = 0, "", 0
    for outcome, number in sorted(numbered, key=lambda one: one[0].began):
        while seen < len(ended) and ended[seen][0].ended < outcome.began:
            if ended[seen][1] > latest:
                latest, by = ended[seen][1], ended[seen][0].url
            seen += 1
        if number < latest:
            found.append(f"{outcome.url} gave version {number} after {by} had given version {latest}")
    return found
