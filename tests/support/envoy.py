"""The real Envoy, with V8: a program that tests start with Wasm plugins in front of a route.

::

    code = remote_code(f"{mirror.url}/modules/up/team/plugin:v1", sha256)
    with EnvoyProcess(tmp_path, [wasm_filter(code, root_id="basic_auth", configuration="…")]) as envoy:
        assert httpx.get(f"{envoy.url}/productpage").status_code == 401
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import httpx

from tests.support.ports import ReservedPort
from tests.support.process import ServerProcess, clean_environment
from tests.support.tools import require

PASSED = "the route was reached\n"
"""The body of the 200 with which every request is answered that the plugins let pass."""

_EXTENSIONS = "type.googleapis.com/envoy.extensions"

Config = dict[str, object]


class EnvoyProcess(ServerProcess):
    """Envoy with these HTTP filters before its router, at ``url``; its admin interface is at ``admin_url``.

    It is ready once it has what its plugins need, or has given up on that. Under ``folder``: envoy.json, envoy.log.
    """

    def __init__(self, folder: Path, filters: Sequence[Config] = (), *, start_within: float = 20.0) -> None:
        program = require("envoy")
        folder.mkdir(parents=True, exist_ok=True)
        self._ports = (ReservedPort(), ReservedPort())
        self.host, admin = (f"127.0.0.1:{port.number}" for port in self._ports)
        self.url = f"http://{self.host}"
        self.admin_url = f"http://{admin}"
        file = folder / "envoy.json"
        file.write_text(json.dumps(_bootstrap(self.host, admin, filters), indent=1))
        super().__init__(
            [program, "--config-path", file, "--disable-hot-restart", "--concurrency", "1", "-l", "warning"],
            ready=f"{self.admin_url}/ready",
            log=folder / "envoy.log",
            env=clean_environment(),
            start_within=start_within,
        )

    def stats(self, of: str = "") -> dict[str, int]:
        """Its counters and gauges whose names have a match of the pattern ``of``."""
        answer = httpx.get(
            f"{self.admin_url}/stats", params={"format": "json", "filter": of}, trust_env=False
        ).raise_for_status()
        return {one["name"]: one["value"] for one in answer.json()["stats"] if "value" in one}

    def close(self) -> None:
        """Give the ports back; a ``with`` statement does so at its end."""
        for port in self._ports:
            port.close()


def local_code(file: Path) -> Config:
    """A module in a file."""
    return {"local": {"filename": str(file)}}


def remote_code(url: str, sha256: str, *, retries: int = 3, timeout: float = 10.0) -> Config:
    """A module that Envoy fetches from ``url`` itself; ``timeout`` in seconds is that of one try.

    The server becomes a cluster of the same configuration.
    """
    return {
        "remote": {
            "http_uri": {"uri": url, "cluster": urlsplit(url).netloc, "timeout": f"{timeout}s"},
            "sha256": sha256,
            "retry_policy": {
                "num_retries": retries,
                "retry_back_off": {"base_interval": "0.2s", "max_interval": "2s"},
            },
        }
    }


def wasm_filter(
    code: Config, *, root_id: str = "", configuration: str = "", name: str = "plugin", fail_open: bool = False
) -> Config:
    """An HTTP filter that runs a module in V8, as Istio's agents configure one."""
    config: Config = {
        "name": name,
        "root_id": root_id,
        "failure_policy": "FAIL_OPEN" if fail_open else "FAIL_CLOSED",
        "vm_config": {"vm_id": name, "runtime": "envoy.wasm.runtime.v8", "code": code},
    }
    if configuration:
        config["configuration"] = {"@type": "type.googleapis.com/google.protobuf.StringValue", "value": configuration}
    return {
        "name": name,
        "typed_config": {"@type": f"{_EXTENSIONS}.filters.http.wasm.v3.Wasm", "config": config},
    }


def _bootstrap(listen: str, admin: str, filters: Sequence[Config]) -> Config:
    router: Config = {"name": "router", "typed_config": {"@type": f"{_EXTENSIONS}.filters.http.router.v3.Router"}}
    manager: Config = {
        "@type": f"{_EXTENSIONS}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "ingress",
        "normalize_path": True,
        "merge_slashes": True,
        "http_filters": [*filters, router],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [
                        {
                            "match": {"prefix": "/"},
                            "direct_response": {"status": 200, "body": {"inline_string": PASSED}},
                        }
                    ],
                }
            ]
        },
    }
    listener: Config = {
        "name": "ingress",
        "address": _address(listen),
        "enable_reuse_port": False,
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {
        "admin": {"address": _address(admin)},
        "static_resources": {"listeners": [listener], "clusters": [_cluster(host) for host in _servers(filters)]},
    }


def _servers(of: object) -> set[str]:
    """All clusters that a configuration names; their names are host and port."""
    if isinstance(of, Mapping):
        own = {str(of["cluster"])} if "cluster" in of else set()
        return own.union(*(_servers(value) for value in of.values()))
    if isinstance(of, Sequence) and not isinstance(of, str):
        return set[str]().union(*(_servers(value) for value in of))
    return set()


def _cluster(host: str) -> Config:
    endpoint = {"endpoint": {"address": _address(host)}}
    return {
        "name": host,
        "type": "STATIC",
        "connect_timeout": "2s",
        "load_assignment": {"cluster_name": host, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _address(host: str) -> Config:
    address, _, port = host.rpartition(":")
    return {"socket_address": {"address": address, "port_value": int(port)}}
