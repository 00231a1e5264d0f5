"""The example files and the page of documentation say what the code does."""

from pathlib import Path

import pytest
import yaml

from mirror.config import Settings, load, schema
from mirror.config.document import read
from mirror.config.reference import reference

_ROOT = Path(__file__).parents[2]
_EXAMPLE = _ROOT / "config" / "wasm-mirror.yaml"
_MINIMAL = _ROOT / "config" / "minimal.yaml"
_REGISTRIES = ["ghcr.io", "docker.io", "quay.io", "registry.k8s.io", "gcr.io", "mcr.microsoft.com", "public.ecr.aws"]


def _uncommented(folder: Path) -> Path:
    """The example with the upstream that only stands there in comments."""
    lines = _EXAMPLE.read_text().splitlines()
    path = folder / "uncommented.yaml"
    path.write_text(
        "\n".join("  " + line[4:] if line.startswith("  # ") and line[4:5] in " #c" else line for line in lines)
    )
    return path


def test_the_example_serves_the_public_registries_on_this_machine_only() -> None:
    warnings: list[str] = []
    settings = load(_EXAMPLE, {}, {}, warnings)
    assert list(settings.upstreams) == _REGISTRIES
    assert settings.listen == "127.0.0.1:8080"
    assert warnings == []


def test_what_the_example_shows_are_the_defaults() -> None:
    shown = load(_EXAMPLE, {}, {})
    defaults = Settings.model_validate({"upstreams": dict.fromkeys(_REGISTRIES)})
    assert shown == defaults


def test_the_minimal_example_has_the_defaults() -> None:
    assert load(_MINIMAL, {}, {}) == Settings.model_validate({"upstreams": {"ghcr.io": {}}})


def test_the_example_has_every_key_with_a_comment_before_it(tmp_path: Path) -> None:
    path = _uncommented(tmp_path)
    document, text = read(path), path.read_text()
    load(path, {}, {})
    shown = {tuple(step for step in location if isinstance(step, str)) for location in document.origins}
    for key in schema.all_keys():
        if schema.ANY not in key.path:
            assert key.path in shown
        elif key.path[0] != "upstreams":
            assert f"{key.path[-1]}: " in text
        elif key.path[-1] not in Settings.model_fields["defaults"].default.model_dump():
            assert f"{key.path[-1]}:" in text or f"`{key.path[-1]}`" in text
    for section in text.split("\n\n")[1:]:
        assert section.lstrip().startswith("#") or "  #" in section.splitlines()[1], section


def test_the_examples_upstream_in_comments_is_valid(tmp_path: Path) -> None:
    corp = load(_uncommented(tmp_path), {}, {}).upstreams["corp"]
    assert len(corp.endpoints) == 4
    assert corp.policy.fresh_for == 60


def test_the_documentation_is_what_the_code_makes() -> None:
    page = (_ROOT / "docs" / "configuration.md").read_text()
    assert page == reference(), "run: python -m mirror.config.reference > docs/configuration.md"


def test_the_documentation_has_every_key_with_its_help() -> None:
    page = reference()
    for key in schema.all_keys():
        assert f"`{key.path[-1]}`" in page or f".{key.path[-1]}`" in page
        assert key.field.description
        assert key.field.description in page


@pytest.mark.parametrize("path", [_EXAMPLE, _MINIMAL])
def test_the_examples_mean_the_same_to_any_reader_of_yaml(path: Path) -> None:
    assert list(yaml.safe_load(path.read_text())["upstreams"]) == list(load(path, {}, {}).upstreams)
