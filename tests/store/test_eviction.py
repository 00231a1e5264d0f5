"""What goes when the disk holds too much, decided of numbers alone."""

import random
from collections.abc import Collection, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mirror.digest import Digest
from mirror.store.eviction import NEVER, Held, batches, excess


def of(name: str) -> str:
    """The digest of a blob with a name."""
    return str(Digest.of(name.encode()))


def gone(
    held: Mapping[str, tuple[int, float]],
    need: int,
    names: Mapping[str, Collection[str]] | None = None,
    stays: str = "",
    most: int = 100,
) -> str:
    """What goes, in its order; batches are parted by a blank."""
    known = {of(name): name for name in held}
    found = batches(
        {of(name): Held(size, used_at) for name, (size, used_at) in held.items()},
        {of(name): [of(child) for child in children] for name, children in (names or {}).items()},
        {of(name) for name in stays},
        need,
        most,
    )
    return " ".join("".join(known[digest] for digest in batch) for batch in found)


@pytest.mark.parametrize(
    ("used", "expected"),
    [(0, 0), (800, 0), (900, 0), (901, 101), (1000, 200), (1500, 700)],
)
def test_above_the_high_mark_all_goes_down_to_the_low_one(used: int, expected: int) -> None:
    assert excess(used, 1000, 0.9, 0.8) == expected


def test_where_nothing_is_held_and_nothing_is_free_there_is_nothing_to_do() -> None:
    assert excess(0, 0, 0.9, 0.8) == 0


@pytest.mark.parametrize(
    ("need", "expected"),
    [(0, ""), (1, "b"), (10, "b"), (11, "ba"), (20, "ba"), (21, "bac"), (1000, "bac")],
)
def test_what_was_used_least_recently_goes_first_and_no_more_than_has_to(need: int, expected: str) -> None:
    assert gone({"a": (10, 2), "b": (10, 1), "c": (10, 3)}, need) == expected


def test_what_stays_stays_and_so_does_what_may_not_go_yet() -> None:
    assert gone({"a": (10, 1), "b": (10, 2), "c": (10, NEVER)}, 1000, stays="a") == "b"


@pytest.mark.parametrize(
    ("names", "need", "expected"),
    [
        pytest.param({"m": "xy"}, 1, "mxy", id="a manifest goes together with its layers, and before them"),
        pytest.param({"m": "xxy"}, 1, "mxy", id="it may name a layer twice"),
        pytest.param({"m": "xy", "n": "y"}, 1, "mx", id="a layer that another manifest names stays with that one"),
        pytest.param({"m": "xy", "n": "y"}, 40, "mxny", id="and goes with the last one"),
        pytest.param({"i": "mn", "m": "x", "n": "y"}, 1, "imxny", id="an index goes with its manifests and layers"),
        pytest.param({"i": "m", "m": "x", "n": "xy"}, 1, "im", id="but for what others name"),
        pytest.param({"m": "xz"}, 1, "mx", id="what is named need not be held"),
        pytest.param({"m": "mx"}, 1, "mx", id="nothing holds itself"),
        pytest.param({"z": "mx"}, 100, "xm", id="what is not held names nothing"),
    ],
)
def test_manifests_and_their_layers(names: Mapping[str, str], need: int, expected: str) -> None:
    held = {"i": (10, 1.0), "m": (10, 1), "n": (10, 5), "x": (10, 1), "y": (10, 1)}
    held = {name: about for name, about in held.items() if name in set(names) | set("".join(names.values()))}
    assert sorted(gone(held, need, names)) == sorted(expected)
    assert gone(held, need, names)[0] == expected[0]


def test_a_group_was_used_when_the_last_of_it_was() -> None:
    held = {"m": (10, 1.0), "x": (10, 9.0), "a": (10, 5.0)}
    assert gone(held, 1, {"m": "x"}) == "a"
    assert gone(held, 11, {"m": "x"}) == "amx"


def test_the_use_of_a_layer_counts_for_the_last_manifest_that_names_it() -> None:
    held = {"m": (10, 1.0), "n": (10, 2.0), "x": (10, 9.0), "a": (10, 5.0)}
    assert gone(held, 1000, {"m": "x", "n": "x"}) == "manx"


def test_a_manifest_stays_while_its_layer_is_young() -> None:
    held = {"m": (10, 1.0), "x": (10, NEVER), "a": (10, 5.0)}
    assert gone(held, 1000, {"m": "x"}) == "a"


def test_what_something_names_that_stays_stays_too() -> None:
    held = {"i": (10, 9.0), "m": (10, 1.0), "x": (10, 1.0), "a": (10, 5.0)}
    assert gone(held, 1000, {"i": "m", "m": "x"}, stays="i") == "a"


def test_a_manifest_goes_though_a_layer_of_it_is_hosted() -> None:
    assert gone({"m": (10, 1.0), "x": (10, 1.0), "y": (10, 1.0)}, 1000, {"m": "xy"}, stays="x") == "my"


def test_batches_have_whole_groups() -> None:
    held = {name: (10, float(at)) for at, name in enumerate("mxyabcd")}
    assert gone(held, 60, {"m": "xy"}, most=2) == "mxy ab c"


@given(st.integers(0, 2**32), st.integers(0, 60), st.integers(0, 400))
def test_whatever_is_held_no_manifest_that_stays_lacks_a_layer_that_was_there(seed: int, size: int, need: int) -> None:
    chance = random.Random(seed)
    blobs = [of(str(number)) for number in range(size)]
    held = {blob: Held(chance.randrange(10), chance.choice([1.0, 2.0, 3.0, 4.0, NEVER])) for blob in blobs}
    names = {
        blob: chance.sample(blobs[place + 1 :], min(chance.randrange(4), size - place - 1))
        for place, blob in enumerate(blobs)
        if chance.random() < 0.4
    }
    stays = {blob for blob in blobs if chance.random() < 0.1}
    plan = [blob for batch in batches(held, names, stays, need, 3) for blob in batch]
    left = set(blobs) - set(plan)
    assert len(set(plan)) == len(plan)
    assert not stays & set(plan)
    assert all(held[blob].used_at != NEVER for blob in plan)
    assert all(set(names[blob]) <= left for blob in left if blob in names)
    if sum(held[blob].size for blob in plan) < need:
        assert all(not goes_alone(blob, left, held, names, stays) for blob in left)


def goes_alone(
    blob: str,
    left: set[str],
    held: Mapping[str, Held],
    names: Mapping[str, Collection[str]],
    stays: set[str],
) -> bool:
    """Whether a blob might have gone: nothing that is left names it, and nothing that it alone names has to stay."""
    named = {child for one in left if one != blob for child in names.get(one, ())}
    alone = set(names.get(blob, ())) - named
    return blob not in stays | named and held[blob].used_at != NEVER and not alone
