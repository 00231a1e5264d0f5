"""No block of the documents is there that nothing checks, and no command that nobody runs."""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from mirror.cli import main
from tests.documents import apart
from tests.documents.blocks import ROOT, Block, all_blocks, found_in, of_languages
from tests.documents.shell import commands, script, steps
from tests.support.tools import PROGRAMS

_SHELLS = ("sh", "console")
_OTHERS = ("", "text", "yaml", "json", "toml", "python", "promql", "mermaid", "ini", "diff", "dockerfile", "http")
_COMMENTED = (".yaml", ".tpl", ".service", ".txt", ".env")
_OUGHT = {"bash": "sh", "shell": "sh", "shell-session": "console", "yml": "yaml"}
# What a reader's machine has anyway, and a shell itself.
_USUAL = frozenset(
    re.findall(
        r"\S+",
        """
        base64 cat cd chmod cp curl cut date diff echo eval export false find grep gzip head jq ln ls mkdir mktemp mv
        openssl printf python3 read rm sed set sha256sum sleep sort source . ssh sudo tail tar tee test [ touch tr true
        umask uniq unset wait wc xargs zcat
        """,
    )
)
_INLINE = re.compile(r"`(?:\.venv/bin/)?(wasm-mirror [a-z][^`]*)`")


def run_here() -> list[Block]:
    """The blocks whose commands are run, by a test of their own or with their page."""
    return [block for block in of_languages(*_SHELLS) if why_apart(block) is None]


def why_apart(block: Block) -> str | None:
    """Why a block is not run as a whole; None where it is."""
    return next((why for (page, word), why in apart.BLOCKS.items() if block.page == page and word in block.text), None)


def test_every_block_is_of_a_language_that_something_checks() -> None:
    wrong = [
        f"{block}: {block.language}" + (f", which is written {_OUGHT[block.language]}" * (block.language in _OUGHT))
        for block in all_blocks()
        if block.language not in (*_SHELLS, *_OTHERS)
    ]
    assert wrong == []


def test_no_block_without_a_language_shows_commands() -> None:
    shown = re.compile(r"^(\$ |make |curl |(\.venv/bin/)?wasm-mirror .* (--|[a-z]+\.))", re.MULTILINE)
    assert [str(block) for block in all_blocks() if block.language in ("", "text") and shown.search(block.text)] == []


def test_every_command_of_a_block_is_one_that_is_run_or_said_why_not() -> None:
    known = {*_USUAL, *PROGRAMS, *apart.APART, "wasm-mirror", ".venv/bin/wasm-mirror"}
    unknown = [
        f"{block}: nothing runs {words[0]}; see tests/documents/apart.py"
        for block in run_here()
        for words in commands(script(block))
        if words[0] not in known and not (ROOT / words[0]).is_file()
    ]
    assert unknown == []


def test_what_is_not_run_is_right_as_far_as_can_be_seen() -> None:
    wrong = []
    for block in run_here():
        for words in commands(script(block)):
            plain = words[1:] if words[0] == "sudo" else words
            found = apart.APART.get(plain[0]) if plain else None
            if found and (fault := found.check(plain)):
                wrong.append(f"{block}: {fault}")
    assert wrong == []


def test_every_block_that_is_left_out_is_there() -> None:
    left_out = [block for block in of_languages(*_SHELLS) if why_apart(block)]
    assert len(left_out) >= len(apart.BLOCKS)


def test_every_shell_block_is_valid() -> None:
    for block in of_languages(*_SHELLS):
        done = subprocess.run(["bash", "-n"], input=script(block), capture_output=True, text=True)
        assert done.returncode == 0, f"{block}: {done.stderr}"


def parsed(words: list[str]) -> str | None:
    """What the command line finds wrong with the words behind ``wasm-mirror``; None where it is right."""
    with click.Context(main, info_name="wasm-mirror") as context:
        command = main.get_command(context, words[0]) if words and not words[0].startswith("-") else None
        if command is None:
            return None if words in ([], ["--version"], ["--help"]) else f"there is no command {' '.join(words[:1])}"
        if {"--help", "-h"} & set(words):
            return None
        try:
            command.make_context(words[0], list(words[1:]), parent=context)
        except click.ClickException as error:
            return error.format_message()
    return None


def of_ours(words: list[str]) -> list[str] | None:
    """The words behind ``wasm-mirror``, wherever it stands: by itself, after sudo, ssh or in a container."""
    at = next((n for n, word in enumerate(words) if word in ("wasm-mirror", ".venv/bin/wasm-mirror")), None)
    if at is None or not (at == 0 or words[0] in ("sudo", "ssh") or words[at - 1] in ("--", "run")):
        return None
    return words[at + 1 :]


def test_every_command_of_ours_is_one_with_the_options_that_it_has() -> None:
    wrong = [
        f"{block}: {fault}"
        for block in of_languages(*_SHELLS)
        for words in commands(script(block))
        if (ours := of_ours(words)) is not None and (fault := parsed(ours))
    ]
    assert wrong == []


def mentioned() -> Iterator[tuple[str, list[str]]]:
    """The commands of ours that stand in the text of pages and in the comments of what we ship."""
    folders = ("config", "charts")
    shipped = [file for folder in folders for file in sorted((ROOT / folder).rglob("*")) if file.suffix in _COMMENTED]
    for file in [*(ROOT / page for page in sorted({block.page for block in all_blocks()})), *shipped]:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            yield from ((f"{file.relative_to(ROOT)}:{number}", found.split()[1:]) for found in _INLINE.findall(line))


def test_every_command_and_option_that_a_text_mentions_exists() -> None:
    wrong = []
    with click.Context(main) as context:
        for where, words in mentioned():
            command = main.get_command(context, words[0])
            if command is None:
                wrong.append(f"{where}: there is no command {words[0]}")
                continue
            known = {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
            wrong += [
                f"{where}: {words[0]} has no {word}"
                for word in (word.partition("=")[0].rstrip(",.;:") for word in words[1:])
                if re.fullmatch(r"--[a-z-]+|-[a-z]", word) and word not in known
            ]
    assert wrong == []


def test_every_make_target_that_a_text_mentions_exists() -> None:
    wrong = []
    for page in sorted({block.page for block in all_blocks()} | {"README.md"}):
        for target in re.findall(r"(?:`|^)make ([a-z0-9]+)", (ROOT / page).read_text(), re.MULTILINE):
            if fault := apart.APART["make"].check(["make", target]):
                wrong.append(f"{page}: {fault}")
    assert wrong == []


def test_every_data_block_can_be_read() -> None:
    readers = {"json": json.loads, "toml": tomllib.loads}
    for language, read in readers.items():
        for block in of_languages(language):
            try:
                read(block.text)
            except ValueError as error:
                raise AssertionError(f"{block}: {error}") from None


def test_every_block_with_a_test_of_its_own_has_it() -> None:
    """The tests of marked blocks name the marker; those without one are run with their page."""
    sources = [file.read_text() for file in Path(__file__).parents[1].rglob("test_*.py")]
    marked = [block for block in all_blocks() if block.marker.startswith("run: ")]
    assert marked
    alone = []
    for block in marked:
        wanted = {f'"{block.marker}"', f'"{block.marker.removeprefix("run: ")}"'}
        of_page = [source for source in sources if Path(block.page).name in source]
        if not any(text in source for source in of_page for text in wanted):
            alone.append(str(block))
    assert alone == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a -b 'c d' | e && f > g; h", [["a", "-b", "c d"], ["e"], ["f"], ["h"]]),
        ("A=1 B=$C a \\\n  b # c\nd", [["a", "b"], ["d"]]),
        ("if a; then b; fi\nfor i in 1 2; do c; done", [["a"], ["b"], ["c"]]),
        ("a <<EOF | b\n$ c d\nEOF\ne 2>&1 <f", [["a"], ["b"], ["e", "2"]]),
        ("a $(b c)\nd '{\n  \"e\": 1}'", [["a", "$"], ["b", "c"], ["d", '{\n  "e": 1}']]),
    ],
)
def test_commands_are_found_in_a_script(text: str, found: list[list[str]]) -> None:
    assert list(commands(text)) == found


def test_blocks_are_found_in_a_page_with_what_they_are() -> None:
    page = "<!-- run: x -->\n```console\n$ a \\\n  b\nc\n$ d\n```\n\n- e\n\n  ```sh\n  f\n    g\n  ```\n"
    first, second = found_in("p.md", page)
    assert (first.line, first.language, first.marker) == (2, "console", "run: x")
    assert steps(first) == [("a \\\n  b", "c"), ("d", "")]
    assert (second.line, second.marker, second.text) == (11, "", "f\n  g\n")
    with pytest.raises(AssertionError, match=r"p.md:1: this block does not end"):
        list(found_in("p.md", "```sh\na\n"))
