"""A real Kubernetes API server with an etcd of its own: what ``--cluster`` asks, with the checks that a cluster has.

It has no nodes and runs nothing: it keeps objects, and decides who may see them. ::

    with ApiServer(tmp_path) as server:
        server.install("istio-crds", "wasmplugins.extensions.istio.io")
        server.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team-a"}})
        file = server.kubeconfig(tmp_path / "config", token=server.token_of("team-a", "robot"))
"""

import contextlib
import json
import ssl
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import yaml

from tests.support.ports import ReservedPort
from tests.support.process import ServerProcess
from tests.support.tools import require
from tests.support.waiting import wait_until

NEEDS = ("etcd", "kube-apiserver", "openssl", "istio-crds", "gateway-crds")

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class ApiServer:
    """The two processes, with all their files under ``folder``; started and stopped as a context manager.

    ``admin`` is the token of who may do everything.
    """

    admin = "token-of-the-admin"

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._ports = contextlib.ExitStack()
        client, peer, own = (self._ports.enter_context(ReservedPort()).number for _ in range(3))
        self.port = own
        self.url = f"https://127.0.0.1:{own}"
        self._kinds: dict[str, dict[str, Any]] = {}
        self.authority = folder / "certificates" / "apiserver.crt"
        self.certificate, self.key = folder / "admin.crt", folder / "admin.key"
        key, tokens = folder / "accounts.key", folder / "tokens.csv"
        _openssl("genrsa", "-out", key, "2048")
        who = "/O=system:masters/CN=an admin"
        _openssl(
            "req", "-x509", "-nodes", "-subj", who, "-out", self.certificate, "-newkey", "rsa", "-keyout", self.key
        )
        tokens.write_text(f"{self.admin},admin,admin,system:masters\n")
        etcd = f"http://127.0.0.1:{client}"
        self._etcd = ServerProcess(
            [
                *(require("etcd"), "--data-dir", folder / "etcd"),
                *("--listen-client-urls", etcd, "--advertise-client-urls", etcd),
                *("--listen-peer-urls", f"http://127.0.0.1:{peer}"),
            ],
            ready=f"{etcd}/health",
            log=folder / "etcd.log",
            start_within=60,
        )
        self._server = ServerProcess(
            [
                *(require("kube-apiserver"), "--etcd-servers", etcd),
                *("--secure-port", str(own), "--bind-address", "127.0.0.1", "--advertise-address", "127.0.0.1"),
                "--endpoint-reconciler-type=none",  # it would not advertise a loopback address
                *("--cert-dir", self.authority.parent, "--token-auth-file", tokens),
                *("--client-ca-file", self.certificate),
                *("--service-account-key-file", key, "--service-account-signing-key-file", key),
                *("--service-account-issuer", "https://kubernetes.default.svc"),
                *("--authorization-mode", "RBAC", "--disable-admission-plugins", "ServiceAccount"),
                *("--service-cluster-ip-range", "10.0.0.0/24"),
            ],
            ready=f"{self.url}/readyz",
            log=folder / "apiserver.log",
            start_within=120,
        )

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._ports)
            stack.enter_context(self._etcd)
            stack.enter_context(self._server)
            self._client = stack.enter_context(
                httpx.Client(
                    base_url=self.url,
                    headers={"Authorization": f"Bearer {self.admin}"},
                    verify=ssl.create_default_context(cafile=str(self.authority)),
                    trust_env=False,
                    timeout=30,
                )
            )
            self._running = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running.__exit__(kind, error, trace)

    def install(self, program: str, *names: str) -> None:
        """Custom resources, out of a file that `tests.support.tools` has; they are served when it returns."""
        definitions = {
            definition["metadata"]["name"]: definition
            for definition in yaml.load_all(require(program).read_text(), _LOADER)
            if definition
        }
        for name in names:
            self._post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definitions[name])
            plural, _, group = name.partition(".")
            version = definitions[name]["spec"]["versions"][0]["name"]
            self._wait_served(f"/apis/{group}/{version}/{plural}")
            self._kinds.pop(f"/apis/{group}/{version}", None)

    def apply(self, *objects: Mapping[str, Any]) -> None:
        """Create objects, with the rights of an administrator; the API server checks them against their schema."""
        for value in objects:
            self._post(self._collection(value), value)

    def apply_as_they_are(self, *objects: Mapping[str, Any]) -> list[str]:
        """Have objects be as they say, by server-side apply; gives what the API server warned of.

        What is no field of the kind's schema is an error. Source: Kubernetes API concepts, "Server-Side Apply", "Field
        validation", and "Warnings".
        """
        warnings = []
        for value in objects:
            path = f"{self._collection(value)}/{value['metadata']['name']}"
            answer = self._client.patch(
                path,
                params={"fieldManager": "tests", "force": "true", "fieldValidation": "Strict"},
                headers={"content-type": "application/apply-patch+yaml"},
                content=json.dumps(value),
            )
            assert answer.is_success, f"{path}: {answer.text}"
            warnings += [f"{path}: {text}" for text in answer.headers.get_list("warning")]
        return warnings

    def read(self, version: str, kind: str, namespace: str, name: str) -> dict[str, Any] | None:
        """An object as it is kept; None where it is not."""
        sought = {"apiVersion": version, "kind": kind, "metadata": {"namespace": namespace}}
        answer = self._client.get(f"{self._collection(sought)}/{name}")
        if answer.status_code == 404:
            return None
        found = answer.raise_for_status().json()
        assert isinstance(found, dict)
        return found

    def token_of(self, namespace: str, account: str) -> str:
        """A token of a service account, as a pod of it would have."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        return str(self._post(path, request)["status"]["token"])

    def may(self, token: str, verb: str, resource: str, namespace: str) -> bool:
        """Whether who has the token may do that to a resource, such as ``wasmplugins.extensions.istio.io``."""
        plural, _, group = resource.partition(".")
        asked = {"namespace": namespace, "verb": verb, "group": group, "resource": plural}
        answer = self._client.post(
            "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
            headers={"authorization": f"Bearer {token}"},
            json={
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SelfSubjectAccessReview",
                "spec": {"resourceAttributes": asked},
            },
        )
        return bool(answer.raise_for_status().json()["status"]["allowed"])

    def kubeconfig(self, file: Path, user: Mapping[str, Any], name: str = "here", *, current: bool = True) -> Path:
        """Write a kubeconfig with one context, whose user is ``user``."""
        value: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": name, "cluster": {"server": self.url, "certificate-authority": str(self.authority)}},
            ],
            "users": [{"name": name, "user": dict(user)}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
        }
        file.write_text(yaml.safe_dump(value | ({"current-context": name} if current else {})))
        return file

    def _collection(self, value: Mapping[str, Any]) -> str:
        """Where objects of its kind are, in its namespace."""
        version, kind = value["apiVersion"], value["kind"]
        root = f"/apis/{version}" if "/" in version else f"/api/{version}"
        if root not in self._kinds:
            resources = self._client.get(root).raise_for_status().json()["resources"]
            self._kinds[root] = {found["kind"]: found for found in resources if "/" not in found["name"]}
        found = self._kinds[root][kind]
        space = f"/namespaces/{value['metadata']['namespace']}" if found["namespaced"] else ""
        return f"{root}{space}/{found['name']}"

    def _wait_served(self, path: str) -> None:
        wait_until(lambda: self._client.get(path).is_success, timeout=60, what=f"{path} is served")

    def _post(self, path: str, value: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._client.post(path, json=value)
        assert answer.is_success, f"{path}: {answer.text}"
        told = answer.json()
        assert isinstance(told, dict)
        return told


def _openssl(*words: str | Path) -> None:
    subprocess.run([require("openssl"), *words], check=True, capture_output=True)
