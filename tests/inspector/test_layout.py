"""OCI layout directories, inspected without a mirror."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from mirror.digest import Digest
from tests.inspector.support import blob, error, inspect, layout, told
from tests.support.artifacts import Artifact, cncf, compat, docker, docker_list, image, index, raw
from tests.wasm.modules import plugin

MODULE, OTHER = plugin(), plugin(abi=("0.2.0",))
RAW, COMPAT = raw(MODULE), compat(OTHER)


def spoilt(folder: Path, digest: Digest) -> Path:
    """Change one byte of a blob."""
    file = blob(folder, digest)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    return file


def written(folder: Path, entries: object) -> Path:
    """The directory with another index.json."""
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    return folder


def entries(folder: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((folder / "index.json").read_text())["manifests"]
    return found


@pytest.mark.parametrize(
    ("build", "name", "accepted"),
    [(raw, "oci raw", True), (compat, "oci tar+gzip", True), (docker, "docker", True), (cncf, "cncf", False)],
)
def test_the_only_artifact_is_described_whatever_its_layout(
    tmp_path: Path, build: Callable[[bytes], Artifact], name: str, accepted: bool
) -> None:
    artifact = build(MODULE)
    for tag in ("1.0", None):
        found = told(layout(tmp_path, (tag, artifact)))
        assert (found.layout, found.digest, found.accepted) == (name, str(artifact.digest), accepted)
        assert found.module is not None
        assert found.module.sha256 == Digest.of(MODULE).hex


@pytest.mark.parametrize("prefix", ["", "oci:"])
def test_a_tag_or_a_digest_says_which_of_several(tmp_path: Path, prefix: str) -> None:
    folder = layout(tmp_path / "dir", ("1.0", RAW), ("registry.example:5000/team/plugin:2.0", COMPAT))
    for target in (":1.0", f"@{RAW.digest}"):
        assert told(f"{prefix}{folder}{target}").digest == str(RAW.digest)
    for target in (":2.0", ":registry.example:5000/team/plugin:2.0", f"@{COMPAT.digest}"):
        assert told(f"{prefix}{folder}{target}").digest == str(COMPAT.digest)


def test_a_directory_with_several_artifacts_lists_them_when_none_was_named(tmp_path: Path) -> None:
    folder = layout(tmp_path, ("1.0", RAW), (None, COMPAT))
    for target in ("", ":3.0"):
        result = inspect(f"{folder}{target}")
        assert result.exit_code == 2
        assert f"there are :1.0, @{COMPAT.digest}" in error(result)


def test_a_long_list_is_cut(tmp_path: Path) -> None:
    folder = layout(tmp_path, *((f"{number}.0", raw(plugin(abi=(f"0.{number}.0",)))) for number in range(30)))
    said = error(inspect(folder))
    assert ":9.0 and 20 more" in said
    assert ":10.0" not in said


def test_two_tags_of_one_artifact_are_one(tmp_path: Path) -> None:
    assert told(layout(tmp_path, ("1.0", RAW), ("latest", RAW))).digest == str(RAW.digest)


def test_one_tag_on_two_artifacts_is_not_guessed(tmp_path: Path) -> None:
    folder = layout(tmp_path, ("1.0", RAW), ("1.0", COMPAT))
    assert "more than one artifact in" in error(inspect(f"{folder}:1.0"))
    assert told(f"{folder}@{COMPAT.digest}").digest == str(COMPAT.digest)


@pytest.mark.parametrize("build", [index, docker_list])
def test_of_an_index_the_child_that_agents_take_is_described(tmp_path: Path, build: Callable[..., Artifact]) -> None:
    both = build(COMPAT, RAW, platforms=("linux/arm64", "linux/amd64"))
    found = told(layout(tmp_path, ("1.0", both)))
    assert (found.index, found.digest, found.accepted) == (str(both.digest), str(RAW.digest), True)


def test_an_index_that_is_named_by_its_digest_is_refused_as_agents_would(tmp_path: Path) -> None:
    both = index(RAW)
    found = told(f"{layout(tmp_path, ('1.0', both))}@{both.digest}")
    assert not found.accepted
    assert str(RAW.digest) in found.accepted_by.agents.remedy
    assert inspect(f"{tmp_path}@{both.digest}").stdout.count("agents fail with") == 1, (
        "said once, and not warned of too"
    )


def test_a_child_of_an_index_may_be_named_by_its_digest(tmp_path: Path) -> None:
    folder = layout(tmp_path, ("1.0", index(COMPAT, RAW, platforms=("linux/arm64", "linux/amd64"))))
    for child in (COMPAT, RAW):
        found = told(f"{folder}@{child.digest}")
        assert (found.digest, found.index, found.accepted) == (str(child.digest), None, True)
    assert inspect(f"{folder}@{Digest.of(b'another')}").exit_code == 2


def test_an_index_without_a_child_for_agents_is_refused(tmp_path: Path) -> None:
    found = told(layout(tmp_path, ("1.0", index(RAW, platforms=("wasi/wasm32",)))))
    assert (found.layout, found.accepted) == ("index", False)
    assert "linux/amd64" in found.accepted_by.agents.reason


def test_blobs_may_be_named_by_sha512(tmp_path: Path) -> None:
    layer = {"mediaType": "application/vnd.module.wasm.content.layer.v1+wasm", "size": len(MODULE)}
    fields = json.loads(RAW.body)
    digest = Digest.of(MODULE, "sha512")
    fields["layers"][0] = {**layer, "digest": str(digest)}
    artifact = Artifact(json.dumps(fields).encode(), RAW.media_type, RAW.blobs)
    folder = layout(tmp_path, ("1.0", artifact))
    blob(folder, digest).parent.mkdir()
    blob(folder, digest).write_bytes(MODULE)
    assert told(folder).module is not None
    spoilt(folder, digest)
    assert "its digest is sha512:" in error(inspect(folder))


def test_every_blob_that_is_read_is_held_against_its_digest(tmp_path: Path) -> None:
    for number, digest in enumerate((COMPAT.digest, COMPAT.layers[0])):
        folder = layout(tmp_path / str(number), ("1.0", COMPAT))
        file = spoilt(folder, digest)
        result = inspect(folder)
        assert result.exit_code == 1
        assert error(result).startswith(f"{file} does not hold what its name says: its digest is sha256:")


@pytest.mark.parametrize("change", ["missing", "short"])
def test_all_that_a_manifest_names_has_to_be_there_in_its_size(tmp_path: Path, change: str) -> None:
    for number, digest in enumerate((RAW.digest, *RAW.blobs)):
        folder = layout(tmp_path / str(number), ("1.0", RAW))
        file = blob(folder, digest)
        if change == "missing":
            file.unlink()
        else:
            os.truncate(file, file.stat().st_size - 1)
        result = inspect(folder)
        assert result.exit_code == 1
        assert error(result).startswith(f"{file} {'is missing' if change == 'missing' else 'has'}")


def test_an_index_json_that_is_none_is_said(tmp_path: Path) -> None:
    folder = layout(tmp_path, ("1.0", RAW))
    for text in (
        "",
        "{",
        "[]",
        "null",
        '{"schemaVersion": 2, "manifests": 7}',
        '{"schemaVersion": 2, "manifests": [7]}',
    ):
        (folder / "index.json").write_text(text)
        result = inspect(folder)
        assert (result.exit_code, result.exception and type(result.exception)) == (1, SystemExit), text
        assert error(result).startswith(f"{folder / 'index.json'}: ")
    (folder / "index.json").unlink()
    assert inspect(folder).exit_code == 1
    assert error(inspect(folder)).startswith(f"{folder / 'index.json'} is missing")


def test_a_manifest_that_is_none_is_said(tmp_path: Path) -> None:
    folder = layout(tmp_path, ("1.0", Artifact(b"[1]", RAW.media_type)))
    result = inspect(folder)
    assert result.exit_code == 1
    assert error(result).startswith(f"{blob(folder, Digest.of(b'[1]'))}: the manifest is not a JSON object")


def test_an_empty_layout_directory_is_said(tmp_path: Path) -> None:
    assert "names nothing" in error(inspect(written(layout(tmp_path), [])))


def test_tags_that_are_no_strings_are_no_tags(tmp_path: Path) -> None:
    folder = layout(tmp_path, ("1.0", RAW))
    (entry,) = entries(folder)
    for annotations in (None, 7, {"org.opencontainers.image.ref.name": 7}, {}):
        assert told(written(folder, [{**entry, "annotations": annotations}])).accepted


def test_what_is_no_layout_directory_is_said_and_what_would_be(tmp_path: Path) -> None:
    result = inspect(tmp_path)
    assert result.exit_code == 2
    assert "is no OCI layout directory" in error(result)
    assert "skopeo copy … oci:DIR:TAG" in error(result)


def test_nothing_is_followed_out_of_the_directory(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    for number, digest in enumerate((None, RAW.digest, RAW.layers[0])):
        folder = layout(tmp_path / str(number), ("1.0", RAW))
        file = folder / "index.json" if digest is None else blob(folder, digest)
        file.rename(outside)
        file.symlink_to(outside)
        result = inspect(folder)
        assert result.exit_code == 2
        assert error(result).startswith(f"{file} is a link that leads out of the directory")


def test_a_link_in_the_directory_and_one_to_it_are_followed(tmp_path: Path) -> None:
    folder = layout(tmp_path / "dir", ("1.0", RAW))
    file = blob(folder, RAW.layers[0])
    file.rename(folder / "module")
    file.symlink_to("../../module")
    (tmp_path / "link").symlink_to(folder)
    assert told(tmp_path / "link").accepted


def test_a_blob_that_is_no_plain_file_is_not_waited_for(tmp_path: Path) -> None:
    for number, make in enumerate((os.mkfifo, os.mkdir)):
        folder = layout(tmp_path / str(number), ("1.0", RAW))
        file = blob(folder, RAW.layers[0])
        file.unlink()
        make(file)
        result = inspect(folder)
        assert result.exit_code == 2
        assert error(result).startswith(f"{file} is no plain file")


def test_files_that_are_larger_than_they_may_be_are_not_read(tmp_path: Path) -> None:
    folder = layout(tmp_path, ("1.0", RAW))
    with (folder / "index.json").open("ab") as file:
        file.truncate(1 << 30)
    result = inspect(folder)
    assert result.exit_code == 1
    assert "has 1,073,741,824 bytes; a manifest or index has 4,194,304 at most" in error(result)


def test_a_layer_that_agents_would_not_read_to_its_end_is_not_read_either(tmp_path: Path) -> None:
    fields = json.loads(RAW.body)
    fields["layers"][0]["size"] = 1 << 30
    folder = layout(tmp_path, ("1.0", Artifact(json.dumps(fields).encode(), RAW.media_type, RAW.blobs)))
    os.truncate(blob(folder, RAW.layers[0]), 1 << 30)
    assert not told(folder).accepted


def test_an_image_of_files_that_are_no_modules_is_described(tmp_path: Path) -> None:
    found = told(layout(tmp_path, ("1.0", image([("text/plain", b"")]))))
    assert (found.accepted, found.module) == (False, None)
    assert found.problem


def test_a_link_that_leads_to_itself_is_said(tmp_path: Path) -> None:
    folder = layout(tmp_path / "dir", ("1.0", RAW))
    for file in (folder / "index.json", folder / "oci-layout", folder):
        if file == folder:
            folder.rename(tmp_path / "other")
        else:
            file.unlink()
        file.symlink_to(file.name)
        result = inspect(folder)
        assert (result.exit_code in (1, 2), isinstance(result.exception, SystemExit)) == (True, True), file
        assert error(result)
