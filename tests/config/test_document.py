"""The YAML file: text with line numbers, and nothing that a file could do besides."""

import time
from pathlib import Path

import pytest

from mirror.config import ConfigurationError
from mirror.config.document import MAX_FILE_SIZE, Document, read


def _read(folder: Path, text: str | bytes) -> Document:
    path = folder / "mirror.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read(path)


def _refusal(folder: Path, text: str | bytes) -> str:
    with pytest.raises(ConfigurationError) as refused:
        _read(folder, text)
    assert "\n" not in refused.value.message
    return refused.value.message.removeprefix(f"{folder}/")


def test_scalars_are_text_and_nothing_is_none(tmp_path: Path) -> None:
    document = _read(tmp_path, "a: 010\nb: no\nc: 1:30\nd: null\ne:\nf: 'null'\ng: 2024-01-01\nh: =\ni: ~\n")
    assert document.values == {
        "a": "010",
        "b": "no",
        "c": "1:30",
        "d": None,
        "e": None,
        "f": "null",
        "g": "2024-01-01",
        "h": "=",
        "i": None,
    }


def test_each_key_and_item_knows_its_line(tmp_path: Path) -> None:
    document = _read(tmp_path, "# a comment\na:\n  b:\n    - c\n    - d: 1\n")
    lines = {location: origin.line for location, origin in document.origins.items()}
    assert lines == {(): 0, ("a",): 2, ("a", "b"): 3, ("a", "b", 0): 4, ("a", "b", 1): 5, ("a", "b", 1, "d"): 5}


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "null\n", "\ufeff"])
def test_an_empty_file_has_no_values(tmp_path: Path, text: str) -> None:
    assert _read(tmp_path, text).values == {}


def test_a_key_that_stands_twice_is_told_with_both_lines(tmp_path: Path) -> None:
    document = _read(tmp_path, "a:\n  x: 1\n  y: 2\n  x: 3\n")
    assert [str(problem).removeprefix(f"{tmp_path}/") for problem in document.problems] == [
        "mirror.yaml:4: a.x: stands twice; first on line 2"
    ]


def test_an_alias_is_followed(tmp_path: Path) -> None:
    assert _read(tmp_path, "a: &x {k: v}\nb: *x\n").values == {"a": {"k": "v"}, "b": {"k": "v"}}


def test_values_behind_two_aliases_are_not_one_object(tmp_path: Path) -> None:
    values = _read(tmp_path, "a: &x {k: v}\nb: *x\n").values
    assert values["a"] is not values["b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [", "mirror.yaml:2: is not valid YAML: "),
        ("a:\n\t- b\n", "mirror.yaml:2: is not valid YAML: found character '\\t' that cannot start any token"),
        ("a: b: c\n", "mirror.yaml:1: is not valid YAML: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2\n", "mirror.yaml:2: is not valid YAML: "),
        (
            "a: *b\n",
            "mirror.yaml:1: is not valid YAML: an alias that no anchor explains; text that begins with * stands in",
        ),
        ("a: \x01\n", "mirror.yaml:1: has a character that YAML does not allow"),
        (b"a: 1\nb: \xff\n", "mirror.yaml:2: is not UTF-8 text"),
        ("- a\n", "mirror.yaml:1: must be a mapping of settings, such as `listen: …`"),
        ("\njust text\n", "mirror.yaml:2: must be a mapping of settings, such as `listen: …`"),
        ("[" * 100_000, "mirror.yaml: is nested deeper than 32 levels"),
        ("a: " + "[" * 40 + "]" * 40, "mirror.yaml:1: is nested deeper than 32 levels"),
        ("a: &x [*x]\n", "mirror.yaml:1: is nested deeper than 32 levels"),
    ],
)
def test_what_is_not_settings_gets_one_line_that_says_where(tmp_path: Path, text: str | bytes, message: str) -> None:
    assert _refusal(tmp_path, text).startswith(message)


def test_an_alias_bomb_is_refused_in_bounded_time(tmp_path: Path) -> None:
    levels = ["l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 12)]
    started = time.monotonic()
    assert "more than 100000 values" in _refusal(tmp_path, "\n".join(levels))
    assert time.monotonic() - started < 20


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    assert "larger than 1MiB" in _refusal(tmp_path, b"#" * (MAX_FILE_SIZE + 1))


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system", "!!python/name:os.system", "!!binary", "!mine"])
def test_a_tag_is_a_problem_and_makes_nothing(tmp_path: Path, tag: str) -> None:
    document = _read(tmp_path, f"a: {tag} [aGk=]\nb: {tag} aGk=\n")
    assert document.values == {"a": None, "b": None}
    assert len(document.problems) == 2
    assert all("must not have a YAML tag" in problem.words for problem in document.problems)


def test_a_key_that_is_no_text_is_a_problem(tmp_path: Path) -> None:
    document = _read(tmp_path, "? [a]\n: b\nc: d\n")
    assert document.values == {"c": "d"}
    assert "keys are text" in document.problems[0].words


@pytest.mark.parametrize(
    "text",
    [
        "password: *hunter2",
        "password: &hunter2 a\nb: &hunter2 b",
        "password: !hunter2!x y",
        "password: 'hunter2",
        "password: hunter2: x",
        "password: hunter2\n b: c",
        "password: @hunter2",
        "password: %hunter2",
        "password: [hunter2\nb: c",
        "%TAG !hunter2! a\n%TAG !hunter2! b\n---\na: 1",
        "password: |hunter2",
    ],
)
def test_a_syntax_error_never_shows_a_password(tmp_path: Path, text: str) -> None:
    try:
        problems = [str(problem) for problem in _read(tmp_path, text).problems]
    except ConfigurationError as refused:
        problems = [refused.message]
    assert not [problem for problem in problems if "hunter2" in problem]


def test_a_syntax_error_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r":3: is not valid YAML: expected ',' or '}', but got '<stream end>'$"
    ):
        _read(tmp_path, "upstreams:\n  ghcr.io: {\nlisten")


def test_a_missing_file_gets_one_line(tmp_path: Path) -> None:
    wanted = r"none\.yaml: does not exist; name the settings file with --config; .*`upstreams: {ghcr\.io: {}}`$"
    with pytest.raises(ConfigurationError, match=wanted):
        read(tmp_path / "none.yaml")


def test_in_place_of_a_missing_file_the_nearest_one_is_named(tmp_path: Path) -> None:
    for name in ("a.yaml", "wasm-mirror.yaml", "wasm-mirror.txt"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigurationError, match=r"does not exist; .* did you mean \S+/wasm-mirror\.yaml\?$"):
        read(tmp_path / "wasm-miror.yaml")


def test_a_folder_in_place_of_a_file_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "mirror.yml").touch()
    with pytest.raises(ConfigurationError, match=r": is a directory; .* did you mean \S+/mirror\.yml\?$"):
        read(tmp_path)


def test_a_path_that_leads_through_a_file_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"cannot be read: Not a directory$"):
        read(tmp_path / "file" / "mirror.yaml")
