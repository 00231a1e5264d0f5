"""Which Kubernetes API server is asked, and who one is there: as ``kubectl`` finds it out, with the same files.

The only file that loads ``kubernetes``, of the extra ``wasm-mirror[cluster]``; `client` does so when it is called.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import yaml

from mirror.errors import ClusterError
from mirror.references import documents
from mirror.references.named import shown

if TYPE_CHECKING:
    from kubernetes.client import ApiClient, Configuration

EXTRA: Final = "wasm-mirror[cluster]"
ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds the credentials of its service account."""

_RETRIES = 3
_BACKOFF = 0.5  # seconds before the second of them, twice as long before each further one
_LONGEST_PAUSE = 10  # seconds, whatever Retry-After says


def client(
    environment: Mapping[str, str], kubeconfig: Path | None, context: str | None, account: Path = ACCOUNT
) -> "ApiClient":
    """A client of the API server that ``kubeconfig``, ``KUBECONFIG``, ``~/.kube/config`` or the pod's account names.

    May run a program that the configuration names, to get credentials. Raises `ClusterError`.
    """
    try:
        import urllib3
        from kubernetes.client import ApiClient, Configuration
    except ImportError:
        raise ClusterError(f"--cluster needs a client library that is not installed: pip install '{EXTRA}'") from None
    configuration = Configuration()
    configuration.retries = urllib3.Retry(
        _RETRIES,
        redirect=False,
        status_forcelist=(429, 500, 502, 503, 504),
        raise_on_status=False,
        backoff_factor=_BACKOFF,
        retry_after_max=_LONGEST_PAUSE,
    )
    files = _files(environment, kubeconfig)
    if files:
        _from_files(configuration, files, context)
    elif context is None and "KUBERNETES_SERVICE_HOST" in environment:
        _from_pod(configuration, environment, account)
    else:
        raise ClusterError(
            "no cluster is configured: name a file with --kubeconfig or KUBECONFIG, or run this in a pod of the cluster"
        )
    return ApiClient(configuration)


def _files(environment: Mapping[str, str], kubeconfig: Path | None) -> list[Path]:
    """The files that say it, the first of which counts first; what KUBECONFIG names and is not there is left out."""
    if kubeconfig is not None:
        if not kubeconfig.is_file():
            raise ClusterError(f"{shown(str(kubeconfig))} does not exist, or is no file: --kubeconfig names one")
        return [kubeconfig]
    listed = environment.get("KUBECONFIG")
    named = [name for name in listed.split(":") if name] if listed else []
    # A pod may run as a user without a home, which Path.expanduser would not have.
    found = [Path(name) for name in map(os.path.expanduser, named or ["~/.kube/config"]) if os.path.exists(name)]
    if named and not found:
        raise ClusterError(f"no file that KUBECONFIG names exists: {shown(listed or '')}")
    return found


def _from_files(configuration: "Configuration", files: list[Path], context: str | None) -> None:
    from kubernetes.config import ConfigException, load_kube_config

    names = shown(", ".join(map(str, files)))
    try:
        # The library takes the last file's context; kubectl takes the first one's, and so do people.
        chosen = context or next(filter(None, map(_current_context, files)), None)
        with errors_logged() as told:
            load_kube_config(
                config_file=":".join(map(str, files)),
                context=chosen,
                client_configuration=configuration,
                persist_config=False,
            )
    except ConfigException as error:
        raise ClusterError(f"{names}: {shown(str(error))}") from None
    except yaml.MarkedYAMLError as error:  # whose text quotes the file, credentials too
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ClusterError(f"{names}{line}: is not valid YAML: {shown(str(error.problem or error.context))}") from None
    except OSError as error:
        raise ClusterError(f"{names}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # the library takes the form of what it reads for granted, and trips over other forms
        raise ClusterError(f"{names}: is no kubeconfig ({type(error).__name__})") from None
    if told:  # it goes on without credentials, which the API server would say in other words
        raise ClusterError(f"{names}: no credentials: {shown(told[0].strip())}")


def _current_context(file: Path) -> str | None:
    for document in documents.read(file.read_text("utf-8")):
        value = document.get("current-context") if isinstance(document, dict) else None
        if isinstance(value, str):
            return str(value)
    return None


def _from_pod(configuration: "Configuration", environment: Mapping[str, str], account: Path) -> None:
    from kubernetes.config import ConfigException
    from kubernetes.config.incluster_config import InClusterConfigLoader

    try:
        InClusterConfigLoader(
            token_filename=str(account / "token"), cert_filename=str(account / "ca.crt"), environ=environment
        ).load_and_set(configuration)
    except (ConfigException, OSError) as error:
        raise ClusterError(
            f"the pod's service account cannot be used: {shown(str(error))}; "
            "see automountServiceAccountToken, or name a file with --kubeconfig"
        ) from None


@contextmanager
def errors_logged() -> Iterator[list[str]]:
    """What is logged as an error meanwhile; nobody else sees that, nor what libraries say of their tries."""
    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.levelno >= logging.ERROR:
                told.append(record.getMessage())

    root = logging.getLogger()
    others, root.handlers = root.handlers, [Listener()]
    try:
        yield told
    finally:
        root.handlers = others
