"""The settings to all that is examined, each with what examines it."""

from collections.abc import Sequence

from mirror.config import MetadataSettings, Settings
from mirror.config.hosts import join
from mirror.config.redis import RedisPlace, Topology
from mirror.doctor.cluster import ClusterCheck
from mirror.doctor.disk import Disk
from mirror.doctor.machine import Machine
from mirror.doctor.report import Subject
from mirror.doctor.shared import ServerCheck, StoreCheck
from mirror.doctor.upstreams import EndpointCheck
from mirror.doctor.visit import Examination


def examinations(settings: Settings) -> Sequence[tuple[Subject, Examination]]:
    """All that this mirror needs, in the order in which it is told."""
    found: list[tuple[Subject, Examination]] = []
    for name, upstream in settings.upstreams.items():
        for index, endpoint in enumerate(upstream.endpoints):
            check = EndpointCheck(name, upstream, index, clients_decide=settings.auth.mode == "upstream")
            found.append((Subject(check.key, endpoint.url), check))
    if settings.metadata.place is not None:
        found += _store(settings.metadata, settings.metadata.place)
        found.append((Subject("cluster", settings.cluster.advertise or "alone"), ClusterCheck(settings)))
    found.append((Subject("data_dir", str(settings.data_dir)), Disk(settings.data_dir)))
    found.append((Subject("this machine", "limits, and where the mirror listens"), Machine(settings)))
    return found


def _store(settings: MetadataSettings, place: RedisPlace) -> Sequence[tuple[Subject, Examination]]:
    """The Redis, and each server that its URL names, where that names more than one thing."""
    whole: tuple[Subject, Examination] = Subject("metadata.url", settings.url), StoreCheck(settings)
    if place.topology is Topology.ALONE:
        return [whole]
    kind = "Sentinel" if place.topology is Topology.SENTINEL else "server"
    return [
        *((Subject("metadata.url", f"the {kind} {join(*one)}"), ServerCheck(settings, one)) for one in place.servers),
        whole,
    ]
