"""The token for the admin API of a mirror, as whoever runs a command has it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mirror.errors import CommandError

HINT: Final = "--token-file, WASM_MIRROR_TOKEN or WASM_MIRROR_TOKEN_FILE"

_MAX_TOKEN = 4096
_TOKEN = re.compile(r"[\x21-\x7e]+")


def token_of(file: Path | None, environment: Mapping[str, str]) -> str | None:
    """The token: from ``file``, or else as the environment has it; None without any.

    Raises `CommandError`, whose words never show what was read.
    """
    setting = "--token-file"
    if file is None and (given := environment.get("WASM_MIRROR_TOKEN", "").strip()):
        return _token(given, "WASM_MIRROR_TOKEN")
    if file is None and (path := environment.get("WASM_MIRROR_TOKEN_FILE", "")):
        file, setting = Path(path), "WASM_MIRROR_TOKEN_FILE"
    if file is None:
        return None
    try:
        with file.open("rb") as opened:
            content = opened.read(_MAX_TOKEN)
    except (OSError, ValueError) as error:
        words = getattr(error, "strerror", None) or "it is no path"
        raise CommandError(f"{setting} {file} cannot be read: {words}", wrong_use=True) from None
    return _token(content.decode("latin-1").strip(), f"{setting} {file}")


def _token(text: str, where: str) -> str:
    if not _TOKEN.fullmatch(text) or len(text) >= _MAX_TOKEN:
        raise CommandError(f"{where} holds no token, which is one word of printable ASCII characters", wrong_use=True)
    return text
