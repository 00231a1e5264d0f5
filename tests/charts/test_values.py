"""What is made from the chart's values, and what the chart says of itself."""

import functools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

import mirror
from charts import __main__ as program
from charts.kinds import KINDS
from charts.values import CHART, BadComment, read

made = functools.cache(program.made)
VALUES = (CHART / "values.yaml").read_text()


@pytest.mark.parametrize("name", ["README.md", "values.schema.json"])
def test_what_is_made_from_the_values_is_up_to_date(name: str) -> None:
    assert (CHART / name).read_text() == made()[name], "run: python -m charts"


def test_the_chart_has_the_version_of_the_mirror() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == mirror.__version__


def test_every_value_is_known_to_the_schema_with_its_default() -> None:
    defaults = yaml.safe_load(VALUES)
    schema = json.loads(made()["values.schema.json"])
    leaves = {leaf.path: leaf for value in read(VALUES) for leaf in value.leaves()}
    for path, leaf in leaves.items():
        at: Any = defaults
        known: Any = schema
        for step in path.split("."):
            assert known["additionalProperties"] is False, path
            at, known = at[step], known["properties"][step]
        assert at == leaf.default
        assert known["description"] == leaf.about
    assert len(leaves) > 100


def test_every_mapping_of_the_schema_refuses_what_it_does_not_know_or_is_free_on_purpose() -> None:
    free = {json.dumps(KINDS[kind]) for kind in ("anything", "strings-by-name")}

    def walk(schema: dict[str, Any]) -> None:
        if schema.get("properties") == KINDS["settings"]["properties"]:
            return  # the mirror's own, which check-config judges
        if schema["type"] == "object" and "properties" not in schema:
            assert json.dumps({name: schema[name] for name in schema if name != "description"}) in free
            return
        assert schema["type"] != "object" or schema["additionalProperties"] is False
        for inner in schema.get("properties", {}).values():
            walk(inner)

    walk(json.loads(made()["values.schema.json"]))


def test_a_value_without_a_comment_or_without_a_kind_is_an_error_that_names_it() -> None:
    with pytest.raises(BadComment, match=r"^port has no comment"):
        read("port: 1\n")
    with pytest.raises(BadComment, match=r"^labels needs a line `# @schema`"):
        read("# -- Labels.\nlabels: {}\n")
    with pytest.raises(BadComment, match=r"^names needs a line `# @schema`"):
        read("# -- Names.\nnames: []\n")
    with pytest.raises(BadComment, match=r"^b has two comments"):
        read("# -- One.\n# -- Two.\nb: 1\n")


def test_comments_run_over_lines_and_inner_values_have_their_paths() -> None:
    (value,) = read("a:\n  # -- What it is,\n  # and more.\n  # @schema {enum: [x, y]}\n  b: x\n")
    (leaf,) = value.leaves()
    assert (leaf.path, leaf.about, leaf.schema) == (
        "a.b",
        "What it is, and more.",
        {"type": "string", "enum": ["x", "y"]},
    )


def test_no_file_of_the_chart_is_left_out_of_its_package_but_the_values_of_tests() -> None:
    ignored = [line for line in (CHART / ".helmignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignored == ["ci/", "*.tgz"]
    assert not list(Path(CHART).rglob("*.tgz"))
