"""The command line. Exit status: 0 all done, 1 something failed, 2 wrong use or the mirror cannot start.

Each command imports for itself what only it needs, for to load all of it takes longer than most of them do.
"""

import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

import mirror
from mirror.commands import options
from mirror.commands.group import Commands
from mirror.errors import StartError

if TYPE_CHECKING:
    from mirror.config import Settings

_NO_FILE = (
    "-> no file of settings was given: name one with --config, or WASM_MIRROR_CONFIG; all it needs is one line, "
    "`upstreams: {ghcr.io: {}}`. Without any, only this machine is served: `wasm-mirror serve`"
)


def _further() -> Sequence[click.Command]:
    """The commands that talk to a running mirror, and what completes all of them."""
    from mirror.commands import completing, deliveries, menu

    return (*menu.COMMANDS, *deliveries.COMMANDS, completing.completion)


@click.group(cls=Commands, further=_further, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(mirror.__version__, prog_name="wasm-mirror")
def main() -> None:
    """A caching OCI pull-through mirror for the WebAssembly modules of a service mesh."""


_config = click.option(
    "--config",
    envvar="WASM_MIRROR_CONFIG",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The settings, a YAML file; or WASM_MIRROR_CONFIG. Each key may also come from the environment, such as "
    "WASM_MIRROR_DATA_DIR, which wins. Without a file, and with no upstreams there: the public registries, for this "
    "machine alone.",
)


@main.command(
    "serve",
    epilog=options.examples(
        "wasm-mirror serve",
        "wasm-mirror serve --listen 127.0.0.1:8081 --data-dir /tmp/wasm-mirror",
        "wasm-mirror serve --config config/wasm-mirror.yaml",
    ),
)
@_config
@click.option("--listen", metavar="HOST:PORT", help="Instead of the setting `listen`.")
@click.option("--data-dir", metavar="DIR", help="Instead of the setting `data_dir`.")
@click.option("--workers", type=int, metavar="N", help="Instead of the setting `workers`.")
def serve_command(config: Path | None, listen: str | None, data_dir: str | None, workers: int | None) -> None:
    """Run the mirror until SIGTERM or Ctrl-C.

    It says where it serves, and logs a line for each download. Status 2 when it cannot start, with the reason.
    """
    try:
        settings = _load(config, {"listen": listen, "data_dir": data_dir, "workers": workers})
        from mirror import starting

        sys.exit(starting.run(settings))
    except StartError as error:
        _refuse(error)


@main.command(
    "check-config",
    short_help="Print the settings as they take effect.",
    epilog=options.examples(
        "wasm-mirror check-config --config config/wasm-mirror.yaml",
        "wasm-mirror check-config > settings.yaml",
    ),
)
@_config
def check_config(config: Path | None) -> None:
    """Print the settings as they take effect, with secrets masked.

    Status 2 when they are wrong: then all that is wrong is printed, each with its line.
    """
    from mirror.config import describe

    try:
        settings = _load(config, {})
    except StartError as error:
        _refuse(error)
    click.echo(describe(settings), nl=False)


@main.command(
    "doctor",
    short_help="Say what would fail, and how to mend it.",
    epilog=options.examples(
        "wasm-mirror doctor --config config/wasm-mirror.yaml",
        "wasm-mirror doctor --json | jq -r '.findings[].advice'",
    ),
)
@_config
@click.option("--json", "json_", is_flag=True, help="For programs: one JSON object.")
def doctor_command(config: Path | None, json_: bool) -> None:
    """Reach every endpoint, the shared store, the other replicas and the disk; say what would fail, and how to mend it.

    Status 1 when something would fail. The mirror may run meanwhile.
    """
    from mirror.doctor.report import Mark, as_json, as_table, worst
    from mirror.doctor.subjects import examinations
    from mirror.doctor.visit import visit

    try:
        settings = _load(config, {})
    except StartError as error:
        _refuse(error)
    logging.getLogger("mirror").addHandler(logging.NullHandler())  # what is worth telling is told as a finding
    round_ = examinations(settings)
    visit(round_)
    subjects = [subject for subject, _ in round_]
    click.echo(as_json(subjects) if json_ else as_table(subjects))
    sys.exit(1 if worst(subjects) is Mark.FAIL else 0)


@main.command(
    "health",
    short_help="Ask the mirror of these settings whether it is ready.",
    epilog=options.examples("wasm-mirror health --config config/wasm-mirror.yaml"),
)
@_config
def health_command(config: Path | None) -> None:
    """Ask the mirror that runs on this machine with these settings whether it is ready. Status 1 when it is not.

    For a container's health check; Kubernetes asks /readyz and /healthz by itself.
    """
    from mirror.health import fault

    try:
        settings = _load(config, {})
    except StartError as error:
        _refuse(error)
    if (why := fault(settings)) is not None:
        click.echo(f"wasm-mirror: {why}", err=True)
        sys.exit(1)
    click.echo("ready")


@main.command(
    "inspect",
    short_help="Say what a module is, and whether it would be taken.",
    epilog=options.examples(
        "wasm-mirror inspect plugin.wasm",
        "wasm-mirror inspect image:1.0",
        "wasm-mirror inspect ghcr.io/team/plugin:1.0",
        "wasm-mirror inspect --json plugin.wasm | jq .accepted_by",
    ),
)
@click.argument("references", metavar="REF…", nargs=-1, required=True, shell_complete=options.files)
@options.url
@options.token_file
@click.option("--json", "json_", is_flag=True, help="For programs: a JSON object for each REF, one a line.")
def inspect_command(references: tuple[str, ...], url: str, token_file: Path | None, json_: bool) -> None:
    """Say what a module is, and whether agents and Envoy would take it.

    REF is what an agent would use, with or without oci://, and a running mirror is asked for it. Or it is a .wasm file,
    or an OCI layout directory (DIR, DIR:TAG, DIR@DIGEST), and no mirror is needed.

    Status 0 when agents take it and Envoy runs it, 1 when one of them would not, 2 when it cannot be described.
    """
    from mirror.inspector import command

    sys.exit(command.run(references, url, token_file, in_json=json_))


def _load(config: Path | None, overrides: dict[str, object]) -> "Settings":
    from mirror.config import load

    warnings: list[str] = []
    try:
        settings = load(config, os.environ, overrides, warnings, alone=True)
    except StartError as error:
        if config is not None:
            raise
        raise StartError(f"{error.message}\n{_NO_FILE}") from error
    for warning in warnings:
        click.echo(f"wasm-mirror: warning: {warning}", err=True)
    return settings


def _refuse(error: StartError) -> None:
    for line in error.message.splitlines():
        click.echo(f"wasm-mirror: {line}", err=True)
    sys.exit(2)


if __name__ == "__main__":
    main()
