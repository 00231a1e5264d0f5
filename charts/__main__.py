"""``python -m charts``: write what is made from the chart's values."""

from charts import readme, schema
from charts.values import CHART, read


def made() -> dict[str, str]:
    """The content of each file of the chart that is made, by its name."""
    values = read((CHART / "values.yaml").read_text())
    return {"README.md": readme.document(values), "values.schema.json": schema.document(values)}


if __name__ == "__main__":
    for name, content in made().items():
        (CHART / name).write_text(content)
