"""Go's own readers and ours, on the same archives: agents are made of Go's."""

import json

import pytest

from tests.support.tools import require
from tests.wasm.archives import corpus, mutated
from tests.wasm.listings import LISTINGS, by_go, difference, ours, parsed

pytestmark = pytest.mark.needs("archives")

MUTATIONS = 30_000


def test_the_listings_of_the_corpus_are_what_go_reads() -> None:
    printed = by_go(require("archives"), list(corpus().values()))
    assert dict(zip(corpus(), printed, strict=True)) == json.loads(LISTINGS.read_text())


@pytest.mark.parametrize("first", range(0, MUTATIONS, 5_000))
def test_faulty_archives_are_read_as_go_reads_them_or_refused(first: int) -> None:
    """A seed that fails here belongs into the corpus."""
    archives = [mutated(seed) for seed in range(first, first + 5_000)]
    listings = zip(archives, by_go(require("archives"), archives), strict=True)
    wrong = {first + at: difference(ours(archive), parsed(go)) for at, (archive, go) in enumerate(listings)}
    assert {seed: words for seed, words in wrong.items() if words} == {}
