"""``wasm-mirror`` itself: its commands by what they are for, and what to do first. Imports nothing that takes time."""

import difflib
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import click

SECTIONS: Final[Mapping[str, Sequence[str]]] = {
    "A mirror": ("serve", "check-config", "doctor", "health"),
    "Modules": ("inspect", "prewarm", "ls", "export", "import"),
    "What stays, and what goes": ("pin", "unpin", "refresh", "purge", "gc", "scrub"),
    "This command line": ("completion",),
}
"""The commands, by what they are for."""

_FIRST = (
    ("wasm-mirror serve", "mirror public registries for this machine"),
    ("wasm-mirror inspect plugin.wasm", "would agents take this module?"),
    ("wasm-mirror ls", "what does the mirror at :8080 hold?"),
    ("wasm-mirror COMMAND --help", "what a command does, with examples"),
)


class Commands(click.Group):
    """Those that talk to a running mirror are looked up when no other has the name, or when all are listed."""

    def __init__(self, *arguments: object, further: Callable[[], Sequence[click.Command]], **more: object) -> None:
        """``further`` imports the rest of the commands."""
        super().__init__(*arguments, **more)  # type: ignore[arg-type]  # what click.group hands on is click's own affair
        self._further = further

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name."""
        own = super().get_command(ctx, cmd_name)
        return own or next((command for command in self._further() if command.name == cmd_name), None)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names."""
        return sorted([*super().list_commands(ctx), *(command.name for command in self._further() if command.name)])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that ``args`` begin with; one that is misspelt is answered with the nearest."""
        name = args[0]
        if not ctx.resilient_parsing and not name.startswith("-") and self.get_command(ctx, name) is None:
            near = difflib.get_close_matches(name, self.list_commands(ctx), n=1)
            ctx.fail(f"There is no command {name!r}{f'; did you mean {near[0]}?' if near else '.'}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """A list for each of the `SECTIONS`, in their order."""
        names = self.list_commands(ctx)
        listed = [name for section in SECTIONS.values() for name in section]
        longest = max(map(len, names))
        width = formatter.width - 4 - longest
        for title, members in (*SECTIONS.items(), ("Others", sorted(set(names) - set(listed)))):
            found = [(name, command) for name in members if (command := self.get_command(ctx, name))]
            rows = [(name.ljust(longest), command.get_short_help_str(width)) for name, command in found]
            if rows:
                with formatter.section(title):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What to do first."""
        with formatter.section("First"):
            formatter.write_dl(_FIRST, col_max=40)
