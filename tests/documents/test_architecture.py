"""What ``docs/architecture.md`` says of the house is so: its files, their order, and the functions that it names."""

import re

from tests.documents.blocks import ROOT, block
from tests.test_imports import HOUSE, places

_NAME = "docs/architecture.md"
_ARCHITECTURE = (ROOT / _NAME).read_text()


def house() -> list[str]:
    """The files that the architecture lists, in its order, as `tests.test_imports.places` writes them."""
    found, folder = [], ""
    for line in block(_NAME, "the house").text.splitlines():
        name = line.split()[0]
        if name.endswith("/"):
            folder = name.removesuffix("/").replace("/", ".")
        elif line.startswith("  "):
            found.append(f"{folder}.{name.removesuffix('.py')}")
        else:
            found.append(name.removesuffix(".py"))
    return found


def test_the_architecture_lists_the_house_in_the_order_of_its_imports() -> None:
    folders = {file.parent.name for file in (ROOT / "mirror").rglob("__init__.py")}
    assert house() == [name for name in places(HOUSE) if name not in folders]


def test_every_file_and_function_that_the_architecture_names_exists() -> None:
    for file, names in re.findall(r"`((?!tests/)(?:\w+/)*\w+\.py)`(?: \((`[^)]*`)\))?", _ARCHITECTURE):
        path = ROOT / "mirror" / file
        assert path.exists(), file
        for name in re.findall(r"`([\w.]+)`", names):
            last = name.rpartition(".")[2]
            assert re.search(rf"(?:def|class) {last}\b", path.read_text()), f"{file} has no {name}"
