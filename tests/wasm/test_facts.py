"""What is kept of a description: in one line each, whatever strangers have written."""

from dataclasses import replace

import pytest

from mirror import metrics
from mirror.oci import Manifest
from mirror.wasm.artifact import Layout, Verdict
from mirror.wasm.description import Description
from mirror.wasm.examine import examine
from mirror.wasm.facts import VERDICTS, Facts, facts_of
from mirror.wasm.module import Export
from tests.support.artifacts import Artifact, cncf, compat
from tests.wasm.modules import plugin

NO = Verdict(False, "it is not", "mend it")


def described(artifact: Artifact) -> Description:
    manifest = Manifest.parse(artifact.body, artifact.media_type, artifact.digest)
    return examine(manifest, {digest: memoryview(content) for digest, content in artifact.blobs.items()})


def test_why_is_what_agents_say_or_else_envoy() -> None:
    taken = described(compat(plugin()))
    assert facts_of(taken) == Facts("oci tar+gzip", ("0.2.1",), "accepted", None)
    assert facts_of(replace(taken, envoy=NO)) == Facts("oci tar+gzip", ("0.2.1",), "accepted", "it is not")
    refused = described(cncf(plugin()))
    assert facts_of(replace(refused, envoy=NO)).why == refused.agent.reason
    assert facts_of(Description(Layout.OTHER, NO, NO, NO)) == Facts("other", (), "not_wasm", "it is not")


@pytest.mark.parametrize(
    ("version", "expected"), [("0_2\ud800_1", "0.2.1"), ("a b\nc", "abc"), ("9" * 100, "9" * 32), ("é", "é")]
)
def test_words_of_strangers_are_bounded_and_can_be_kept(version: str, expected: str) -> None:
    taken = described(compat(plugin()))
    assert taken.module is not None
    exports = tuple(Export(f"proxy_abi_version_{version}", "function", None) for _ in range(20))
    why = Verdict(False, f"layer 1 is of type {version}", "mend it")
    facts = facts_of(replace(taken, agent=why, module=replace(taken.module, exports=exports)))
    assert facts.abi == (expected,) * 8
    assert facts.why is not None
    assert facts.why.isprintable()
    "".join((facts.why, *facts.abi)).encode()


def test_verdicts_are_those_that_are_counted() -> None:
    assert VERDICTS == metrics.VERDICTS
