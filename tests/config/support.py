"""Settings from text, for the tests of this folder."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from mirror.config import ConfigurationError, Settings, load

UPSTREAM = "upstreams: {ghcr.io: {}}\n"


def load_text(
    folder: Path,
    text: str = UPSTREAM,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
    warnings: list[str] | None = None,
) -> Settings:
    """The settings of a file with this text, called ``mirror.yaml``."""
    path = folder / "mirror.yaml"
    path.write_text(text)
    return load(path, environ or {}, overrides or {}, warnings)


def faults(
    folder: Path,
    text: str = UPSTREAM,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> list[str]:
    """The lines with which these settings are refused, without the folder's name."""
    with pytest.raises(ConfigurationError) as refused:
        load_text(folder, text, environ, overrides)
    return refused.value.message.replace(f"{folder}/", "").splitlines()
