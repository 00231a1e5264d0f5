"""What a site loads from elsewhere, and links that lead nowhere, are found."""

from pathlib import Path

import pytest

from tests.support.site import Site


def site(folder: Path, body: str, style: str = "") -> Site:
    """One page with this body, a style sheet, and another page."""
    (folder / "a.html").write_text(f'<link rel="stylesheet" href="a.css"><h1 id="top">A</h1>{body}')
    (folder / "a.css").write_text(style)
    (folder / "b.html").write_text('<h2 id="section">B</h2>')
    return Site(folder)


@pytest.mark.parametrize(
    "body",
    [
        '<script src="https://cdn.example/a.js"></script>',
        '<img src="//cdn.example/a.png">',
        '<link rel="preconnect" href="https://fonts.example">',
        '<img srcset="a.css 1x, https://cdn.example/2.png 2x">',
        '<p style="background: url(https://cdn.example/a.png)">',
        '<img src="absent.png">',
        '<img src="../outside.png">',
    ],
)
def test_what_comes_from_elsewhere_or_is_not_there_is_found(body: str, tmp_path: Path) -> None:
    (tmp_path / "outside.png").touch()
    folder = tmp_path / "site"
    folder.mkdir()
    assert len(site(folder, body).foreign()) == 1


def test_what_a_style_sheet_loads_from_elsewhere_is_found(tmp_path: Path) -> None:
    made = site(
        tmp_path, "", '@import "https://cdn.example/b.css"; a { background: url(a.css) url("data:image/png,") }'
    )
    assert made.foreign() == ["a.css: https://cdn.example/b.css"]


def test_links_that_lead_nowhere_are_found_and_others_are_not(tmp_path: Path) -> None:
    body = "".join(
        f'<a href="{target}">x</a>'
        for target in ("b.html#section", "#top", "b.html#absent", "c.html", "https://a.example")
    )
    made = site(tmp_path, body)
    assert made.broken() == ["a.html: b.html#absent", "a.html: c.html"]
    assert made.outside() == {"https://a.example"}
    assert made.foreign() == []
