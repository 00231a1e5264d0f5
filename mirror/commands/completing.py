"""``wasm-mirror completion``: what a shell runs to complete the names of commands, options and files."""

from typing import Final

import click
from click.shell_completion import get_completion_class

from mirror.commands import options

SHELLS: Final = ("bash", "zsh", "fish")

_VARIABLE = "_WASM_MIRROR_COMPLETE"


@click.command(
    "completion",
    short_help="Print what completes commands and options in a shell.",
    epilog=options.examples(
        'eval "$(wasm-mirror completion bash)"',
        "wasm-mirror completion zsh > ~/.zfunc/_wasm-mirror",
        "wasm-mirror completion fish > ~/.config/fish/completions/wasm-mirror.fish",
    ),
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what completes commands, options and files in a shell: bash (4.4 or newer), zsh or fish.

    The first of the examples is a line for ~/.bashrc. The others write a file where the shell looks by itself: zsh in a
    folder of its fpath, before compinit.
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"nothing is known of {shell}")
    whole = context.find_root().command
    click.echo(kind(whole, {}, "wasm-mirror", _VARIABLE).source())
