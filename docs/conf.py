"""How Sphinx makes the site out of the Markdown files of the repository; `make docs` runs it.

The files stay as they are read on a code host. All of them lie under one source folder, the repository's root, so that
links between them, and to other files of the repository, lead to the same place in both: a page becomes a page, any
other file a copy beside the site.
"""

import re
from pathlib import Path

from sphinx.application import Sphinx

_ROOT = Path(__file__).parents[1]
_LINK = re.compile(r"\[([^]]+)\]\(([\w./-]+)\.md\)")

project = "wasm-mirror"
html_title = "wasm-mirror"
extensions = ["myst_parser"]
root_doc = "docs/index"
include_patterns = ["*.md", "docs/*.md", "charts/wasm-mirror/README.md"]
# Folders that have no page are not searched, virtual environments among them.
exclude_patterns = [entry.name for entry in _ROOT.iterdir() if entry.is_dir() and entry.name not in ("charts", "docs")]
myst_heading_anchors = 4  # anchors as code hosts make them
nitpicky = True
html_theme = "furo"
html_copy_source = False
html_show_search_summary = False  # it fetches the pages that were found, which no browser allows of files on a disk
html_show_copyright = False
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["site.css"]
html_extra_path = ["site"]  # index.html, which leads to docs/index.html


def _contents(text: str) -> list[str]:
    """The pages that the index links to, under its headings, as hidden tables of contents, which make the sidebar."""
    tables = []
    for section in text.split("\n## ")[1:]:
        caption = section.partition("\n")[0]
        pages = "\n".join(f"{title} </docs/{page}>" for title, page in _LINK.findall(section))
        tables.append(f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{pages}\n```\n")
    return tables


def _read(app: Sphinx, page: str, source: list[str]) -> None:
    if page == root_doc:
        source[0] += "".join(_contents(source[0]))


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
