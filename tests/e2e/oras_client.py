"""Python's ORAS client on the command line, as far as tests need it: ``login``, ``push``, ``pull``.

Run by `tests.e2e.pushing`, with the folder in ``PYTHONPATH`` into which tests/support/tools.py has put the client.
"""

import importlib
import sys


def main(command: str, target: str, *words: str) -> None:
    """``login HOST USER PASSWORD``, ``push REF CONFIG:TYPE [FILE:TYPE…]``, ``pull REF FOLDER``."""
    oras = importlib.import_module("oras.client")  # not among what the mirror's own environment has
    importlib.import_module("oras.decorator").time.sleep = lambda _: None  # it retries for a minute, refusals too
    client = oras.OrasClient(insecure=True, auth_backend="basic", hostname=target.partition("/")[0])
    match command:
        case "login":
            client.login(*words, hostname=target)
        case "push":
            config, *files = words
            client.push(target, manifest_config=config, files=files, disable_path_validation=True)
        case "pull":
            client.pull(target, outdir=words[0])


if __name__ == "__main__":
    main(*sys.argv[1:])
