"""References out of texts, files and Kubernetes objects: each once, with where it stands; what is broken is named."""

import io
import json
import os
import random
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from mirror.references import ClusterObject, collect, files, named
from mirror.references.named import Collected, Named

DIGEST = "sha256:" + "ab" * 32


def plugin(url: str, name: str = "auth", **spec: str) -> str:
    more = "".join(f"  {key}: {value}\n" for key, value in spec.items())
    return (
        "apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\n"
        f"metadata:\n  name: {name}\n  namespace: team-a\nspec:\n  url: {url}\n{more}"
    )


def of_text(text: str) -> Collected:
    return collect(["-"], [], stdin=io.BytesIO(text.encode()))


def texts(found: Collected) -> list[str]:
    return [reference.text for reference in found.references]


def given(folder: Path, contents: Mapping[str, str | bytes]) -> Path:
    for name, content in contents.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
    return folder


def test_a_reference_comes_with_the_place_where_it_stands(tmp_path: Path) -> None:
    given(tmp_path, {"a.yaml": "# first\n---\n" + plugin("oci://ghcr.io/x/y:1")})
    assert collect([tmp_path / "a.yaml"], ["ghcr.io/z:2"]) == Collected(
        [
            Named("ghcr.io/z:2", "the command line"),
            Named("ghcr.io/x/y:1", f"{tmp_path}/a.yaml:9 (WasmPlugin team-a/auth)"),
        ],
        [],
    )


def test_each_reference_comes_once_where_it_stood_first() -> None:
    text = plugin("oci://ghcr.io/x/y:1") + "---\n" + plugin("ghcr.io/x/y:1") + "---\n" + plugin("oci://ghcr.io/x/y:2")
    found = collect(["-"], ["oci://ghcr.io/x/y:2"], stdin=io.BytesIO(text.encode()))
    assert found.references == [
        Named("oci://ghcr.io/x/y:2", "the command line and 1 more"),
        Named("ghcr.io/x/y:1", "standard input:7 (WasmPlugin team-a/auth) and 1 more"),
    ]


@pytest.mark.parametrize(
    ("url", "reference"),
    [
        ("oci://mirror.example:8080/ghcr.io/x/y:1", "mirror.example:8080/ghcr.io/x/y:1"),
        ("ghcr.io/x/y", "ghcr.io/x/y"),
        ("OCI://ghcr.io/x/y@" + DIGEST, "ghcr.io/x/y@" + DIGEST),
        ("zhaohuabing/plugin:v1", "docker.io/zhaohuabing/plugin:v1"),  # as agents read it
        ("plugin:v1", "docker.io/plugin:v1"),
        ("http://mirror:8080/modules/ghcr.io/x/y:1.wasm?sha256=ab", "ghcr.io/x/y:1"),
        ("https://mirror/modules/corp/x/y@sha256%3A" + "ab" * 32, "corp/x/y@" + DIGEST),
        ("https://example.com/modules/x/y.wasm", None),
        ("https://example.com/plugin.wasm", None),
        ("https://example.com/modules/x/y:1%1b[2J", None),
        ("http://[::1/x", None),
        ("file:///opt/filters/openid.wasm", None),
    ],
)
def test_a_plugin_names_the_module_that_agents_would_ask_for(url: str, reference: str | None) -> None:
    found = of_text(plugin(f"'{url}'"))
    assert (texts(found), found.problems) == ([reference] if reference else [], [])


FILTER = """
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: filter, namespace: istio-system}
spec:
  configPatches:
  - applyTo: EXTENSION_CONFIG
    patch:
      value:
        typed_config:
          config:
            vm_config:
              code: {remote: {http_uri: {uri: "oci://ghcr.io/x/y:1", timeout: 10s}}}
  - patch:
      value:
        typed_config: {value: {config: {vmConfig: {code: {remote: {httpUri: {uri: "http://m/modules/ghcr.io/x/z:2"}}}}}}}
  - patch:
      value:
        remote_jwks: {http_uri: {uri: "https://issuer.example/keys"}, more: {http_uri: {uri: issuer.example/keys}}}
        both: {a: {http_uri: {uri: "oci://ghcr.io/x/m:1"}}, b: {httpUri: {uri: "oci://ghcr.io/x/m:2"}}, url: "oci://ghcr.io/x/m:3"}
"""
POLICY = """
apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyExtensionPolicy
metadata: {name: policy}
spec:
  wasm:
  - {name: a, code: {type: Image, image: {url: ghcr.io/x/image:1}}}
  - {name: b, code: {type: HTTP, http: {url: "https://example.com/x.wasm"}}}
  - {name: c, code: {type: Image, image: {url: "oci://ghcr.io/x/image:2"}}}
  extProc: [{backendRefs: []}]
"""


def test_filters_and_policies_name_modules_at_their_places() -> None:
    found = of_text(FILTER + "---" + POLICY)
    assert found.problems == []
    assert [(reference.text, reference.where) for reference in found.references] == [
        ("ghcr.io/x/y:1", "standard input:13 (EnvoyFilter istio-system/filter)"),
        ("ghcr.io/x/z:2", "standard input:16 (EnvoyFilter istio-system/filter)"),
        ("ghcr.io/x/m:1", "standard input:20 (EnvoyFilter istio-system/filter)"),
        ("ghcr.io/x/m:2", "standard input:20 (EnvoyFilter istio-system/filter)"),
        ("ghcr.io/x/image:1", "standard input:27 (EnvoyExtensionPolicy policy)"),
        ("ghcr.io/x/image:2", "standard input:29 (EnvoyExtensionPolicy policy)"),
    ]


def test_lists_hold_objects_and_lists() -> None:
    item = {"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin", "spec": {"url": "ghcr.io/a:1"}}
    bare = {"spec": {"url": "ghcr.io/b:1"}}
    inner = {"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPluginList", "items": [bare]}
    found = of_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [item, inner, None, "x"]}))
    assert (texts(found), found.problems) == (["ghcr.io/a:1", "ghcr.io/b:1"], [])


@pytest.mark.parametrize(
    "text",
    [
        "apiVersion: v1\nkind: Secret\nstringData: {url: 'oci://ghcr.io/x/y:1'}\n",
        "apiVersion: example.com/v1\nkind: WasmPlugin\nspec: {url: ghcr.io/x/y:1}\n",
        "kind: [WasmPlugin]\n",
        "apiVersion: v1\nkind: Pod\nspec: {a: 1, a: 2, b: {{ x }}}\n",
        "apiVersion: gateway.envoyproxy.io/v1alpha1\nkind: EnvoyExtensionPolicy\nspec: {lua: []}\n",
        "- a\n- b\n",
        "---\n",
        "",
    ],
)
def test_what_is_no_module_is_passed_over(text: str) -> None:
    assert of_text(text) == Collected([], [])


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        (plugin("{{ .Values.url }}"), 7, "helm template"),
        (plugin("'oci://ghcr.io/x/y:{{ .Values.tag }}'"), 7, "helm template"),
        (plugin("oci://ghcr.io/x/y:${TAG}"), 7, "a variable that nothing was filled in for"),
        (plugin("''"), 7, "is no URL"),
        (plugin("'a b'"), 7, "is no URL"),
        (plugin("ghcr.io/" + "x" * 2000), 7, "longer than"),
        (plugin("ghcr.io/x\n  url: ghcr.io/y"), 8, "stands twice"),
        (plugin(""), 2, "has no spec.url"),
        (plugin("[ghcr.io/x]"), 2, "has no spec.url"),
        ("apiVersion: extensions.istio.io/v1alpha1\nkind: WasmPlugin\nspec: {{ x }}\n", 3, "helm template"),
        (POLICY.replace("{url: ghcr.io/x/image:1}", "{}"), 3, "has no code.image.url"),
        (FILTER.replace("timeout: 10s", "uri: b"), 13, "stands twice"),
        ("kind: WasmPlugin\nkind: Pod\n", 2, "stands twice"),
    ],
)
def test_what_is_broken_is_named_with_its_line_and_the_rest_is_read(text: str, line: int, words: str) -> None:
    found = of_text(text + "\n---\n" + plugin("ghcr.io/last:1"))
    (problem,) = found.problems
    assert problem.startswith(f"standard input:{line}")
    assert words in problem
    assert problem.isprintable()
    assert texts(found)[-1] == "ghcr.io/last:1"


def test_a_digest_that_contradicts_the_url_is_named_before_agents_refuse_it() -> None:
    found = of_text(plugin("ghcr.io/x/y@" + DIGEST, sha256="cd" * 32))
    (problem,) = found.problems
    assert problem.startswith("standard input:8 (WasmPlugin team-a/auth): agents will refuse it")
    assert texts(found) == ["ghcr.io/x/y@" + DIGEST]
    assert of_text(plugin("ghcr.io/x/y@" + DIGEST, sha256="ab" * 32)).problems == []
    assert of_text(plugin("ghcr.io/x/y:1", sha256="ab" * 32)).problems == []
    plain = "https://mirror/modules/ghcr.io/x/y@" + DIGEST  # whose sha256 is that of the module, not of its manifest
    assert of_text(plugin(plain, sha256="cd" * 32)).problems == []


def test_a_file_of_references_has_one_a_line(tmp_path: Path) -> None:
    text = (
        "\ufeff# ours\n\n  ghcr.io/x/y:1 # the first\r\noci://ghcr.io/x/z@"
        + DIGEST
        + "\nhttp://m/modules/corp/a:1\ntwo words\n"
    )
    file = given(tmp_path, {"refs.yaml": text}) / "refs.yaml"
    assert collect([file], []) == Collected(
        [
            Named("ghcr.io/x/y:1", f"{file}:3"),
            Named("oci://ghcr.io/x/z@" + DIGEST, f"{file}:4"),
            Named("corp/a:1", f"{file}:5"),
        ],
        [f"{file}:6: a reference is no URL: 'two words'"],
    )


def test_a_folder_gives_its_manifests_and_those_of_folders_in_it_each_file_once(tmp_path: Path) -> None:
    folder = given(
        tmp_path / "in",
        {
            "b.yml": plugin("ghcr.io/b"),
            "a.json": json.dumps(
                {"kind": "WasmPlugin", "apiVersion": "extensions.istio.io/v1", "spec": {"url": "ghcr.io/a"}}
            ),
            "notes.txt": "ghcr.io/no:1",
            "refs.yaml": "ghcr.io/no/kubernetes:1\n",
            "..data/c.YAML": plugin("ghcr.io/c"),
        },
    )
    (folder / "c.yaml").symlink_to("..data/c.YAML")
    (folder / "loop").symlink_to(".")
    (folder / "up").symlink_to("..")
    (folder / "gone.yaml").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.yaml")  # whose reading would never end
    found = collect([folder, folder / "b.yml"], [])
    assert (texts(found), found.problems) == (["ghcr.io/a", "ghcr.io/b", "ghcr.io/c"], [])
    assert found.references[2].where == f"{folder}/c.yaml:7 (WasmPlugin team-a/auth)"


def test_a_pipe_that_somebody_names_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # as of `-f <(kubectl get …)`
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=(plugin("ghcr.io/x:1"),))
    writer.start()
    assert texts(collect([tmp_path / "pipe"], [])) == ["ghcr.io/x:1"]
    writer.join()


def test_standard_input_that_is_closed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert collect([], ["ghcr.io/x:1"]).problems == []
    assert collect(["-"], ["ghcr.io/x:1"]) == Collected(
        [Named("ghcr.io/x:1", "the command line")], ["standard input: is closed"]
    )


def sparse(file: Path, size: int) -> Path:
    with file.open("wb") as out:
        out.truncate(size)
    return file


def test_what_is_no_text_or_too_large_is_one_line_each_and_the_rest_is_read(tmp_path: Path) -> None:
    given(
        tmp_path,
        {
            "b.yaml": b"a: 1\nb: \xff\n",
            "c.yaml": b"\x89PNG\r\n\x1a\n\0\0",
            "d.yaml": b"a: 1\n\nb: \0\n",
            "e.yaml": "a: {{\n",
            "f.yaml": plugin("ghcr.io/x:1"),
        },
    )
    sparse(tmp_path / "a.yaml", 1 << 30)
    found = collect([tmp_path, tmp_path / "nowhere", Path("/dev/zero")], [])
    assert texts(found) == ["ghcr.io/x:1"]
    expected = [
        (f"{tmp_path}/a.yaml: ", "larger than 16MiB"),
        (f"{tmp_path}/b.yaml:2: ", "is not UTF-8 text"),
        (f"{tmp_path}/c.yaml:3: ", "zero byte"),
        (f"{tmp_path}/d.yaml:3: ", "zero byte"),
        (f"{tmp_path}/e.yaml:1: ", "is not valid YAML"),
        (f"{tmp_path}/nowhere: ", "does not exist"),
        ("/dev/zero: ", "larger than 16MiB"),
    ]
    for problem, (where, words) in zip(found.problems, expected, strict=True):
        assert problem.startswith(where)
        assert words in problem


def test_files_folders_and_references_have_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given(tmp_path, {f"{n}/{n}.yaml": plugin(f"ghcr.io/x:{n}") for n in range(4)})
    monkeypatch.setattr(files, "MAX_FILES", 2)
    found = collect([tmp_path], ["ghcr.io/first"])
    assert (len(found.references), len(found.problems)) == (3, 1)
    assert "more than 2 files" in found.problems[0]
    monkeypatch.undo()

    monkeypatch.setattr(files, "MAX_ALL", 2 * len(plugin("ghcr.io/x:0")))
    found = collect([tmp_path], [])
    assert (len(found.references), len(found.problems)) == (2, 1)
    assert "from here on nothing was read" in found.problems[0]
    monkeypatch.undo()

    monkeypatch.setattr(files, "MAX_FOLDERS", 1)
    found = collect([tmp_path], [])
    assert (texts(found), len(found.problems)) == ([], 1)
    assert "nested deeper" in found.problems[0]
    monkeypatch.undo()

    monkeypatch.setattr(named, "MAX_REFERENCES", 3)
    monkeypatch.setattr(named, "MAX_PROBLEMS", 2)
    found = collect([tmp_path, *(tmp_path / f"no{n}" for n in range(5))], [])
    assert texts(found) == ["ghcr.io/x:0", "ghcr.io/x:1", "ghcr.io/x:2"]
    assert found.problems[2:] == ["and 3 problems more", "1 references are beyond the 3 that one call takes"]


def test_names_that_terminals_would_obey_are_told_in_letters(tmp_path: Path) -> None:
    given(tmp_path, {"a\x1b[2J.yaml": plugin("'a b'", name='"x\\e[2J"')})
    (problem,) = collect([tmp_path], []).problems
    assert problem.isprintable()


def test_objects_of_a_cluster_are_read_as_those_of_files() -> None:
    resources: Sequence[Mapping[str, object]] = [
        {
            "apiVersion": "extensions.istio.io/v1alpha1",
            "kind": "WasmPlugin",
            "metadata": {"name": "auth", "namespace": "a"},
            "spec": {"url": "oci://ghcr.io/x/y:1"},
        },
        {"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin", "metadata": {"name": "b"}, "spec": {}},
    ]
    assert collect([], [], [ClusterObject(value) for value in resources]) == Collected(
        [Named("ghcr.io/x/y:1", "the cluster (WasmPlugin a/auth)")], ["the cluster (WasmPlugin b): has no spec.url"]
    )


def test_no_manifest_that_is_spoilt_keeps_another_from_being_read() -> None:
    """Bytes of a manifest changed at random: nothing raises, and the manifests around it are found."""
    chance = random.Random(11)
    whole = (FILTER + "---" + POLICY).encode()
    for _ in range(200):
        content = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            content[chance.randrange(len(content))] = chance.choice(b" \n:-{}[]&*!#%'\"|><?,ab")
        around = (
            plugin("ghcr.io/first:1").encode() + b"---\n" + content + b"\n---\n" + plugin("ghcr.io/last:1").encode()
        )
        found = collect(["-"], [], stdin=io.BytesIO(around))
        assert {"ghcr.io/first:1", "ghcr.io/last:1"} <= set(texts(found)), bytes(content)
        assert all(problem.isprintable() for problem in found.problems)
