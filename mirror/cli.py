"""The command line. Exit status: 0 all done, 1 something failed, 2 wrong use or the mirror cannot start.

Each command imports for itself what only it needs, for to load all of it takes longer than most of them do.
"""

import asyncio
import logging
import os
import sys
from pathlib import Path

import click

import mirror
from mirror import logs
from mirror.commands import options
from mirror.config import Settings, describe, load
from mirror.errors import StartError

log = logging.getLogger(__name__)

_NO_FILE = (
    "-> no file of settings was given: name one with --config, or WASM_MIRROR_CONFIG; all it needs is one line, "
    "`upstreams: {ghcr.io: {}}`"
)


class _Commands(click.Group):
    """Those that talk to a running mirror are looked up when no other has the name, or when all are listed."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or self._further().get(cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self._further()])

    def _further(self) -> dict[str, click.Command]:
        from mirror.commands import deliveries, menu

        return {command.name: command for command in (*menu.COMMANDS, *deliveries.COMMANDS) if command.name}


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(mirror.__version__, prog_name="wasm-mirror")
def main() -> None:
    """A caching OCI pull-through mirror for the WebAssembly modules of a service mesh."""


_config = click.option(
    "--config",
    envvar="WASM_MIRROR_CONFIG",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The settings, a YAML file; or WASM_MIRROR_CONFIG. Without one they come from the environment alone.",
)


@main.command("serve")
@_config
@click.option("--listen", metavar="HOST:PORT", help="Instead of the setting `listen`.")
@click.option("--data-dir", metavar="DIR", help="Instead of the setting `data_dir`.")
@click.option("--workers", type=int, metavar="N", help="Instead of the setting `workers`.")
def serve_command(config: Path | None, listen: str | None, data_dir: str | None, workers: int | None) -> None:
    """Run the mirror until SIGTERM or Ctrl-C."""
    import uvloop

    from mirror.listening import address_of, bind
    from mirror.server import serve
    from mirror.store.directory import DataDirectory
    from mirror.store.spool import sweep
    from mirror.store.tallies import forget_tallies
    from mirror.supervisor import Supervisor
    from mirror.tls import Tls
    from mirror.wiring import check_extras, check_metadata, check_secrets

    try:
        settings = _load(config, {"listen": listen, "data_dir": data_dir, "workers": workers})
        logs.configure(settings.log.level, settings.log.format)
        tls = Tls.load(settings)
        check_extras(settings)
        check_secrets(settings)
        directory = DataDirectory.open(settings.data_dir)
        resumable = sweep(directory)
        forget_tallies(directory.tallies)
        asyncio.run(check_metadata(directory))
        listeners = bind(settings)
    except StartError as error:
        _refuse(error)
    scheme = "https" if tls is not None else "http"
    admin = f", the admin API at {scheme}://{address_of(listeners.admin)}" if listeners.admin is not None else ""
    log.info(
        "wasm-mirror %s serves %s at %s://%s%s; data in %s, %d downloads to resume",
        mirror.__version__,
        ", ".join(settings.upstreams),
        scheme,
        address_of(listeners.registry),
        admin,
        settings.data_dir,
        resumable,
    )

    def work(parent: int | None) -> int:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(serve(settings, directory, listeners, tls, parent))
        except StartError as error:
            click.echo(f"wasm-mirror: {error}", err=True)
            return 2
        return 0

    status = work(None) if settings.workers == 1 else Supervisor(settings.workers, work, listeners.close).run()
    directory.close()
    sys.exit(status)


@main.command("check-config")
@_config
def check_config(config: Path | None) -> None:
    """Print the settings as they take effect, with secrets masked. Status 2 when they are wrong."""
    try:
        settings = _load(config, {})
    except StartError as error:
        _refuse(error)
    click.echo(describe(settings), nl=False)


@main.command("doctor")
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


@main.command("health")
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


@main.command("inspect")
@click.argument("references", metavar="REF…", nargs=-1, required=True)
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


def _load(config: Path | None, overrides: dict[str, object]) -> Settings:
    warnings: list[str] = []
    try:
        settings = load(config, os.environ, overrides, warnings)
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
