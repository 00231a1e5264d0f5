"""References in the settings are told apart from what is none, all at once, each with its line."""

from pathlib import Path

import pytest

from mirror.errors import MirrorError
from mirror.names import Names
from tests.config.support import faults, load_text

WORLD = """\
names: [mirror.example, mesh.example:5000]
upstreams:
  ghcr.io: {}
  docker.io: {}
  corp: {endpoints: ["https://a.example", "https://10.0.0.5:5000"]}
  proxied: {endpoints: [{url: "http://10.0.0.6:5000", repository_prefix: p/}]}
"""
RIGHT = (
    "ghcr.io/team/plugin:1.0",
    "oci://ghcr.io/team/plugin",
    "OCI://docker.io/nginx:1",
    "CORP/a:1",
    "corp/a@sha256:" + "0" * 64,
    "hosted/team/plugin:1",
    "mirror.example/ghcr.io/a:1",
    "mirror.example:8080/corp/a:1",
    "oci://mesh.example:5000/corp/a:1",
    "10.0.0.5:5000/a:1",
    "oci://index.docker.io/nginx:1",
    "registry-1.docker.io:443/library/nginx:1",
)
WRONG = (
    "quay.io/team/plugin:1",
    "ghcr.io",
    "ghcr.io:1",
    "mesh.example/ghcr.io/a:1",
    "ghcr.io/Team:1",
    "10.0.0.5:5001/a:1",
    "10.0.0.6:5000/a:1",
    "ghcr.io/a@sha256:0",
    "ghcr.io/a:-",
    "https://ghcr.io/a:1",
    "",
)


def listed(*references: str) -> str:
    return WORLD + "prewarm:\n  references:\n" + "".join(f"    - '{text}'\n" for text in references)


def test_right_ones_are_what_the_mirror_takes_them_for(tmp_path: Path) -> None:
    settings = load_text(tmp_path, listed(*RIGHT))
    assert settings.prewarm.references == RIGHT
    assert settings.prewarm.interval == 300
    names = Names(settings)
    for text in RIGHT:
        names.of_text(text)


@pytest.mark.parametrize("text", WRONG)
def test_what_the_settings_refuse_the_mirror_would_not_know(tmp_path: Path, text: str) -> None:
    with pytest.raises(MirrorError):
        Names(load_text(tmp_path, WORLD)).of_text(text)


def test_wrong_ones_are_told_all_at_once_with_their_lines(tmp_path: Path) -> None:
    found = faults(tmp_path, listed(RIGHT[0], *WRONG))
    assert len(found) == len(WRONG)
    for number, line in enumerate(found):
        assert line.startswith(f"mirror.yaml:{number + 10}: prewarm.references[{number + 1}]: "), line
    assert found[0].endswith(
        "must begin with one of ghcr.io, docker.io, corp, proxied, hosted, not 'quay.io'; or add that under upstreams"
    )


def test_with_a_default_upstream_none_has_to_be_named(tmp_path: Path) -> None:
    text = "default_upstream: ghcr.io\n" + listed("team/plugin:1")
    assert load_text(tmp_path, text).prewarm.references == ("team/plugin:1",)


def test_without_hosting_nothing_hosted_can_be_named(tmp_path: Path) -> None:
    (line,) = faults(tmp_path, "hosted: {enabled: false}\n" + listed("hosted/a:1"))
    assert "must begin with one of ghcr.io, docker.io, corp, proxied, not 'hosted'" in line


@pytest.mark.parametrize(
    ("prewarm", "words"),
    [
        ("{references: ghcr.io/a:1}", "must be a list"),
        ("{references: [[1]]}", "must be text"),
        ("{interval: 10ms}", "must be 0, or 1s at least"),
        ("{interval: often}", "must be a duration"),
        ("{every: 5m}", "unknown key"),
    ],
)
def test_what_else_is_wrong_is_told(tmp_path: Path, prewarm: str, words: str) -> None:
    (line,) = faults(tmp_path, f"{WORLD}prewarm: {prewarm}\n")
    assert words in line


def test_an_empty_list_and_no_interval_are_right(tmp_path: Path) -> None:
    settings = load_text(tmp_path, f"{WORLD}prewarm:\n  references:\n  interval: 0\n")
    assert (settings.prewarm.references, settings.prewarm.interval) == ((), 0)
