"""The layout that a manifest is meant to have, and the layers of it that are looked into."""

import pytest

from mirror.wasm.artifact import Layout, for_agents, layers_to_open, layout_of
from tests.support.artifacts import (
    CNCF_CONFIG,
    CNCF_LAYER,
    DOCKER_LAYER,
    OCI_LAYER,
    RAW_CONFIG,
    RAW_LAYER,
    Artifact,
    cncf,
    compat,
    docker,
    docker_list,
    image,
    index,
    raw,
)
from tests.wasm.verdicts import MODULE, TAR, ZSTD, of_docker, parsed

PLENTY = 1 << 30


@pytest.mark.parametrize(
    ("artifact", "layout"),
    {
        "raw": (raw(MODULE), Layout.RAW),
        "raw alone": (image([(RAW_LAYER, MODULE)]), Layout.RAW),
        "raw by its config": (image([("application/octet-stream", MODULE)], config=(RAW_CONFIG, b"{}")), Layout.RAW),
        "raw beside an archive": (image([(RAW_LAYER, MODULE), (OCI_LAYER, b"")]), Layout.RAW),
        "raw in CNCF's config": (image([(RAW_LAYER, MODULE)], config=(CNCF_CONFIG, b"{}")), Layout.RAW),
        "compat": (compat(MODULE), Layout.COMPAT),
        "compat of a layer of Docker's": (image([(DOCKER_LAYER, b"")]), Layout.COMPAT),
        "docker": (docker(MODULE), Layout.DOCKER),
        "docker of a layer of OCI's": (of_docker((OCI_LAYER, b"")), Layout.DOCKER),
        "cncf": (cncf(MODULE), Layout.CNCF),
        "cncf by its config": (image([("application/octet-stream", MODULE)], config=(CNCF_CONFIG, b"{}")), Layout.CNCF),
        "cncf by its layer": (image([(CNCF_LAYER, MODULE)]), Layout.CNCF),
        "an index": (index(raw(MODULE)), Layout.INDEX),
        "a list": (docker_list(), Layout.INDEX),
        "something": (image([("text/plain", b"-")]), Layout.OTHER),
        "nothing": (image([]), Layout.OTHER),
    }.values(),
)
def test_the_layout_is_what_an_artifact_is_meant_to_be(artifact: Artifact, layout: Layout) -> None:
    assert layout_of(parsed(artifact)) is layout


def opened(*layers: tuple[str, bytes], at_most: int = PLENTY) -> tuple[int, ...]:
    """The layers of such an image that are looked into."""
    return layers_to_open(parsed(image(list(layers))), at_most)


def test_layers_that_can_be_no_module_are_not_opened() -> None:
    no_module = [(kind, kind.encode()) for kind in (RAW_CONFIG, "text/plain", "application/yaml", TAR, ZSTD)]
    for layer in no_module:
        assert opened(layer) == ()
        assert opened((CNCF_LAYER, MODULE), layer) == (0,)
    assert opened(("application/octet-stream", b"-"), ("", b"--")) == (0, 1)
    assert opened() == ()


def test_of_a_container_the_last_layer_alone_is_opened() -> None:
    layers = [(OCI_LAYER, bytes([number])) for number in range(9)]
    assert opened(*layers[:4]) == (0, 1, 2, 3)
    assert opened(*layers) == (8,)
    assert opened((RAW_LAYER, MODULE), *layers) == (0, 9)


def test_of_many_modules_a_few_are_opened_and_the_last() -> None:
    layers = [(CNCF_LAYER, bytes([number])) for number in range(100)]
    assert opened(*layers) == (0, 1, 2, 3, 99)


def test_layers_that_are_too_large_are_not_opened() -> None:
    assert opened((RAW_LAYER, b"123"), (OCI_LAYER, b"12"), at_most=2) == (1,)


def test_agents_take_the_first_child_for_their_platform() -> None:
    children = raw(MODULE), compat(MODULE), docker(MODULE)
    for platforms, taken in (
        (("linux/amd64",), 0),
        (("linux/arm64", None, "linux/amd64"), 1),
        (("windows/amd64", "wasi/wasm", "linux/amd64"), 2),
    ):
        child = for_agents(parsed(index(*children, platforms=platforms)))
        assert child is not None
        assert child.digest == children[taken].digest
    assert for_agents(parsed(index(*children, platforms=("Linux/AMD64",)))) is None
