"""YAML and JSON as plain values, with lines; whatever the text holds, it costs a bounded time and memory."""

import json
import random
import tracemalloc

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mirror.references import documents
from mirror.references.documents import MAX_DEPTH, MAX_DOCUMENTS, Fault, Text, Value


def read(text: str) -> list[Value]:
    return list(documents.read(text))


def faults(text: str) -> list[tuple[int, str]]:
    return [(found.line, found.words) for found in documents.read(text) if isinstance(found, Fault)]


def line(value: Value, *keys: str) -> int:
    for key in keys:
        assert isinstance(value, dict)
        value = value[key]
    assert isinstance(value, Text)
    return value.line


def test_each_document_comes_with_the_lines_of_its_values() -> None:
    first, second = read("# a comment\na: x\n---\n\nb:\n  c: y\n")
    assert (first, second) == ({"a": "x"}, {"b": {"c": "y"}})
    assert (line(first, "a"), line(second, "b", "c")) == (2, 6)


def test_scalars_stay_text_and_an_empty_one_is_nothing() -> None:
    assert read("a: 0123\nb: yes\nc: 1.10\nd:\ne: null\nf: 'null'\ng: 2026-01-01\n") == [
        {"a": "0123", "b": "yes", "c": "1.10", "d": None, "e": None, "f": "null", "g": "2026-01-01"}
    ]


def test_documents_behind_a_broken_one_are_read() -> None:
    values = read("a: 1\n---\nb: [1\nc: 2\n---\nd: 3\n--- {e: 4}\n")
    assert values[0] == {"a": "1"}
    assert isinstance(values[1], Fault)
    assert (values[1].line, values[2:]) == (4, [{"d": "3"}, {"e": "4"}])


def test_a_directive_and_the_end_of_a_document_are_no_content() -> None:
    assert read("%YAML 1.1\n---\na: 1\n...\n%TAG ! !x\n---\nb: 2\n...\n") == [{"a": "1"}, {"b": "2"}]


def test_lines_that_only_look_like_a_marker_are_content() -> None:
    assert read("a: |\n  ---\n  x\nb: ---c\n") == [{"a": "---\nx\n", "b": "---c"}]


def test_a_template_that_is_no_yaml_is_named_with_what_to_do() -> None:
    ((number, words),) = faults("a: 1\n---\n{{- if .Values.on }}\nb: 2\n{{- end }}\n")
    assert number in (3, 4)
    assert "is not valid YAML" in words
    assert "helm template" in words


def test_a_template_that_is_yaml_by_chance_spoils_only_its_own_value() -> None:
    (value,) = read("a: {{ .Values.a }}\nb: 2\n")
    assert isinstance(value, dict)
    assert value["b"] == "2"
    assert isinstance(value["a"], Fault)
    assert value["a"].line == 1
    assert "helm template" in value["a"].words


def test_a_key_that_stands_twice_spoils_only_its_own_value() -> None:
    (value,) = read("a: 1\nb: 2\na: 3\n")
    assert isinstance(value, dict)
    assert value["b"] == "2"
    assert value["a"] == Fault(3, "the key 'a' stands twice")


def test_an_alias_shares_what_it_names_and_a_merge_does_not_replace() -> None:
    (value,) = read("x: &x {a: 1, b: 2}\ny: {<<: *x, b: 3}\nz: [*x, *x]\nw: {<<: [*x, {c: 4}]}\n")
    assert isinstance(value, dict)
    assert (value["y"], value["w"]) == ({"b": "3", "a": "1"}, {"a": "1", "b": "2", "c": "4"})
    assert isinstance(value["z"], list)
    assert value["z"][0] is value["z"][1] is value["x"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: &a [*a]\n", "stands inside of what it names"),
        ("a: *b\n", "no anchor explains the alias *b"),
        ("a: \x07\n", "a character that YAML does not allow"),
        ("[" * 100_000, f"deeper than {MAX_DEPTH} levels"),
        ("- " * 100_000, f"deeper than {MAX_DEPTH} levels"),
        ("a: !!python/object/apply:os.system [x]\nb: [\n", "is not valid YAML"),
        ("---\n" * (MAX_DOCUMENTS + 1) + "a: 1\n", f"more than {MAX_DOCUMENTS} documents"),
    ],
)
def test_what_cannot_be_read_is_one_line(text: str, words: str) -> None:
    ((_, told),) = faults(text)
    assert words in told


def test_a_character_that_yaml_does_not_allow_is_named_with_its_line() -> None:
    assert faults("é: 1\nb: 2\n---\nc: ü\nd: \x07\n") == [(5, "has a character that YAML does not allow")]


def test_tags_make_nothing_of_a_value() -> None:
    assert read("a: !!python/object/apply:os.system ['true']\nb: !!binary eA==\n") == [{"a": ["true"], "b": "eA=="}]


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [" + ",".join("x" * 9) + "]"]
    lines += [f"a{n}: &a{n} [" + ",".join([f"*a{n - 1}"] * 9) + "]" for n in range(1, levels)]
    return "\n".join(lines)


def test_a_bomb_of_aliases_is_given_up_before_it_is_followed() -> None:
    tracemalloc.start()
    try:
        ((number, words),) = faults(bomb(40) + "\n---\nb: 1\n")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert number < 10
    assert "with aliases followed" in words
    assert peak < 4 << 20


def test_a_chain_of_aliases_may_be_as_deep_as_it_likes() -> None:
    chain = "\n".join(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 300))
    (value,) = read(f"a0: &a0 [x]\n{chain}\n")  # who visits such a thing does so without recursion
    assert isinstance(value, dict)
    assert len(value) == 300


def test_values_are_counted_over_all_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_VALUES", 20)
    values = read("a: [1, 2, 3, 4]\n---\nb: [1, 2, 3, 4, 5]\n---\nc: [1, 2, 3, 4]\n---\nd: 1\n")
    assert values[:2] == [{"a": list("1234")}, {"b": list("12345")}]
    assert isinstance(values[2], Fault)
    assert (values[2].line, len(values)) == (5, 3)


def test_json_reads_as_json_does() -> None:
    value = {
        "a": 'x"\\\t\n/é\U0001f600\U000e0001',
        "b": ["\ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16")],
    }
    for text in (json.dumps(value), json.dumps(value, ensure_ascii=False), json.dumps(value, indent="\t")):
        assert read(text) == [value]
    assert read('{"a":"\\/\\\\ud83d\\\\ude00"}') == [{"a": "/\\ud83d\\ude00"}]


@pytest.mark.parametrize("loader", ["CSafeLoader", "SafeLoader"])
def test_either_parser_reads_the_same(loader: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(yaml, "CSafeLoader", getattr(yaml, loader))
    assert read('a: &x {"b": 1}\nc: [*x, "d"]\n---\n{\n\t"e": "\\ud83d\\ude00"\n}\n') == [
        {"a": {"b": "1"}, "c": [{"b": "1"}, "d"]},
        {"e": "\U0001f600"},
    ]
    assert [number for number, _ in faults("a: 1\n---\nb: \x07\n---\nc: [}\n")] == [3, 5]


plain = st.recursive(
    st.text("ab {}[]:#-'\"\\\n\té😀", max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("ab<-: {", max_size=4), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(st.text("abc", min_size=1, max_size=4), plain, max_size=4))
def test_what_others_write_is_read_as_they_meant_it(value: dict[str, object]) -> None:
    def told(value: object) -> object:
        if isinstance(value, dict):
            return {key: told(inner) for key, inner in value.items()}
        return [told(inner) for inner in value] if isinstance(value, list) else value

    expected = [told(value)]
    assert read(yaml.safe_dump(value, allow_unicode=True)) == expected
    assert read(json.dumps(value)) == expected


def test_no_text_whatever_raises_or_hangs() -> None:
    """Pieces of YAML, put together at random: each text gives values or faults, with lines that it has."""
    chance = random.Random(7)
    pieces = [
        "{",
        "}",
        "[",
        "]",
        ": ",
        "- ",
        "\n",
        "\n  ",
        "---\n",
        "...\n",
        "&a ",
        "*a",
        "!",
        "%",
        "|\n",
        ">",
        '"',
        "'",
        "#",
    ]
    pieces += [
        "{{ x }}",
        "a",
        "b",
        "<<",
        "? ",
        ", ",
        "\t",
        "é",
        "\x07",
        "\u2028",
        "\\ud83d",
        "url",
        "null",
        "\r\n",
        "\ufeff",
    ]
    for _ in range(1000):
        text = "".join(chance.choices(pieces, k=chance.randrange(40)))
        for value in documents.read(text):
            if isinstance(value, Fault):
                assert 1 <= value.line <= text.count("\n") + text.count("\u2028") + 1, repr(text)
                assert value.words.isprintable(), repr(text)
