"""Shells complete what is typed: bash here, as it is; zsh and fish where they are."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mirror.commands.completing import SHELLS
from tests.commands.support import command
from tests.support.process import clean_environment
from tests.support.tools import require


def shell(folder: Path, program: str | Path, *words: str) -> str:
    """What a shell prints that has ``wasm-mirror`` on its path."""
    here = Path(sys.executable).parent
    environment = {**clean_environment(), "HOME": str(folder), "PATH": f"{here}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run([program, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", SHELLS)
def test_what_a_shell_is_given_names_the_program(name: str) -> None:
    result = command("completion", name)
    assert result.exit_code == 0
    assert f"_WASM_MIRROR_COMPLETE={name}_complete" in result.stdout.replace("\n", " ")
    assert result.stderr == ""


@pytest.mark.integration
@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (["sc"], ["scrub"]),
        (["ls", "--so"], ["--sort"]),
        (["ls", "--sort", "f"], ["fetched"]),
        (["completion", ""], list(SHELLS)),
        (["prewarm", "-f", "refs"], ["refs.txt"]),
        (["serve", "--config", "mi"], ["mirror.yaml"]),
    ],
)
def test_bash_completes_commands_options_values_and_files(tmp_path: Path, typed: list[str], offered: list[str]) -> None:
    for name in ("refs.txt", "mirror.yaml"):
        (tmp_path / name).touch()
    words = " ".join(f"'{word}'" for word in ["wasm-mirror", *typed])
    script = f"""
        eval "$(wasm-mirror completion bash)"
        [[ $(complete -p wasm-mirror) == *"-F "* ]] || exit 3
        function=$(complete -p wasm-mirror | sed 's/.*-F \\([^ ]*\\) .*/\\1/')
        COMP_WORDS=({words}) COMP_CWORD={len(typed)}
        $function wasm-mirror "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
        [ "${{#COMPREPLY[@]}}" -gt 0 ] || COMPREPLY=($(compgen -f -- "${{COMP_WORDS[COMP_CWORD]}}"))
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert shell(tmp_path, "bash", "--norc", "-c", script).split() == offered


@pytest.mark.integration
@pytest.mark.needs("fish")
def test_fish_completes(tmp_path: Path) -> None:
    fish = require("fish")
    script = 'wasm-mirror completion fish | source; complete --do-complete "wasm-mirror sc"'
    assert shell(tmp_path, fish, "--no-config", "-c", script).split()[:1] == ["scrub"]


@pytest.mark.integration
@pytest.mark.needs("zsh")
def test_zsh_takes_what_it_is_given(tmp_path: Path) -> None:
    zsh = require("zsh")
    script = 'autoload -Uz compinit; compinit -u; eval "$(wasm-mirror completion zsh)"; print $_comps[wasm-mirror]'
    assert "wasm_mirror" in shell(tmp_path, zsh, "-f", "-c", script)
