"""What stands in for programs while a block of a document is run: ``python -m tests.documents.stand_ins NAME WORDS…``.

``REAL`` is the folder with the real ones, ``RECORD`` the file to which each call of a program is written that is not
run at all, as a line of JSON.
"""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import NoReturn

_OF_A_CLUSTER = ("get", "history", "list", "repo", "rollback", "status", "test", "uninstall", "dependency")
_ONLY_THERE = {"--install", "-i", "--wait", "--atomic", "--create-namespace", "--reuse-values", "--debug"}


def main(name: str, words: list[str]) -> int:
    """Do what stands for the program; the exit status, unless another program has taken over."""
    match name:
        case "ssh":
            os.execvp(words[1], words[1:])
        case "sudo":
            program = next(word for word in words if not word.startswith("-"))
            stand_in = Path(os.environ["STAND_INS"]) / program
            if stand_in.exists():
                os.execv(stand_in, [program, *words[words.index(program) + 1 :]])
        case "kubectl" | "docker" | "podman" if "exec" in words and "wasm-mirror" in words:
            at = len(words) - words[::-1].index("wasm-mirror")  # it may be the container's name, too
            os.execv(Path(os.environ["STAND_INS"]) / "wasm-mirror", words[at - 1 :])
        case "helm" if words[0] in ("install", "upgrade"):
            kept = [word for word in words[1:] if word not in _ONLY_THERE]
            _run(name, "template", "--kube-version", "1.31.0", *kept)
        case "helm" if words[0] not in _OF_A_CLUSTER:
            _run(name, *words)
        case "wasm-mirror" if words[0] == "serve":
            return _served(words)
        case "wasm-mirror" if words[0] in ("doctor", "health"):  # these reach what settings name
            own = [word for before, word in zip(("", *words), words, strict=False) if "--config" not in (before, word)]
            _run(name, *own, "--config", os.environ["OWN_CONFIG"])
    _record(name, words)
    return 0


def _run(name: str, *words: str) -> NoReturn:
    os.execv(Path(os.environ["REAL"]) / name, [name, *words])


def _record(name: str, words: list[str]) -> None:
    given = sys.stdin.read() if words[-1:] == ["-"] or ("-f", "-") in itertools.pairwise(words) else ""
    with Path(os.environ["RECORD"]).open("a") as record:
        record.write(json.dumps([[name, *words], given]) + "\n")


def _served(words: list[str]) -> int:
    """A mirror that is stopped as soon as it is ready, at whatever port is free."""
    real = Path(os.environ["REAL"]) / "wasm-mirror"
    command = [str(real), *words, "--listen", "127.0.0.1:0"]
    environment = {**os.environ, "WASM_MIRROR_DRAIN_FOR": "0s"}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        for line in process.stderr:
            sys.stderr.write(line)
            if said := re.search(r" serves .* at (http://[^;,\s]+)", line):
                with urllib.request.urlopen(f"{said[1]}/readyz", timeout=120):  # its port is open; so it waits
                    process.send_signal(signal.SIGTERM)
    return process.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
