"""What goes wrong between an agent and a module, each once, so that the agent says what it says then.

The names are the words that ``docs/agents.md`` has in its table of errors.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.programs import agent
from tests.support.artifacts import (
    DOCKER_CONFIG,
    OCI_LAYER,
    RAW_CONFIG,
    Artifact,
    cncf,
    compat,
    image,
    index,
    publish,
    raw,
    tar_gz,
    wasm_module,
)
from tests.support.certificates import self_signed
from tests.support.faults import Fault
from tests.support.ports import ReservedPort
from tests.support.process import MirrorProcess
from tests.support.upstream import FaultyUpstream

MODULE = wasm_module(300_000)
CUT_SHORT = tar_gz({"plugin.wasm": MODULE})[:200_000]


@dataclass(frozen=True, slots=True)
class Stage:
    """A registry, the mirror before it, where it is ``up``, and a folder for whatever else is needed."""

    up: FaultyUpstream
    mirror: MirrorProcess
    folder: Path

    def error_of(self, artifact: Artifact, tag: str) -> str:
        """What an agent says to this artifact."""
        publish(self.up, "team/plugin", tag, artifact)
        return self.error(f":{tag}")

    def error(self, target: str, repository: str = "up/team/plugin", within: float = 30.0) -> str:
        """What an agent says to what the mirror has, or has not."""
        return agent(f"oci://{self.mirror.host}/{repository}{target}", within=within).error


@contextlib.contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """A stage for all scenes; upstreams ``down`` and ``silent`` beside ``up``. The mirror gives up after a second."""
    with ReservedPort() as nobody, FaultyUpstream() as up, FaultyUpstream() as silent:
        silent.inject(Fault(hang=True))
        upstreams = {"up": up.url, "down": f"http://127.0.0.1:{nobody.number}", "silent": silent.url}
        with MirrorProcess(folder / "mirror", upstreams, {"defaults": {"hold_for": "1s"}}) as mirror:
            yield Stage(up, mirror, folder)


def nobody_listens(at: Stage) -> str:
    with ReservedPort() as nobody:
        return agent(f"oci://127.0.0.1:{nobody.number}/up/team/plugin:v1").error


def a_private_authority(at: Stage) -> str:
    files = self_signed(at.folder)
    settings = {"tls": {"certificate": str(files.certificate), "key": str(files.key)}}
    with MirrorProcess(at.folder / "tls", {"up": at.up.url}, settings) as mirror:
        return agent(f"oci://{mirror.host}/up/team/plugin:v1", verify=True).error


def no_such_tag(at: Stage) -> str:
    publish(at.up, "team/plugin", "v1", raw(MODULE))
    return at.error(":nothing")


def denied(at: Stage) -> str:
    with at.up.inject(Fault(status=403), path="/manifests/denied"):
        return at.error(":denied")


def tampered(at: Stage, artifact: Artifact, tag: str) -> str:
    with at.up.inject(Fault(flip_at=-1), path=f"/blobs/{artifact.layers[0]}"):
        return at.error_of(artifact, tag)


def the_digest_of_an_index(at: Stage) -> str:
    return at.error(f"@{publish(at.up, 'team/plugin', None, index(compat(MODULE)))}")


def a_docker_image_of_plain_tars(at: Stage) -> str:
    layer = ("application/vnd.docker.image.rootfs.diff.tar", b"no matter what")
    kind = "application/vnd.docker.distribution.manifest.v2+json"
    return at.error_of(image([layer], config=(DOCKER_CONFIG, b"{}"), media_type=kind), "docker")


def over_http(at: Stage, query: str, tag: str) -> str:
    publish(at.up, "team/plugin", "http", raw(MODULE))
    return agent(f"http://{at.mirror.host}/modules/up/team/plugin:{tag}{query}").error


def credentials_asked_for_in_between(at: Stage) -> str:
    with at.up.inject(Fault(status=401, headers={"WWW-Authenticate": 'Basic realm="Registry"'})):
        return agent(f"oci://{at.up.host}/team/plugin:v1", within=3).error


SCENES: Mapping[str, Callable[[Stage], str]] = {
    "connection refused": nobody_listens,
    "no such host": lambda at: agent("oci://wasm-mirror.invalid:8080/up/team/plugin:v1").error,
    "certificate signed by unknown authority": a_private_authority,
    "could not parse reference": lambda at: at.error(":v1", "registry.example:5000/plugin"),
    "NAME_UNKNOWN": lambda at: at.error(":v1", "team/plugin"),
    "MANIFEST_UNKNOWN": no_such_tag,
    "DENIED": denied,
    "UPSTREAM_UNAVAILABLE": lambda at: at.error(":v1", "down/team/plugin"),
    "UPSTREAM_TIMEOUT": lambda at: at.error(":v1", "silent/team/plugin"),
    "UPSTREAM_INVALID": lambda at: tampered(at, compat(wasm_module(2000, seed=1)), "tampered-archive"),
    "context deadline exceeded": lambda at: at.error(":v2", "silent/team/plugin", within=0.5),
    "failed to read plugin.wasm": lambda at: at.error_of(image([(OCI_LAYER, CUT_SHORT)]), "cut-short"),
    "unexpected EOF": lambda at: tampered(at, raw(wasm_module(300_000, seed=2)), "tampered-module"),
    "which does not match": the_digest_of_an_index,
    "no child with platform": lambda at: at.error_of(index(compat(MODULE), platforms=("wasip1/wasm",)), "wasm"),
    "number of layers must be 2": lambda at: at.error_of(cncf(MODULE), "cncf"),
    "could not find the layer of type": lambda at: at.error_of(
        image([(OCI_LAYER, tar_gz({"plugin.wasm": MODULE})), (RAW_CONFIG, b"{}")]), "not-the-last"
    ),
    "plugin.wasm not found in the archive": lambda at: at.error_of(
        image([(OCI_LAYER, tar_gz({"filter.wasm": MODULE}))]), "other-name"
    ),
    "failed to parse layer as tar.gz": lambda at: at.error_of(image([(OCI_LAYER, b"no archive at all")]), "no-tar"),
    "Wasm file from the image as Docker container": a_docker_image_of_plain_tars,
    "fetched Wasm binary from": lambda at: at.error_of(compat(b"no module at all"), "no-module"),
    "status code 404": lambda at: over_http(at, "", "nothing"),
    "status code 409": lambda at: over_http(at, f"?sha256={64 * '0'}", "http"),
    "rejected unsafe bearer realm": credentials_asked_for_in_between,
}
"""What an agent says, and how it comes to say so."""

READ = frozenset({"missing image pulling secret"})
"""What was read in the source only: it is said before the code that fetches is reached."""
