"""The reference of all commands, made from what click knows of them.

``python -m mirror.commands.reference > docs/commands.md`` writes it anew.
"""

import inspect
from collections.abc import Iterator

import click

from mirror.cli import main

_HEAD = """\
# Commands

<!-- Made by `python -m mirror.commands.reference > docs/commands.md`; a test asserts that it is up to date. -->

`wasm-mirror COMMAND --help` says the same of one command. `serve`, `check-config`, `doctor` and `health` read the
settings; all others but `inspect` of a file and `completion` talk to a running mirror, over its admin API.

- **Which mirror**: `--mirror URL`, or `WASM_MIRROR_URL`; `http://127.0.0.1:8080` without either. An authority of your
  own is named by `SSL_CERT_FILE`.
- **The token** that `admin.token_file` of its settings holds: `--token-file FILE`, or `WASM_MIRROR_TOKEN_FILE`, or
  `WASM_MIRROR_TOKEN`, which is the token itself.
- **REF** is what an agent would use, with or without `oci://`: the upstream first, or before it one of the mirror's
  own `names`, or the host of `--mirror`. `ghcr.io/team/plugin:1.0` and
  `oci://wasm-mirror.istio-system:8080/ghcr.io/team/plugin:1.0` are the same.
- **Output**: a table, with colours and bars on a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`; plain and
  complete lines in a pipe; with `--json` one JSON object a line, as the admin API has it. Errors are lines on standard
  error.
- **Exit status**: 0 when all is done, 1 when some failed, and which is said, 2 for wrong use, 130 after Ctrl-C. One
  reference that fails keeps none of the others from being done.
- **Completion** of commands, options and files: `wasm-mirror completion bash`, for zsh and fish too; see
  [below](#completion).
"""


def document() -> str:
    """The whole page."""
    context = click.Context(main, info_name="wasm-mirror")
    parts = [_HEAD]
    for name in main.list_commands(context):
        command = main.get_command(context, name)
        if command is not None and not command.hidden:
            parts += _command(command, click.Context(command, info_name=name, parent=context))
    return "\n".join(parts)


def _command(command: click.Command, context: click.Context) -> Iterator[str]:
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"## {context.info_name}\n"
    yield f"```\n{context.command_path} {usage}\n```\n"
    yield inspect.cleandoc(command.help or "") + "\n"
    own = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    rows = [record for option in own if (record := option.get_help_record(context))]
    if rows:
        yield "| option | what |\n|---|---|"
        yield from (f"| `{_cell(names)}` | {_cell(what)} |" for names, what in rows)
        yield ""
    if command.epilog:
        examples = inspect.cleandoc("\n".join(command.epilog.splitlines()[2:]))
        yield f"```sh\n{examples}\n```\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    click.echo(document(), nl=False)
