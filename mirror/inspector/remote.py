"""What a running mirror says of an artifact, over its admin API. Blocks."""

from mirror.commands.client import Client
from mirror.config.hosts import split
from mirror.errors import CommandError, InspectError, MirrorRefused, RequestError
from mirror.oci import parse_reference


def name_of(reference: str, mirror: str) -> tuple[str, str | None]:
    """The name, tag or digest for which a mirror at the host ``mirror`` is asked, and the host that ``reference`` has.

    Its first part is a host, and not an upstream, when it is that of the mirror, or has a port, as no upstream's name
    has: then it is the mirror, as it is called elsewhere. Raises `InspectError`.
    """
    scheme, separator, rest = reference.partition("://")
    host = None
    if separator and scheme.lower() in ("http", "https"):
        rest = _plain(reference, rest)
    elif separator and scheme.lower() != "oci":
        raise InspectError(f"{reference} is not understood: a reference begins with oci://, or with its upstream")
    else:
        rest = rest if separator else reference
        first, slash, behind = rest.partition("/")
        found = split(first) if slash else None
        if found is not None and (first.lower() == mirror or found[1] is not None):
            host, rest = first, behind
    try:
        named = parse_reference(rest)
    except RequestError as error:
        raise InspectError(f"{reference} is no reference: {error.message}") from error
    return f"{named.name}:{named.tag}" if named.tag is not None else f"{named.name}@{named.digest}", host


class Mirror:
    """The mirror that ``client`` talks to."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def describe(self, reference: str) -> dict[str, object]:
        """The JSON that the mirror gives for ``reference``; raise `CommandError`."""
        name, host = name_of(reference, self._client.host)
        try:
            return self._client.call("GET", f"modules/{name}")
        except MirrorRefused as refused:
            raise self._refused(refused, name, host, may_be_here="://" not in reference) from refused

    def _refused(self, refused: MirrorRefused, name: str, host: str | None, *, may_be_here: bool) -> CommandError:
        """What an error of the mirror means to who runs the command, and perhaps meant a file (``may_be_here``)."""
        url = self._client.url
        if refused.answered == 401:
            return InspectError(f"{refused.message}; the same is said to all, as JSON, at {url}/modules/{name}?info")
        if refused.said is None or refused.said[0] == "UNKNOWN":
            return refused
        code, message = refused.said
        hint = ""
        if code == "NAME_UNKNOWN" and host is not None:
            hint = (
                f" (asked for {name}: {host} was taken for the mirror's own address; a registry with a port needs an "
                "alias under `upstreams`)"
            )
        elif code == "NAME_UNKNOWN" and may_be_here:
            hint = " (nor is there such a file or directory here)"
        elif code in ("UPSTREAM_UNAVAILABLE", "UPSTREAM_TIMEOUT"):
            hint = f"; so says the mirror at {url}, where `wasm-mirror doctor` says more"
        return InspectError(f"{name}: {message}{hint}", broken=code == "UPSTREAM_INVALID")


def _plain(reference: str, rest: str) -> str:
    """The reference in the address of a plain module, as Envoys and WasmPlugins have it, at whatever host."""
    _, _, path = rest.partition("?")[0].partition("/")
    if not path.startswith("modules/"):
        raise InspectError(
            f"{reference} is not understood: of plain addresses only those of a mirror's /modules/ are; a file can be "
            "inspected once it is here"
        )
    return path.removeprefix("modules/").removesuffix(".wasm")
