"""The direction of imports: a file of ``mirror/`` imports only from files above it in `HOUSE`."""

import ast
from collections.abc import Iterator
from pathlib import Path

_ROOT = Path(__file__).parents[1]

# From the ground up: a line is a folder with its files, or files of mirror/ itself; __init__ is a folder's own.
HOUSE = """
    errors
    digest
    oci
    freshness
    config: values section cache hosts redis known hosted prewarm contradictions upstreams rights tracing models schema
    config: problems
    config: document environment load show reference __init__
    globs
    logs
    names
    members
    publish
    flight
    writer
    meanwhile
    suspicion
    metrics
    tracing
    wasm: sections signatures custom module inflate tar archive
    wasm: artifact functions hosts fields reasons agents description facts examine repackage
    layouts: source tar layout assembly writing
    store: generation leases overflow directory census eviction naming board blobs reading scrubbed pins pinfile spool
    store: growing leftovers
    store: staging
    store: intake session uploads tallies jobs
    shared: keys patience connect topology client
    metadata: base schema salvage recovery backups session statements linked uses seen thread sqlite records scripts
    metadata: redis behind resilient
    hosted: records together entries schema ledger reads rows writes merge database backup access exchange catalogue gc
    hosted: orphans
    cluster: alone secret documents beat leases moments
    tags
    links
    accesses
    askers
    findings
    leafing
    pinned
    holdings
    survey
    evicting
    apart
    evictor
    removal
    disposal
    collecting
    upstream: stream origins proxy dial watched trust transport duplex answers blob challenges tokens renewal helpers
    upstream: credentials lenders auth backoff breaker ratelimit standing queue session client pipe pushing authors
    upstream: endpoints hedge rounds lent failover
    peers
    gossip
    following
    spread
    telling
    upkeep
    replication
    passing
    answer
    download
    sharing
    fill
    fills
    unpack
    indexes
    contents
    narrowing
    inventory
    looking
    manifests
    resolve
    purging
    chores
    listing
    checks
    admission
    publishing
    pull
    refreshing
    copies
    hosting
    places
    layers
    relay
    relayed
    tagging
    through
    confirmed
    modules
    repackaging
    warming
    pinning
    keeping
    job
    running
    jobviews
    jobs
    fellows
    prewarming
    desk
    exporting
    arriving
    callings
    shelving
    importing
    soundness
    mending
    scrubbing
    exposition
    steps
    history
    stock
    moved
    watching
    telemetry
    auth: rules htpasswd failures keyed remembered verdicts
    edge: ranges headers account respond basic passthrough auth body uploads manifest push forward metrics registry
    edge: peers peerhosted peerpins peeruploads peerwarm peerchores modules app traced reference
    edge.dashboard: app
    edge.api: guard operation results openapi asked described modules askers pins prewarm housekeeping archive upstreams
    edge.api: fills replicas overview events reference admin
    around
    replicated
    wiring: ground answering scrubbing housekeeping warming pinning publishers passthrough layouts dashboard
    wiring: admin __init__
    tls
    occupants
    listening
    health
    server
    supervisor
    doctor: report visit heard reach asking remedies upstreams info refused shared probes disk cluster machine
    doctor: subjects __init__
    references: named documents urls kinds lines files kubeconfig cluster __init__
    commands: text token spelling client waiting sse options screen tables answers outcomes bars following sources
    commands: chores sweeping listing exporting importing prewarming menu deliveries completing group greeting
    starting
    inspector: told layout local remote report command
    cli
    commands: reference
"""


def places(house: str) -> list[str]:
    """The names of all files that ``house`` lists, as they are imported, without the leading ``mirror.``."""
    found = []
    for line in house.strip().splitlines():
        folder, _, files = line.strip().rpartition(": ")
        found += [f"{folder}.{file}".strip(".").removesuffix(".__init__") for file in files.split()]
    return found


def modules() -> dict[str, Path]:
    """Every file of ``mirror/`` under its name, as in `places`; ``mirror`` is its own ``__init__.py``."""
    found = {}
    for file in sorted((_ROOT / "mirror").rglob("*.py")):
        name = ".".join(file.relative_to(_ROOT).with_suffix("").parts)
        found[name.removesuffix(".__init__").removeprefix("mirror.")] = file
    return found


def imports(file: Path, known: dict[str, Path]) -> Iterator[str]:
    """The files of ``known`` from which ``file`` imports, at its top or anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}:{node.lineno} imports by a relative name; write it out"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            if name.split(".")[0] == "mirror":
                while name.removeprefix("mirror.") not in known:  # it names a thing in a file
                    name = name.rpartition(".")[0]
                yield name.removeprefix("mirror.")


def misplaced(order: list[str]) -> list[str]:
    """What contradicts ``order``, a sentence each: imports that do not lead upwards, files without a place."""
    found = []
    known = modules()
    for name, file in known.items():
        targets = sorted(set(imports(file, known)))
        if name in order:
            above = order[: order.index(name)]
            below = [target for target in targets if target in order and target not in above]
            found += [f"mirror.{name} imports mirror.{target}, which is not above it in HOUSE" for target in below]
        elif file.name != "__init__.py" or targets:  # an empty __init__ may be anywhere
            found.append(f"{file.relative_to(_ROOT)} has no place in HOUSE: give it the one that it belongs to")
    found += [f"HOUSE lists mirror.{name}, which does not exist" for name in order if name not in known]
    return found


def test_every_import_leads_upwards_in_the_house() -> None:
    order = places(HOUSE)
    assert len(order) == len(set(order))
    assert misplaced(order) == []


def test_an_import_that_leads_down_is_named() -> None:
    order = places(HOUSE)
    order.remove("errors")
    order.append("errors")
    assert "mirror.digest imports mirror.errors, which is not above it in HOUSE" in misplaced(order)


def test_a_file_without_a_place_is_named() -> None:
    order = places(HOUSE)
    order.remove("oci")
    assert "mirror/oci.py has no place in HOUSE: give it the one that it belongs to" in misplaced(order)
