"""The options that every command has which talks to a running mirror. Imports nothing that takes time."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Concatenate, Final, TypeVar

import click
from click.shell_completion import CompletionItem

R = TypeVar("R")

STANDARD: Final = "-"
"""Instead of a file: standard input, or standard output."""

_PLATFORM = re.compile(r"all|[a-z0-9]+/[a-z0-9_.-]+")

url = click.option(
    "--mirror",
    "url",
    envvar="WASM_MIRROR_URL",
    default="http://127.0.0.1:8080",
    show_default=True,
    metavar="URL",
    help="A running mirror; or WASM_MIRROR_URL.",
)
token_file = click.option(
    "--token-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The mirror's admin token; or WASM_MIRROR_TOKEN_FILE, a path, or WASM_MIRROR_TOKEN, the token itself.",
)


class Platform(click.ParamType[str]):
    """``OS/ARCHITECTURE``, or ``all``."""

    name = "PLATFORM"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The value as it was given."""
        text = str(value)
        if not _PLATFORM.fullmatch(text):
            self.fail(f"must be all, or an OS/ARCHITECTURE such as linux/arm64, not {text!r}", param, ctx)
        return text


class Duration(click.ParamType[float]):
    """Seconds, as the settings write them: ``30s``, ``7d``."""

    name = "DURATION"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The value in seconds."""
        from mirror.config.values import parse_duration

        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def files(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """What completes a value that may be a file: a shell knows which there are."""
    return [CompletionItem(incomplete, type="file")]


references = click.argument("references", metavar="REF…", nargs=-1, required=True)


def examples(*commands: str) -> str:
    """What stands below the help of a command."""
    return "\n".join(["\b", "Examples:" if len(commands) > 1 else "Example:", *(f"  {one}" for one in commands)])


@dataclass(frozen=True, slots=True)
class Asked:
    """Which mirror is talked to, and how its answers are shown."""

    url: str
    token_file: Path | None
    in_json: bool


def of_a_mirror(command: Callable[Concatenate[Asked, ...], R]) -> Callable[..., R]:
    """Give a command ``--mirror``, ``--token-file`` and ``--json``; it gets them as one `Asked`, before all else."""

    @functools.wraps(command)
    def asking(**given: Any) -> R:
        asked = Asked(given.pop("url"), given.pop("token_file"), given.pop("json_"))
        return command(asked, **given)

    in_json = click.option("--json", "json_", is_flag=True, help="For programs: JSON, an object a line.")
    return url(token_file(in_json(asking)))
