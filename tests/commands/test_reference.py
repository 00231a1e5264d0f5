"""The page about all commands, and what it costs to have them."""

import subprocess
import sys

import click
import pytest

from mirror.cli import main
from mirror.commands.reference import document
from tests.commands.support import ROOT, command
from tests.support.process import clean_environment

PROMISED = {
    *("serve", "check-config", "doctor", "prewarm", "ls", "inspect", "refresh", "pin", "unpin", "purge", "gc", "scrub"),
    *("export", "import", "health", "completion"),
}


def test_the_page_is_what_the_commands_say() -> None:
    page = (ROOT / "docs" / "commands.md").read_text()
    assert page == document(), "run: python -m mirror.commands.reference > docs/commands.md"


def test_the_commands_are_those_that_were_promised() -> None:
    assert set(main.list_commands(click.Context(main))) == PROMISED


@pytest.mark.parametrize("name", sorted(PROMISED))
def test_each_command_has_help_that_fits_its_line(name: str) -> None:
    one = main.get_command(click.Context(main), name)
    assert one is not None
    for option in one.params:
        if isinstance(option, click.Option):
            assert option.help, f"{name} {option.name}"
    done = command(name, "--help")
    assert done.exit_code == 0
    assert all(len(line) <= 80 for line in done.stdout.splitlines()), done.stdout


def test_a_command_loads_no_more_than_it_needs() -> None:
    script = """
import contextlib, sys
from mirror.cli import main
for words in sys.argv[1:]:
    with contextlib.suppress(SystemExit):
        main(words.split())
    print("loaded:", *sys.modules)
"""
    runs = {
        "--help": {"httpx", "mirror.references", "mirror.commands.client", "pydantic", "asyncio"},
        "check-config --config config/minimal.yaml": {"httpx", "mirror.commands.client", "mirror.wiring", "uvloop"},
        "gc --mirror http://127.0.0.1:1": {"rich", "pygments", "mirror.references", "starlette", "kubernetes"},
    }
    command = [sys.executable, "-c", script, *runs]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=clean_environment())
    loaded = [set(line.split()) for line in done.stdout.splitlines() if line.startswith("loaded: ")]
    assert len(loaded) == len(runs), done.stderr
    assert "httpx" in loaded[-1]
    assert [have & unwanted for have, unwanted in zip(loaded, runs.values(), strict=True)] == [set()] * 3
