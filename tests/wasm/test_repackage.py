"""The manifest that is made of a module: the same at all times, taken by agents, known again by its bytes alone."""

import json

import pytest

from mirror.digest import Digest
from mirror.oci import OCI_MANIFEST, Manifest
from mirror.wasm.examine import examine
from mirror.wasm.repackage import CONFIG, chosen_child, in_the_way, original_tag, repackaged, source_of
from tests.support.artifacts import OCI_LAYER, Artifact, cncf, compat, image, index, tar_gz, wasm_module
from tests.wasm.verdicts import Case, cases, described

MODULE = wasm_module(500)
SOURCE = Digest.of(b"an artifact")


def parsed(artifact: Artifact) -> Manifest:
    return Manifest.parse(artifact.body, artifact.media_type, artifact.digest)


def made() -> Manifest:
    return repackaged(SOURCE, Digest.of(MODULE), len(MODULE))


def test_the_same_module_of_the_same_artifact_is_always_the_same_manifest() -> None:
    """Every replica, and every release, makes these very bytes: agents pin them."""
    fixed = repackaged(Digest.of(b"an artifact"), Digest.of(b"\0asm\x01\0\0\0"), 8)
    assert str(fixed.digest) == "sha256:9b86470502fa2aaf1a1ca016c5886961605c74bb8e5e95d71e9533bf270a47fc"
    assert fixed.digest == Digest.of(fixed.body)
    assert fixed.body != made().body


def test_agents_and_envoy_gateway_take_what_is_made() -> None:
    described = examine(made(), {Digest.of(MODULE): MODULE, Digest.of(CONFIG): CONFIG})
    assert described.agent.accepted, described.agent
    assert described.gateway.accepted, described.gateway
    assert described.module_digest == Digest.of(MODULE)


def test_what_was_made_is_known_again_with_its_source() -> None:
    assert source_of(made()) == SOURCE


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.update(annotations={}),
        lambda fields: fields["annotations"].update({"org.opencontainers.image.base.digest": "no digest"}),
        lambda fields: fields["annotations"].update({"org.opencontainers.image.title": "mine"}),
        lambda fields: fields["layers"].pop(),
        lambda fields: fields["layers"].reverse(),
        lambda fields: fields["layers"][0].update(mediaType="application/wasm"),
        lambda fields: fields.update(extra=1),
    ],
    ids=["no annotation", "no digest", "another annotation", "one layer", "another order", "another type", "more"],
)
def test_what_anybody_else_has_made_is_not_taken_for_it(change: object) -> None:
    fields = json.loads(made().body)
    assert callable(change)
    change(fields)
    body = json.dumps(fields, separators=(",", ":")).encode()
    assert source_of(Manifest.parse(body, OCI_MANIFEST, Digest.of(body))) is None


def test_the_same_fields_written_in_another_way_are_not_taken_for_it() -> None:
    body = json.dumps(json.loads(made().body)).encode()
    assert source_of(Manifest.parse(body, OCI_MANIFEST, Digest.of(body))) is None


@pytest.mark.parametrize(
    ("tag", "suffix", "original"),
    [
        ("1.2.0-istio", "-istio", "1.2.0"),
        ("1.2.0", "-istio", None),
        ("-istio", "-istio", None),
        ("1-istio-istio", "-istio", "1-istio"),
        ("1-istio.2", "-istio", None),
        ("v1_agents", "_agents", "v1"),
        ("", "-istio", None),
    ],
)
def test_a_tag_with_the_suffix_means_the_one_without(tag: str, suffix: str, original: str | None) -> None:
    assert original_tag(tag, suffix) == original


def test_of_an_index_agents_child_is_meant_or_else_the_only_one() -> None:
    first, second = compat(MODULE), cncf(MODULE)
    both = index(first, second, platforms=("linux/arm64", "linux/amd64"))
    child = chosen_child(parsed(both))
    assert child is not None
    assert child.digest == second.digest
    alone = chosen_child(parsed(index(first, platforms=("wasip1/wasm",))))
    assert alone is not None
    assert alone.digest == first.digest
    assert chosen_child(parsed(index(first, second, platforms=("wasip1/wasm", "wasip2/wasm")))) is None
    assert chosen_child(parsed(index())) is None


def test_what_only_attests_to_the_only_child_does_not_count() -> None:
    plugin, attestation = compat(MODULE), image([("application/vnd.in-toto+json", b"{}")])
    both = index(plugin, attestation, platforms=("wasip1/wasm", "unknown/unknown"))
    child = chosen_child(parsed(both))
    assert child is not None
    assert child.digest == plugin.digest


@pytest.mark.parametrize(
    ("artifact", "word"),
    [
        (image([(OCI_LAYER, tar_gz({"a.wasm": MODULE, "b.wasm": wasm_module(600)}))]), "2 modules"),
        (image([(OCI_LAYER, tar_gz({"README": b"none"}))]), "exactly one good module"),
        (cncf(b"\0asm\x01\0\0\0\xff\xff"), "exactly one good module"),
        (cncf(b"\0asm\x0d\0\x01\0"), "component"),
    ],
    ids=["two", "none", "malformed", "component"],
)
def test_what_is_not_one_good_module_is_refused_with_the_reason(artifact: Artifact, word: str) -> None:
    reason = in_the_way(examine(parsed(artifact), artifact.blobs))
    assert reason is not None
    assert word in reason


def test_what_was_not_looked_at_is_not_judged() -> None:
    reason = in_the_way(examine(parsed(cncf(MODULE)), {}))
    assert reason is not None
    assert "could be looked at" in reason


@pytest.mark.parametrize("case", [case for case in cases() if case.module is None], ids=lambda case: case.name)
def test_whatever_agents_refuse_is_mended_or_refused_in_words(case: Case) -> None:
    seen = described(case)
    reason = in_the_way(seen)
    if reason is not None:
        assert len(reason) > 20
        return
    assert seen.chosen is not None
    assert seen.module is not None
    assert seen.module_digest is not None
    assert not seen.module.component
