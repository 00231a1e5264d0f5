"""The reference of all settings, made from the models.

``python -m mirror.config.reference > docs/configuration.md`` writes it anew.
"""

import json
from collections.abc import Iterator

from mirror.config import schema
from mirror.config.environment import PREFIX
from mirror.config.schema import Key
from mirror.config.section import Section
from mirror.config.upstreams import Defaults
from mirror.config.values import format_duration, format_size

_HEAD = """\
# Configuration

<!-- Made by `python -m mirror.config.reference > docs/configuration.md`; a test asserts that it is up to date. -->

`wasm-mirror serve --config FILE` reads one YAML file. The smallest that is of use:

```yaml
upstreams:
  ghcr.io: {}
```

`config/wasm-mirror.yaml` has every key with a comment. `wasm-mirror check-config --config FILE` prints the effective
settings, secrets masked, or every error at once, each with its key, its line and what is allowed. `WASM_MIRROR_CONFIG`
names the file too. Without one, and where the environment names no upstreams, a mirror that listens at a loopback
address has the public registries; at any other it has to be told which.

## Values

- **Durations**: `500ms`, `10s`, `1m`, `1h30m`, `30d`, or `0`. A number without a unit is an error.
- **Sizes**: `256MiB`, `20GiB` (powers of 1024), `1GB` (of 1000), or a number of bytes.
- **Text** may stand without quotes, digits and `no` too. Quotes are needed where YAML gives a sign a meaning: text that
  begins with `*`, `&`, `!`, `%`, `@`, `` ` ``, `#`, `{` or `[`, or holds `: ` or ` #`.
- A key may stand once only. A mapping or list that is empty, because all in it is commented out, has its defaults.

## Environment

Every key may come from the environment, which wins over the file; options of the command line win over both. The
variable is `WASM_MIRROR_` and the key in capitals, with `__` between the steps of its path: `WASM_MIRROR_DATA_DIR`,
`WASM_MIRROR_METADATA__URL`. A mapping or list is JSON and replaces the file's whole one:
`WASM_MIRROR_UPSTREAMS='{"ghcr.io": {}}'`. For a key of an upstream that is configured, its name stands in the variable
with `_` for dots and dashes: `WASM_MIRROR_UPSTREAMS__GHCR_IO__CREDENTIALS__PASSWORD`. An empty variable is null.

A variable that is nearly one of these is an error, one that is unknown otherwise a warning. Those that Kubernetes
injects for a Service (`*_SERVICE_HOST`, `*_SERVICE_PORT*`, `*_PORT`, `*_PORT_<n>_*`) and those of the commands
(`WASM_MIRROR_CONFIG`, the file itself, `WASM_MIRROR_URL`, `WASM_MIRROR_TOKEN`, `WASM_MIRROR_TOKEN_FILE`) are passed
over.

`HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY`, or the same in lower case, which wins, say through which proxy upstreams are
asked, as they do for docker, containerd and curl: `http://` or `https://` URLs, with credentials where the proxy wants
them; and hosts, domains, addresses and networks that are asked directly. This machine always is. Behind a proxy the
mirror sees the address of no host: those that only an answer named (a redirect, a token service) are refused when they
are addresses or `localhost`, and which others may be reached is the proxy's policy.
"""

_UPSTREAM_HEAD = """
## An upstream

Keys of `upstreams.<name>`. The name is what clients write as the first component of a path: the registry's host, or,
for one with a port or with several endpoints, a name of your choice together with `endpoints`.
"""

_ENDPOINT_HEAD = """
Credentials are a `username` with `password` or `password_file`, or a `docker_config` or a `helper` alone. They are sent
to their endpoint's host and to its `auth_hosts`, never to a host that only an answer named. Files that this section
names are read again when they change.

## An endpoint

Keys of an item of `upstreams.<name>.endpoints`, where it is a mapping and not just a URL.
"""

_TABLE = "| key | value | default | what it does |\n|---|---|---|---|"
_UPSTREAM = ("upstreams", schema.ANY)
_ENDPOINT = (*_UPSTREAM, "endpoints", schema.ANY)


def reference() -> str:
    """The whole page."""
    keys = list(schema.all_keys())
    endpoint = [key for key in keys if key.path[: len(_ENDPOINT)] == _ENDPOINT]
    upstream = [key for key in keys if key.path[: len(_UPSTREAM)] == _UPSTREAM and key not in endpoint]
    general = [key for key in keys if key not in upstream and key not in endpoint]
    lines = [
        _HEAD,
        "## Keys\n",
        *_table(general, ()),
        _UPSTREAM_HEAD,
        *_table(upstream, _UPSTREAM),
        _ENDPOINT_HEAD,
        *_table(endpoint, _ENDPOINT),
    ]
    return "\n".join(lines) + "\n"


def _table(keys: list[Key], under: tuple[str, ...]) -> Iterator[str]:
    yield _TABLE
    for key in keys:
        variable = "" if under or schema.ANY in key.path else f"<br>`{PREFIX}{'__'.join(key.path).upper()}`"
        name = ".".join(key.path[len(under) :])
        yield f"| `{name}`{variable} | {key.kind} | {_default(key)} | {key.field.description} |"


def _default(key: Key) -> str:
    if key.path == ("upstreams",) or key.field.is_required():
        return "must be given"
    default = key.field.default
    match default:
        case Section():
            return "see its keys"
        case None:
            inherited = key.path[:2] == _UPSTREAM and key.path[-1] in Defaults.model_fields
            return f"`defaults.{key.path[-1]}`" if inherited else "none"
        case bool() | tuple():
            return f"`{json.dumps(default)}`"
    text = {"duration": format_duration, "size": format_size}.get(key.kind, str)(default)
    return f"`{text}`"


if __name__ == "__main__":
    print(reference(), end="")
