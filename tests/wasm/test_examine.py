"""The description of an artifact: what is chosen, what is said of it, and what is said where there is none."""

import hashlib
import json
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.digest import Digest
from mirror.oci import OCI_MANIFEST
from mirror.wasm.artifact import Layout, Verdict
from mirror.wasm.description import Description, as_json
from mirror.wasm.examine import examine, examine_file
from mirror.wasm.functions import RECENT_WASI
from mirror.wasm.module import Import
from tests.support.artifacts import (
    CNCF_LAYER,
    OCI_LAYER,
    RAW_LAYER,
    Artifact,
    cncf,
    compat,
    docker,
    entry,
    image,
    index,
    raw,
    tar_gz,
    wasm_module,
)
from tests.wasm.modules import custom, plugin
from tests.wasm.modules import module as wasm
from tests.wasm.verdicts import MODULE, OTHER, RUNTIME, ZSTD, archive, parsed

LARGE = 17 * 1024 * 1024  # bytes; more than is unpacked in memory


def described(artifact: Artifact) -> Description:
    """The description of an artifact that is wholly at hand."""
    return examine(parsed(artifact), artifact.blobs)


LAYOUTS = {
    Layout.RAW: raw(MODULE),
    Layout.COMPAT: compat(MODULE),
    Layout.DOCKER: docker(MODULE),
    Layout.CNCF: cncf(MODULE),
}


@pytest.mark.parametrize(("layout", "artifact"), LAYOUTS.items())
def test_the_module_of_each_layout_is_described(layout: Layout, artifact: Artifact) -> None:
    description = described(artifact)
    assert description.layout is layout
    assert (description.digest, description.media_type) == (artifact.digest, artifact.media_type)
    assert description.module_digest == Digest.of(MODULE)
    assert description.module is not None
    assert description.module.size == len(MODULE)
    assert description.problem is None
    assert description.envoy.accepted
    assert description.accepted == (layout is not Layout.CNCF)


@pytest.mark.parametrize(("layout", "artifact"), LAYOUTS.items())
def test_what_is_not_at_hand_is_not_held_against_an_artifact(layout: Layout, artifact: Artifact) -> None:
    description = examine(parsed(artifact), {})
    assert not description.complete
    assert not description.accepted
    assert description.problem is not None
    assert "cannot tell yet" in description.problem
    if layout is not Layout.CNCF:  # whatever is in that one, agents do not take it
        assert "cannot tell yet" in description.agent.reason


def test_the_layer_that_agents_do_not_read_need_not_be_at_hand() -> None:
    artifact = image([(RAW_LAYER, MODULE), RUNTIME])
    description = examine(parsed(artifact), {Digest.of(MODULE): MODULE})
    assert description.complete
    assert description.accepted


def test_agents_may_take_either_of_two_layers_so_both_must_be_at_hand() -> None:
    without = tar_gz({"README": b"-"})
    artifact = parsed(image([(RAW_LAYER, MODULE), (OCI_LAYER, without)]))
    for at_hand in (MODULE, without):
        description = examine(artifact, {Digest.of(at_hand): at_hand})
        assert not description.complete
        assert "cannot tell yet" in description.agent.reason


def test_a_layer_above_the_mirrors_limit_is_not_looked_into() -> None:
    artifact = compat(MODULE)
    description = examine(parsed(artifact), artifact.blobs, max_module_size=1000)
    assert not description.complete
    assert not description.agent.accepted
    assert description.module is None
    assert "more than 1,000 (wasm.max_module_size)" in description.agent.reason
    assert "ask again" not in description.agent.remedy, "that would be in vain"


def test_a_module_above_the_mirrors_limit_is_said_to_be_so_also_where_agents_take_no_such_layer() -> None:
    description = examine(parsed(cncf(MODULE)), cncf(MODULE).blobs, max_module_size=100)
    assert description.problem is not None
    assert "none is opened that has more than 100 (wasm.max_module_size)" in description.problem
    assert description.envoy.remedy == "make the layer smaller, or the setting larger"
    assert "CNCF" in description.agent.reason


def test_who_has_no_module_in_an_image_is_not_told_to_rename_one() -> None:
    container = image([(OCI_LAYER, tar_gz({"bin/sh": b"\x7fELF"}))])
    assert examine(parsed(container), container.blobs).agent.remedy == "put a module into it, as plugin.wasm"


def test_a_module_that_unpacks_to_more_than_the_mirrors_limit_is_not_read() -> None:
    module = MODULE + b"\0" + (90_000).to_bytes(3, "little") + bytes(90_000)
    layer = tar_gz({"plugin.wasm": module})
    description = examine(parsed(image([(OCI_LAYER, layer)])), {Digest.of(layer): layer}, max_module_size=len(layer))
    assert description.agent.accepted
    assert description.module is None
    assert "wasm.max_module_size" in description.envoy.reason


def test_the_only_good_module_is_described_where_agents_find_none() -> None:
    files = {"README": b"-", "filter.wasm": MODULE, "text.wasm": b"(module)", "cut.wasm": b"\0asm"}
    for artifact in (
        image([(OCI_LAYER, tar_gz(files))]),
        image([(OCI_LAYER, tar_gz(files)), RUNTIME]),
        image([("application/octet-stream", MODULE)]),
        image([(OCI_LAYER, MODULE)]),
        image([("application/gzip", tar_gz(files))]),
        image([(CNCF_LAYER, MODULE), ("text/plain", OTHER), ("application/example+json", OTHER), (ZSTD, OTHER)]),
    ):
        description = described(artifact)
        assert not description.agent.accepted
        assert description.envoy.accepted
        assert description.module_digest == Digest.of(MODULE)
        assert description.problem is None


def test_of_several_good_modules_none_is_described_unless_agents_take_one() -> None:
    several = {"filter.wasm": MODULE, "plugin.wasm.bak": OTHER}
    description = described(image([(OCI_LAYER, tar_gz(several))]))
    assert description.module is None
    assert description.problem is not None
    assert "it holds 2 modules (filter.wasm, plugin.wasm.bak)" in description.problem
    assert description.envoy == Verdict(False, description.problem, description.agent.remedy)
    assert described(image([(OCI_LAYER, tar_gz({**several, "plugin.wasm": MODULE}))])).module is not None


@pytest.mark.parametrize(
    ("artifact", "problem"),
    {
        "nothing": (image([]), "it has no layers"),
        "what is not opened": (image([(ZSTD, b"-")]), f"of type {ZSTD}"),
        "text": (image([(CNCF_LAYER, b"(module)")]), "it holds no module"),
        "a container": (image([(OCI_LAYER, tar_gz({str(n): b"-"})) for n in range(9)]), "it holds no module"),
        "no archive": (image([(OCI_LAYER, b"text in a file")]), "layer 1 cannot be read: it is not gzipped"),
        "no module": (compat(b"text of more than eight bytes"), "plugin.wasm in its layer is no module"),
        "an index": (index(), "the index is empty"),
        "its child": (index(compat(MODULE)), "cannot tell yet"),
    }.values(),
)
def test_where_there_is_no_module_a_sentence_says_why(artifact: Artifact, problem: str) -> None:
    description = described(artifact)
    assert description.module is None
    assert description.problem is not None
    assert problem in description.problem
    assert description.envoy.reason == description.problem


@pytest.mark.parametrize("layout", [raw, compat, cncf])
@pytest.mark.parametrize("size", [len(MODULE), LARGE], ids=["small", "large"])
def test_a_malformed_module_is_taken_by_agents_and_not_by_envoy(layout: Callable[[bytes], Artifact], size: int) -> None:
    module = wasm_module(size)[:-10]
    description = described(layout(module))
    assert description.agent.accepted == (layout is not cncf)
    assert not description.envoy.accepted
    assert not description.accepted
    assert description.module is None
    assert description.module_digest == Digest.of(module)
    assert description.problem == description.envoy.reason != ""


def test_a_large_module_of_an_archive_does_not_lie_in_memory(tmp_path: Path) -> None:
    module = wasm_module(LARGE)
    artifact = compat(module)
    tracemalloc.start()
    try:
        description = examine(parsed(artifact), artifact.blobs, folder=tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert description.module_digest == Digest.of(module)
    assert peak < LARGE // 2
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_takes_no_file_says_nothing_of_the_module(tmp_path: Path) -> None:
    artifact = compat(wasm_module(LARGE))
    with pytest.raises(FileNotFoundError):
        examine(parsed(artifact), artifact.blobs, folder=tmp_path / "absent")


def test_who_pins_an_index_is_told_the_childs_digest() -> None:
    child = compat(MODULE)
    above = parsed(index(child))
    by_tag = examine(parsed(child), child.blobs, index=above)
    assert by_tag.accepted
    assert by_tag.index == above.digest
    assert by_tag.warnings == ()
    pinned = examine(parsed(child), child.blobs, index=above, pinned_index=True)
    for verdict in (pinned.agent, pinned.gateway):
        assert not verdict.accepted
        assert "checksum mismatch" in verdict.reason
        assert verdict.remedy == f"pin the child instead: @{child.digest}"
    assert str(child.digest) in pinned.warnings[0]
    assert pinned.envoy.accepted, "from /modules, where the module's own digest counts"
    assert pinned.module is not None


def test_what_agents_overlook_is_a_warning() -> None:
    two = {"first/plugin.wasm": MODULE, "plugin.wasm": OTHER}
    (warning,) = described(image([(OCI_LAYER, tar_gz(two))])).warnings
    assert "agents take the first, first/plugin.wasm" in warning
    (warning,) = described(image([(OCI_LAYER, archive(entry("plugin.wasm", MODULE), b"x" * 512))])).warnings
    assert "agents stop reading at plugin.wasm and do not see that what follows is broken" in warning
    assert described(compat(MODULE)).warnings == ()
    wasi = plugin([("wasi_snapshot_preview1", sorted(RECENT_WASI)[0], "i32 -> i32")])
    (warning,) = described(compat(wasi)).warnings
    assert "since 1.38" in warning


def test_what_envoy_lacks_is_named() -> None:
    lacking = plugin([("env", "proxy_unheard_of", "i32 -> i32")])
    description = described(compat(lacking))
    assert description.agent.accepted
    assert not description.envoy.accepted
    assert [wanted.name for wanted in description.lacking] == ["proxy_unheard_of"]
    assert "proxy_unheard_of" in description.envoy.reason


def test_the_gateway_says_that_it_refuses_what_agents_cut() -> None:
    artifact = raw(MODULE)
    description = examine(parsed(artifact), artifact.blobs, agents_size=len(MODULE) - 1)
    assert "agents cut it" in description.agent.reason
    assert "Envoy Gateway refuses it" in description.gateway.reason
    assert description.envoy.accepted


def test_a_file_is_described_as_it_is() -> None:
    description = examine_file(MODULE)
    assert description.layout is Layout.FILE
    assert description.accepted
    assert description.digest is None
    assert description.module_digest == Digest.of(MODULE)
    for wrong in (b"", b"\0asm", b"(module)"):
        refused = examine_file(wrong)
        assert not refused.agent.accepted
        assert not refused.envoy.accepted
        assert refused.problem is not None
        assert "does not begin with" in refused.problem
    cut = examine_file(MODULE[:-1])
    assert cut.agent.accepted
    assert not cut.envoy.accepted


FIELDS = {
    *("layout", "digest", "media_type", "index", "module", "problem", "accepted", "accepted_by", "warnings"),
    *("complete", "found"),
}
MODULE_FIELDS = {
    *("sha256", "layer", "file", "size", "version", "kind", "abi", "name", "imports", "lacking", "exports"),
    *("memories", "sections", "producers", "left_out"),
}


@pytest.mark.parametrize(
    "artifact",
    [*LAYOUTS.values(), image([]), index(), image([(OCI_LAYER, b"-")])],
    ids=lambda artifact: artifact.digest.hex[:8],
)
def test_the_json_has_the_same_fields_for_every_artifact(artifact: Artifact) -> None:
    form = json.loads(json.dumps(as_json(described(artifact)), allow_nan=False))
    assert form.keys() == FIELDS
    assert form["accepted_by"].keys() == {"agents", "envoy_gateway", "envoy"}
    assert all(verdict.keys() == {"accepted", "reason", "remedy"} for verdict in form["accepted_by"].values())
    assert all(found.keys() == {"layer", "name", "size", "wasm"} for found in form["found"])
    assert form["module"] is None or form["module"].keys() == MODULE_FIELDS


def test_the_json_of_a_module() -> None:
    description = described(compat(MODULE))
    lacking = (
        Import("env", "proxy_missing", "function", "i32 -> i32"),
        Import("wasi", "x", "function"),
        Import("env", "y", "memory"),
    )
    form = as_json(replace(description, lacking=lacking))
    assert form["digest"] == str(compat(MODULE).digest)
    module = form["module"]
    assert isinstance(module, dict)
    assert module["sha256"] == hashlib.sha256(MODULE).hexdigest()
    assert (module["layer"], module["file"], module["size"]) == (0, "plugin.wasm", len(MODULE))
    assert (module["kind"], module["version"], module["abi"]) == ("core module", 1, ["0.2.1"])
    assert module["sections"][-1] == {"name": "pad", "size": 30_004, "custom": True}
    assert {"name": "malloc", "kind": "function", "signature": "i32 -> i32"} in module["exports"]
    assert module["memories"][0].items() >= {"minimum": 1, "maximum": None, "imported": False}.items()
    assert module["lacking"] == {
        "env": [
            {"name": "proxy_missing", "kind": "function", "signature": "i32 -> i32"},
            {"name": "y", "kind": "memory", "signature": None},
        ],
        "wasi": [{"name": "x", "kind": "function", "signature": None}],
    }
    of_file = as_json(examine_file(MODULE))["module"]
    assert isinstance(of_file, dict)
    assert (of_file["layer"], of_file["file"]) == (None, None)


def test_of_a_module_with_masses_of_everything_little_is_told_and_its_abi_version_is() -> None:
    name, masses = "\x01" * 700, 2_000
    exports = {f"{number}{name}": "void -> void" for number in range(masses)}
    exports |= {"proxy_abi_version_0_2_1": "void -> void", "malloc": "i32 -> i32"}
    imports = [("env", f"{number}{name}", "void -> void") for number in range(masses)]
    description = examine_file(wasm(imports=imports, exports=exports, customs=[custom(name, b"")] * masses))
    module = description.module
    assert module is not None
    assert module.abi_versions == ("0.2.1",)
    assert max(map(len, (module.imports, module.exports, module.sections, description.lacking))) == 500
    assert module.left_out > 3 * (masses - 500)
    assert len(description.envoy.reason) < 1100
    form = as_json(description)
    assert len(json.dumps(form)) < 4 << 20
    assert isinstance(form["module"], dict)
    assert form["module"]["left_out"] == module.left_out


def test_reasons_are_short_whatever_a_manifest_holds() -> None:
    described_as = image([("a/" + "b" * 1_000_000, b"-")])
    description = examine(parsed(described_as), described_as.blobs)
    for text in (description.agent.reason, description.gateway.reason, description.problem):
        assert text is not None
        assert len(text) < 1100


TYPES = [
    "application/wasm",
    RAW_LAYER,
    OCI_LAYER,
    "application/vnd.docker.image.rootfs.diff.tar.gzip",
    "text/plain",
    "",
]
CONTENTS = st.one_of(
    st.binary(max_size=64),
    st.just(MODULE[:1000]),
    st.binary(max_size=64).map(lambda tail: b"\0asm\x01\0\0\0" + tail),
    st.binary(max_size=600).map(archive),
    st.binary(max_size=64).map(lambda content: tar_gz({"plugin.wasm": b"\0asm" + content})),
    st.tuples(st.just(tar_gz({"plugin.wasm": MODULE[:500]})), st.integers(0, 300)).map(lambda cut: cut[0][: cut[1]]),
)


@given(
    layers=st.lists(st.tuples(st.sampled_from(TYPES), CONTENTS), max_size=6),
    at_hand=st.integers(0, 63),
    config=st.sampled_from(["application/vnd.oci.image.config.v1+json", "application/vnd.wasm.config.v0+json"]),
    kind=st.sampled_from([OCI_MANIFEST, "application/vnd.docker.distribution.manifest.v2+json"]),
)
@settings(max_examples=300, deadline=None)
def test_whatever_lies_in_the_layers_is_told_and_never_raised(
    layers: list[tuple[str, bytes]], at_hand: int, config: str, kind: str
) -> None:
    artifact = image(layers, config=(config, b"{}"), media_type=kind)
    contents = {Digest.of(content): content for number, (_, content) in enumerate(layers) if at_hand >> number & 1}
    description = examine(parsed(artifact), contents)
    for verdict in (description.agent, description.gateway, description.envoy):
        assert verdict.accepted == (not verdict.reason) == (not verdict.remedy)
    assert description.agent.accepted == description.gateway.accepted
    assert (description.module is None) == (description.problem is not None)
    assert not description.envoy.accepted or description.module is not None
    json.dumps(as_json(description))
