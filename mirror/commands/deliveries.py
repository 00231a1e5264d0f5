"""What is typed: the commands that bring modules to a running mirror, and out of it. As in `mirror.commands.menu`."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import click

from mirror.commands import options
from mirror.commands.options import Asked


@click.command(
    "prewarm",
    epilog=options.examples(
        "wasm-mirror prewarm ghcr.io/team/plugin:1.0",
        "wasm-mirror prewarm --pin -f plugins/ -f more.yaml",
        "helm template mesh/ | wasm-mirror prewarm -f -",
        "wasm-mirror prewarm --cluster -n istio-system",
        "wasm-mirror prewarm --jobs",
        "wasm-mirror prewarm --json -f refs.txt | jq 'select(.result == \"failed\")'",
    ),
)
@click.argument("references", metavar="[REF…]", nargs=-1)
@click.option(
    "-f",
    "--file",
    "files",
    multiple=True,
    metavar="FILE|DIR|-",
    shell_complete=options.files,
    help="References, one a line, or Kubernetes YAML: WasmPlugins, EnvoyFilters, EnvoyExtensionPolicies.",
)
@click.option("--cluster", is_flag=True, help="The modules that objects of a Kubernetes cluster name.")
@click.option(
    "-n",
    "--namespace",
    "namespaces",
    multiple=True,
    metavar="NS",
    help="With --cluster: of this namespace alone, or of these.",
)
@click.option("--kubeconfig", type=click.Path(path_type=Path), metavar="FILE", help="With --cluster; as for kubectl.")
@click.option("--context", metavar="NAME", help="With --cluster; as for kubectl.")
@click.option("--pin", is_flag=True, help="Pin what is held then.")
@click.option("--parallel", type=click.IntRange(1, 64), metavar="N", help="References at a time.")
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    type=options.Platform(),
    metavar="P",
    help="Of an index: such as linux/arm64, or all. Without it as agents choose.",
)
@click.option(
    "--wait",
    type=options.Duration(),
    default=0.0,
    metavar="DURATION",
    help="Ask again for this long, such as 5m, while no mirror answers.",
)
@click.option("--follow", metavar="JOB", help="Watch a job that runs, from its first reference on.")
@click.option("--cancel", metavar="JOB", help="End a job.")
@click.option("--jobs", is_flag=True, help="List the mirror's jobs, newest first.")
@options.of_a_mirror
def prewarm(
    asked: Asked,
    references: Sequence[str],
    files: Sequence[str],
    cluster: bool,
    namespaces: Sequence[str],
    kubeconfig: Path | None,
    context: str | None,
    pin: bool,
    parallel: int | None,
    platforms: Sequence[str],
    wait: float,
    follow: str | None,
    cancel: str | None,
    jobs: bool,
) -> None:
    """Fetch modules, at every replica, before anyone asks.

    For each reference: held (it was there), fetched, refused (it is here, and agents would not take it), or failed, and
    why. Status 0 when all are held or fetched, 1 when not. References may name the registry, or the mirror before it,
    as agents do. Ctrl-C ends the command; the mirror goes on, and says how to watch or end that.
    """
    sourced = bool(references or files or cluster)
    if sum([sourced, follow is not None, cancel is not None, jobs]) > 1:
        raise click.UsageError("name one of: what to warm, --follow, --cancel, --jobs")
    if not cluster and (namespaces or kubeconfig is not None or context is not None):
        raise click.UsageError("--namespace, --kubeconfig and --context go with --cluster")
    if not sourced and (pin or parallel is not None or platforms or wait):
        raise click.UsageError("name what to warm: references, -f or --cluster")

    from mirror.commands import prewarming

    if follow is not None:
        sys.exit(prewarming.follow_job(asked, follow))
    if cancel is not None:
        sys.exit(prewarming.cancel_job(asked, cancel))
    if jobs:
        sys.exit(prewarming.list_jobs(asked))
    if not sourced:
        raise click.UsageError("name what to warm: references, -f or --cluster")

    from mirror.commands.sources import Cluster, Sources

    asked_of = Cluster(kubeconfig, context, namespaces) if cluster else None
    how = prewarming.How(pin, parallel, platforms, wait)
    sys.exit(prewarming.prewarm(asked, Sources(references, files, asked_of), how))


@click.command(
    "export",
    epilog=options.examples(
        "wasm-mirror export -o plugins.tar ghcr.io/team/a:1.0 ghcr.io/team/b:2.1",
        "wasm-mirror export -o - ghcr.io/team/a:1.0 | ssh site wasm-mirror import -",
    ),
)
@options.references
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="FILE|-",
    shell_complete=options.files,
    help="The archive; - is standard output.",
)
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    type=options.Platform(),
    metavar="P",
    help="Of an index: such as linux/arm64, or all. Without it what the mirror holds.",
)
@click.option("--referrers", is_flag=True, help="Signatures and the like too, as far as they are held.")
@options.of_a_mirror
def export(asked: Asked, references: Sequence[str], output: str, platforms: Sequence[str], referrers: bool) -> None:
    """Write modules into an archive.

    It is for a cluster without a network: a tar of an OCI image layout, which skopeo, crane and `wasm-mirror import`
    read. It gets its name once it is whole; when a reference cannot be had, there is no archive, and status 1.
    """
    from mirror.commands import exporting

    sys.exit(exporting.export(asked, output, references, platforms, referrers=referrers))


@click.command(
    "import",
    epilog=options.examples(
        "wasm-mirror import --pin plugins.tar",
        "skopeo copy docker://ghcr.io/team/a:1.0 oci-archive:a.tar:1.0",
        "wasm-mirror import --as ghcr.io/team/a a.tar",
    ),
)
@click.argument("files", metavar="FILE|-…", nargs=-1, required=True, shell_complete=options.files)
@click.option("--pin", is_flag=True, help="Pin all of it.")
@click.option("--as", "under", metavar="UPSTREAM/REPO", help="Whose tags they are, where the archive has tags alone.")
@options.of_a_mirror
def import_(asked: Asked, files: Sequence[str], pin: bool, under: str | None) -> None:
    """Take in archives that export, skopeo or crane wrote.

    They are tars of an OCI image layout, gzipped or not. Everything is verified before any of it is served, and
    stands in for its registry without a limit of age.
    """
    from mirror.commands import importing

    sys.exit(importing.import_(asked, importing.Import(files, pin, under)))


COMMANDS: Final[Sequence[click.Command]] = (prewarm, export, import_)
