"""OCI layout directories, and the command as people run it."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

from click.testing import CliRunner, Result

from mirror.cli import main
from mirror.digest import Digest
from mirror.inspector.told import Told
from tests.support.artifacts import Artifact, descriptor
from tests.support.process import clean_environment

REF_NAME = "org.opencontainers.image.ref.name"


def layout(folder: Path, *artifacts: tuple[str | None, Artifact]) -> Path:
    """Write an OCI layout directory of these, each with its tag or None."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    entries = []
    for tag, artifact in artifacts:
        entry = descriptor(artifact.media_type, artifact.body)
        entries.append(entry if tag is None else {**entry, "annotations": {REF_NAME: tag}})
        for content in contents(artifact):
            file = blob(folder, Digest.of(content))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
    (folder / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": entries}))
    return folder


def contents(artifact: Artifact) -> Iterable[bytes]:
    """An artifact's manifest and blobs, and those of its children."""
    yield artifact.body
    yield from artifact.blobs.values()
    for child in artifact.children:
        yield from contents(child)


def blob(folder: Path, digest: Digest) -> Path:
    """Where a layout directory has a blob."""
    return folder / "blobs" / digest.algorithm / digest.hex


def inspect(*arguments: str | Path, **environment: str) -> Result:
    """``wasm-mirror inspect``."""
    words = ["inspect", *map(str, arguments)]
    return CliRunner(env={**_unset(), **environment}).invoke(main, words)


def _unset() -> dict[str, str | None]:
    return {name: None for name in os.environ if name not in clean_environment()}


def told(*arguments: str | Path, **environment: str) -> Told:
    """What ``inspect`` says of one reference, which it can describe."""
    result = inspect("--json", *arguments, **environment)
    (line,) = result.stdout.splitlines()
    found = Told.read(json.loads(line))
    assert found is not None, line
    assert result.exit_code == (0 if found.accepted else 1)
    assert result.stderr == ""
    return found


def error(result: Result) -> str:
    """The one line of a command that has nothing else to say, without the program's name."""
    assert result.stdout == "", result.stdout
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("wasm-mirror: ")
    return lines[0].removeprefix("wasm-mirror: ")
