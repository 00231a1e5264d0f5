"""What the lines of a shell block run: read, not run. Enough of a shell's grammar for what stands in documents."""

import re
import shlex
from collections.abc import Iterator

from tests.documents.blocks import Block

_HEREDOC = re.compile(r"<<-?\s*(['\"]?)(\w+)\1(.*?)\n.*?\n\s*\2$", re.DOTALL | re.MULTILINE)
_ASSIGNMENT = re.compile(r"\w+=.*", re.DOTALL)
_ENDS = frozenset("();|&")
_REDIRECTIONS = frozenset("<>&")
_BEFORE = frozenset({"!", "{", "}", "do", "done", "else", "elif", "esac", "fi", "if", "then", "until", "while", "$"})
_BEFORE_PROGRAMS = frozenset({"env", "exec", "time", "command"})


def steps(block: Block) -> list[tuple[str, str]]:
    """The commands of a ``console`` block, each with what it prints."""
    assert block.text.startswith("$ "), f"{block}: a console block begins with `$ ` and a command"
    found = []
    for step in block.text.removeprefix("$ ").split("\n$ "):
        lines = step.splitlines()
        length = next(n for n, line in enumerate(lines, 1) if not line.endswith("\\"))
        found.append(("\n".join(lines[:length]), "\n".join(lines[length:]).strip()))
    return found


def script(block: Block) -> str:
    """The commands of a block, without what they print."""
    if block.language == "console":
        return "".join(f"{command}\n" for command, _ in steps(block))
    return block.text


def commands(text: str) -> Iterator[list[str]]:
    """The words of each simple command, from its program on: without assignments and redirections."""
    begun = ""
    for line in _HEREDOC.sub(r"\3", text).replace("\\\n", " ").splitlines():
        begun += line
        try:
            tokens = list(_lexer(begun))
        except ValueError:  # a quotation goes on
            begun += "\n"
            continue
        begun = ""
        yield from _simple(tokens)
    assert not begun, f"a quotation does not end: {begun}"


def _lexer(text: str) -> shlex.shlex:
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    return lexer


def _simple(tokens: list[str]) -> Iterator[list[str]]:
    words: list[str] = []
    is_file = False
    for token in [*tokens, ";"]:
        if token and set(token) <= _ENDS:
            if words and (command := _from_program(words)):
                yield command
            words = []
        elif token and set(token) <= _REDIRECTIONS:
            is_file = True
        elif is_file:
            is_file = False
        else:
            words.append(token)


def _from_program(words: list[str]) -> list[str]:
    if words[0] == "for":
        return []
    while words and (words[0] in _BEFORE or words[0] in _BEFORE_PROGRAMS or _ASSIGNMENT.fullmatch(words[0])):
        words = words[1:]
    return words
