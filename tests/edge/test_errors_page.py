"""docs/errors.md has every error that a client can see, as the code has it."""

import re
from pathlib import Path

from mirror import errors
from mirror.edge.reference import REMEDIES, UNSEEN, document, seen

_PAGE = Path(__file__).parents[2] / "docs" / "errors.md"


def test_the_page_is_up_to_date() -> None:
    assert _PAGE.read_text() == document(), "python -m mirror.edge.reference > docs/errors.md"


def test_every_error_that_a_client_can_see_has_a_remedy_and_no_other() -> None:
    assert set(seen()) == REMEDIES.keys()


def test_what_is_said_never_to_be_seen_is_not_in_the_page() -> None:
    tree = re.findall(r"([A-Z]\w+) +never seen by a client", errors.__doc__ or "")
    assert {error.__name__ for error in UNSEEN} >= set(tree) != set()


def test_the_page_has_a_row_for_each_error_with_its_code_and_status() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| (\d+) \|", document(), re.MULTILINE)
    declared = [(error.code, str(error.status)) for error in seen() if error is not errors.UpstreamRefused]
    assert sorted(rows) == sorted(declared)
