"""What is typed: the commands that look after what a running mirror holds. Each imports only then what it needs."""

import sys
from collections.abc import Sequence
from typing import Final

import click

from mirror.commands import options
from mirror.commands.options import Asked


class _Size(click.ParamType[int]):
    name = "SIZE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from mirror.config.values import parse_size

        try:
            return parse_size(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(
    "ls",
    epilog=options.examples(
        "wasm-mirror ls --sort size --limit 20",
        "wasm-mirror ls --upstream ghcr.io --older-than 30d",
        "wasm-mirror ls --pinned",
        "wasm-mirror ls --verdict refused --search auth",
        "wasm-mirror ls --json | jq -r 'select(.hits == 0) | .reference'",
    ),
)
@click.option("--upstream", metavar="NAME", help="Of this upstream.")
@click.option("--repository", metavar="GLOB", help="Of repositories such as 'team/**'.")
@click.option("--search", metavar="TEXT", help="With this somewhere in its reference, in whatever case.")
@click.option("--verdict", type=click.Choice(["accepted", "refused", "not_wasm"]), help="Of which agents make this.")
@click.option("--pinned", is_flag=True, help="What is pinned, with who pinned it, and what is wrong with it.")
@click.option("--hosted", is_flag=True, help="What was pushed here.")
@click.option("--min-size", type=_Size(), metavar="SIZE", help="This large at least, such as 10MiB.")
@click.option("--max-size", type=_Size(), metavar="SIZE", help="This large at most.")
@click.option("--older-than", type=options.Duration(), metavar="DURATION", help="Not used for this long, such as 7d.")
@click.option("--min-hits", type=click.IntRange(min=0), metavar="N", help="Pulled this often at least.")
@click.option(
    "--sort",
    type=click.Choice(["reference", "size", "hits", "used", "fetched"]),
    default="reference",
    show_default=True,
    help="By what; numbers and times from the largest and latest on.",
)
@click.option("--reverse", is_flag=True, help="The other way round.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="No more than these; all without it.")
@options.of_a_mirror
def ls(
    asked: Asked,
    upstream: str | None,
    repository: str | None,
    search: str | None,
    verdict: str | None,
    pinned: bool,
    hosted: bool,
    min_size: int | None,
    max_size: int | None,
    older_than: float | None,
    min_hits: int | None,
    sort: str,
    reverse: bool,
    limit: int | None,
) -> None:
    """List what the mirror holds.

    SIZE is that of all that a reference names, as far as it is on the disk of the replica that answers. STATE says what
    is pinned, what will be asked for again when it is pulled (stale), what is not here as a whole (incomplete), and
    what agents would not take, or else Envoy would not run; with --verdict also why.
    """
    from mirror.commands import listing

    descending = (sort != "reference") is not reverse
    narrowing = [
        ("upstream", upstream),
        ("repository", repository),
        ("search", search),
        ("verdict", verdict),
        ("hosted", "true" if hosted else None),
        ("min_size", min_size),
        ("max_size", max_size),
        ("older_than", older_than),
        ("min_hits", min_hits),
    ]
    query = [(name, str(value)) for name, value in narrowing if value is not None]
    is_narrowed = bool(query) or limit is not None
    if pinned:
        query.append(("pinned", "true"))
    query += [("sort", sort), ("order", "desc" if descending else "asc")]
    bare = pinned and not is_narrowed
    filters = listing.Filters(query, limit, pins=pinned, bare_pins=bare, why=verdict is not None)
    sys.exit(listing.ls(asked, filters))


@click.command(
    "refresh",
    epilog=options.examples(
        "wasm-mirror refresh ghcr.io/team/plugin:1.0",
    ),
)
@options.references
@options.of_a_mirror
def refresh(asked: Asked, references: Sequence[str]) -> None:
    """Ask upstream now what each tag names.

    However fresh its record is. A tag is unchanged, or has moved, or was fetched where nothing was known of it; a
    digest is held or fetched. Status 1 when something is gone there, or fails.
    """
    from mirror.commands import chores

    sys.exit(chores.do(asked, chores.REFRESH, references))


@click.command(
    "pin",
    epilog=options.examples(
        "wasm-mirror pin ghcr.io/team/plugin:1.0",
        "wasm-mirror pin oci://ghcr.io/team/plugin@sha256:…",
    ),
)
@options.references
@options.of_a_mirror
def pin(asked: Asked, references: Sequence[str]) -> None:
    """Keep modules, at every replica, until unpinned.

    What is not held is fetched. A pinned tag may move: what it names now stays, and what it named before.
    """
    from mirror.commands import chores

    sys.exit(chores.do(asked, chores.PIN, references))


@click.command(
    "unpin",
    epilog=options.examples(
        "wasm-mirror unpin ghcr.io/team/plugin:1.0",
    ),
)
@options.references
@options.of_a_mirror
def unpin(asked: Asked, references: Sequence[str]) -> None:
    """Let pinned modules be evicted again.

    Status 1 when one of them is not pinned; the others are unpinned all the same. `wasm-mirror ls --pinned` lists pins.
    """
    from mirror.commands import chores

    sys.exit(chores.unpin(asked, references))


@click.command(
    "purge",
    epilog=options.examples(
        "wasm-mirror purge ghcr.io/team/plugin:1.0",
    ),
)
@options.references
@options.of_a_mirror
def purge(asked: Asked, references: Sequence[str]) -> None:
    """Drop modules from the disks of all replicas.

    The next pull fetches them anew. What is pinned stays, until it is unpinned. Status 1 when something stays, or was
    not there.
    """
    from mirror.commands import chores

    sys.exit(chores.do(asked, chores.PURGE, references))


@click.command("gc", epilog=options.examples("wasm-mirror gc"))
@options.of_a_mirror
def gc(asked: Asked) -> None:
    """Remove now what nothing needs any more.

    That is files that nothing names, uploads that nobody went on with, and records of what is not here. The mirror does
    so by itself, too. It is done at the replica that answers.
    """
    from mirror.commands import sweeping

    sys.exit(sweeping.gc(asked))


@click.command("scrub", epilog=options.examples("wasm-mirror scrub", "wasm-mirror scrub --no-wait"))
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for its end, and say what was found.")
@options.of_a_mirror
def scrub(asked: Asked, wait: bool) -> None:
    """Read the disk again now, and mend what has rotted.

    The mirror does so by itself, every `scrub.every`. What is damaged is out of service at once, and is fetched again
    from other replicas or upstream. It is done at the replica that answers; Ctrl-C ends the command, not the scrub.
    Status 1 when something is missing that nobody has.
    """
    from mirror.commands import sweeping

    sys.exit(sweeping.scrub(asked, wait=wait))


COMMANDS: Final[Sequence[click.Command]] = (ls, refresh, pin, unpin, purge, gc, scrub)
