"""What a cluster has: all of it, page by page, and what it refuses is named."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from mirror.commands.sources import Cluster, Sources
from mirror.errors import ClusterError
from mirror.references import cluster, kubeconfig
from mirror.references.cluster import RIGHTS, Listed, listed
from tests.references.support import ENDLESS, Answer, FakeApi, refusal
from tests.support.ports import ReservedPort
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
PLUGINS = "/apis/extensions.istio.io/v1alpha1/wasmplugins"
FILTERS = "/apis/networking.istio.io/v1alpha3/envoyfilters"
GROUPS = {
    f"/apis/{group}": (200, {"kind": "APIGroup", "preferredVersion": {"version": version}})
    for group, version in (("extensions.istio.io", "v1alpha1"), ("networking.istio.io", "v1alpha3"))
}


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeApi]:
    """An API server with two of the groups, and nothing in them."""
    monkeypatch.setattr(kubeconfig, "_BACKOFF", 0.0)
    with FakeApi(dict(GROUPS)) as fake:
        fake.answers |= {PLUGINS: page([]), FILTERS: page([])}
        yield fake


def resource(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "managedFields": [{}]}, "spec": {"url": f"ghcr.io/x/{name}"}, "status": {}}


def page(names: list[str], behind: str = "") -> Answer:
    return 200, {
        "kind": "WasmPluginList",
        "metadata": {"continue": behind},
        "items": [resource(name) for name in names],
    }


def ask(api: FakeApi, folder: Path, namespace: str | None = None) -> Listed:
    return listed({}, kubeconfig=api.kubeconfig(folder / "config", {"token": "secret"}), namespace=namespace)


def names(found: Listed) -> list[object]:
    return [value["name"] for item in found.objects if isinstance(value := item.value["metadata"], dict)]


def test_all_pages_are_read_and_what_is_not_installed_is_passed_over(api: FakeApi, tmp_path: Path) -> None:
    pages = {None: page(["a", "b"], "1"), "1": page(["c"], "2"), "2": page(["d"])}
    api.answers[PLUGINS] = lambda question: pages[question.query.get("continue")]
    api.answers[FILTERS] = refusal(404)
    found = ask(api, tmp_path)
    assert (names(found), found.problems) == (["a", "b", "c", "d"], [])
    assert found.objects[0].value["kind"] == "WasmPlugin"
    asked = [question for question in api.asked if question.path == PLUGINS]
    assert [question.query for question in asked] == [
        {"limit": "100"},
        {"limit": "100", "continue": "1"},
        {"limit": "100", "continue": "2"},
    ]
    assert {question.authorization for question in api.asked} == {"Bearer secret"}


def test_a_list_that_became_too_old_is_begun_again_and_holds_nothing_twice(api: FakeApi, tmp_path: Path) -> None:
    turns = iter([page(["a"], "1"), refusal(410), page(["b"], "2"), page(["c"])])
    api.answers[PLUGINS] = lambda _: next(turns)
    found = ask(api, tmp_path)
    assert (names(found), found.problems) == (["b", "c"], [])


def test_a_list_that_is_always_too_old_ends_in_a_line(api: FakeApi, tmp_path: Path) -> None:
    api.answers[PLUGINS] = lambda question: refusal(410) if "continue" in question.query else page(["a"], "1")
    api.answers[FILTERS] = page(["f"])
    found = ask(api, tmp_path)
    assert names(found) == ["f"]
    assert found.problems == [
        f"{api.url} cannot list wasmplugins.extensions.istio.io: the list changes faster than it can be read"
    ]


def test_one_namespace_is_asked_for_by_its_name(api: FakeApi, tmp_path: Path) -> None:
    api.answers["/apis/extensions.istio.io/v1alpha1/namespaces/team-a/wasmplugins"] = page(["a"])
    assert names(ask(api, tmp_path, "team-a")) == ["a"]
    ask(api, tmp_path, "../x")
    assert any("namespaces/..%2Fx/" in question.path for question in api.asked)


def test_of_several_namespaces_each_is_asked_for_and_no_other(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBECONFIG", raising=False)
    for name in ("team-a", "team-b"):
        api.answers[PLUGINS.replace("/wasmplugins", f"/namespaces/{name}/wasmplugins")] = page([name])
        api.answers[FILTERS.replace("/envoyfilters", f"/namespaces/{name}/envoyfilters")] = refusal(403)
    file = api.kubeconfig(tmp_path / "config", {"token": "secret"})
    references, broken = Sources([], [], Cluster(file, None, ["team-a", "team-b"])).read()
    assert list(references) == ["ghcr.io/x/team-a", "ghcr.io/x/team-b"]
    assert re.findall("in namespace (.+?) is lacking", "\n".join(broken)) == ["team-a", "team-b"]
    assert not {question.path for question in api.asked} & {PLUGINS, FILTERS}


def test_the_version_that_the_cluster_prefers_is_asked_for(api: FakeApi, tmp_path: Path) -> None:
    api.answers["/apis/extensions.istio.io"] = 200, {"preferredVersion": {"version": "v1"}}
    api.answers["/apis/extensions.istio.io/v1/wasmplugins"] = page(["a"])
    api.answers["/apis/networking.istio.io"] = refusal(403)  # it hides what it has: the version that is known, then
    api.answers[FILTERS] = page(["f"])
    assert names(ask(api, tmp_path)) == ["a", "f"]


def test_a_right_that_lacks_is_named_and_the_other_kinds_are_listed(api: FakeApi, tmp_path: Path) -> None:
    api.answers[PLUGINS] = refusal(403, "forbidden: User cannot list")
    api.answers[FILTERS] = page(["f"])
    found = ask(api, tmp_path)
    assert names(found) == ["f"]
    assert found.problems == [
        f"{api.url}: the right to `list wasmplugins.extensions.istio.io` in all namespaces is lacking; "
        f"{RIGHTS} gives it"
    ]


def test_credentials_that_are_refused_are_refused_once(api: FakeApi, tmp_path: Path) -> None:
    api.answers["/apis/extensions.istio.io"] = refusal(401, "Unauthorized")
    assert ask(api, tmp_path) == Listed([], [f"{api.url} does not take these credentials: Unauthorized"])
    assert len(api.asked) == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (
            refusal(400, "no such\nthing\x1b[2J"),
            "answers 400 for wasmplugins.extensions.istio.io: no such\\nthing\\x1b[2J",
        ),
        ((200, b"<html>"), "no JSON object"),
        ((200, b"[" * 100_000), "no JSON object"),
        ((302, b""), "answers 302"),
        ((503, b"later"), "answers 503"),
    ],
)
def test_answers_that_are_no_list_are_one_line(api: FakeApi, tmp_path: Path, answer: Answer, words: str) -> None:
    api.answers[PLUGINS] = answer
    (problem,) = ask(api, tmp_path).problems
    assert words in problem
    assert problem.isprintable()


def test_items_that_are_none_are_passed_over(api: FakeApi, tmp_path: Path) -> None:
    api.answers[PLUGINS] = 200, {"metadata": [], "items": [None, "x", resource("a")]}
    api.answers[FILTERS] = 200, {"items": {}}
    assert names(ask(api, tmp_path)) == ["a"]


def test_an_answer_without_end_is_not_read_to_its_end(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "_MAX_PAGE", 1000)
    api.answers[PLUGINS] = 200, ENDLESS
    (problem,) = ask(api, tmp_path).problems
    assert "far too large" in problem
    wait_until(lambda: api.cut, what="the server saw that nobody reads on")
    monkeypatch.undo()
    monkeypatch.setattr(cluster, "_MAX_PAGES", 3)
    api.answers[PLUGINS] = page(["a"], "again")
    (problem,) = ask(api, tmp_path).problems
    assert "more than 300 wasmplugins" in problem


def test_what_fails_for_a_moment_is_tried_again(api: FakeApi, tmp_path: Path) -> None:
    turns = iter([refusal(500), refusal(429), page(["a"])])
    api.answers[PLUGINS] = lambda _: next(turns)
    found = ask(api, tmp_path)
    assert (names(found), found.problems) == (["a"], [])


def test_a_server_that_nobody_runs_is_one_line(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubeconfig, "_BACKOFF", 0.0)
    with ReservedPort() as port, FakeApi() as api:
        file = api.kubeconfig(tmp_path / "config", {})
        nowhere = f"http://127.0.0.1:{port.number}"
        file.write_text(file.read_text().replace(api.url, nowhere))
        found = listed({}, kubeconfig=file)
    (problem,) = found.problems
    assert problem.startswith(f"{nowhere} cannot be asked: ")
    assert "refused" in problem
    assert caplog.records == [], "the library's own lines are not shown"


def test_the_first_file_that_names_a_context_decides_which_one_is_meant(api: FakeApi, tmp_path: Path) -> None:
    none = api.kubeconfig(tmp_path / "none", {"token": "0"}, name="none", current="")
    first = api.kubeconfig(tmp_path / "first", {"token": "1"}, name="first")
    second = api.kubeconfig(tmp_path / "second", {"token": "2"}, name="second")
    everything = {"KUBECONFIG": f"{none}:{tmp_path}/nowhere:{first}::{second}"}

    def who(**chosen: Any) -> str | None:
        api.asked.clear()
        listed(everything, **chosen)
        return api.asked[0].authorization

    assert who() == "Bearer 1"
    assert who(context="second") == "Bearer 2"
    assert who(kubeconfig=second) == "Bearer 2"


def test_the_home_folder_has_a_kubeconfig_and_a_pod_an_account(
    api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    pod = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": "1"}
    with pytest.raises(ClusterError, match=r"no cluster is configured: .*--kubeconfig"):
        listed({})
    with pytest.raises(ClusterError, match=r"service account cannot be used: .*token"):
        listed(pod, account=tmp_path / "nowhere")
    (tmp_path / ".kube").mkdir()
    api.kubeconfig(tmp_path / ".kube" / "config", {"token": "home"})
    assert listed(pod).problems == []
    assert api.asked[0].authorization == "Bearer home"


def test_a_program_gives_the_credentials(api: FakeApi, tmp_path: Path) -> None:
    def who(answer: str) -> str | None:
        helper = tmp_path / "helper"
        helper.write_text(f"#!/bin/sh\n{answer}\n")
        helper.chmod(0o755)
        run = {"apiVersion": "client.authentication.k8s.io/v1", "command": str(helper), "interactiveMode": "Never"}
        api.asked.clear()
        listed({}, kubeconfig=api.kubeconfig(tmp_path / "config", {"exec": run}))
        return api.asked[0].authorization

    kind = {"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential"}
    assert who(f"echo '{json.dumps({**kind, 'status': {'token': 'abc'}})}'") == "Bearer abc"
    with pytest.raises(ClusterError, match=r"no credentials: exec: process returned 3\. no login"):
        who("echo no login >&2; exit 3")
    with pytest.raises(ClusterError, match="no credentials: exec: missing token"):
        who(f"echo '{json.dumps({**kind, 'status': {}})}'")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "is empty"),
        ("a: [", ":1: is not valid YAML"),
        ("users: [{name: x, user: {token: SECRET: 1}}]", "is not valid YAML"),
        ("[SECRET]", "no kubeconfig"),
        ("current-context: nowhere\ncontexts: []\nclusters: []\nusers: [{name: SECRET}]\n", "nowhere"),
        ("contexts: SECRET\n", "Invalid kube-config"),
        (b"\xff\xfe\0SECRET", "no kubeconfig"),
    ],
)
def test_a_kubeconfig_that_is_none_is_one_line_without_what_it_holds(
    tmp_path: Path, content: str | bytes, words: str
) -> None:
    file = tmp_path / "config"
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(ClusterError) as refused:
        listed({}, kubeconfig=file)
    message = refused.value.message
    assert message.startswith(str(file))
    assert words in message
    assert "SECRET" not in message
    assert message.isprintable()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ClusterError, match="nowhere does not exist"):
        listed({}, kubeconfig=tmp_path / "nowhere")
    with pytest.raises(ClusterError, match=r"no file that KUBECONFIG names exists: .*nowhere"):
        listed({"KUBECONFIG": str(tmp_path / "nowhere")})


def test_a_library_that_is_absent_is_named_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    monkeypatch.setitem(sys.modules, "kubernetes.client", None)
    with pytest.raises(ClusterError, match=r"pip install 'wasm-mirror\[cluster\]'"):
        listed({})


def test_who_asks_no_cluster_does_not_load_the_library() -> None:
    program = "import sys, mirror.references, mirror.references.cluster; sys.exit('kubernetes' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_rights_that_are_documented_are_those_that_are_needed() -> None:
    documents = list(yaml.safe_load_all((ROOT / RIGHTS).read_text()))
    (role,) = (document for document in documents if document["kind"] == "ClusterRole")
    granted = {
        f"{verb} {resource}.{group}"
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == {f"list {kind.resource}" for kind in cluster.KINDS}
    assert all(rule.keys() == {"apiGroups", "resources", "verbs"} for rule in role["rules"])
    page = (ROOT / "docs" / "operators.md").read_text()
    (told,) = re.findall(r"```yaml\n(rules:\n.*?)```", page, re.DOTALL)
    assert yaml.safe_load(told)["rules"] == role["rules"]
