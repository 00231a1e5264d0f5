"""The settings to all that is examined, each with what examines it."""

from collections.abc import Sequence

from mirror.config import Settings
from mirror.doctor.disk import Disk
from mirror.doctor.machine import Machine
from mirror.doctor.report import Subject
from mirror.doctor.upstreams import EndpointCheck
from mirror.doctor.visit import Examination


def examinations(settings: Settings) -> Sequence[tuple[Subject, Examination]]:
    """All that this mirror needs, in the order in which it is told."""
    found: list[tuple[Subject, Examination]] = []
    for name, upstream in settings.upstreams.items():
        for index, endpoint in enumerate(upstream.endpoints):
            check = EndpointCheck(name, upstream, index)
            found.append((Subject(check.key, endpoint.url), check))
    found.append((Subject("data_dir", str(settings.data_dir)), Disk(settings.data_dir)))
    found.append((Subject("this machine", "limits, and where the mirror listens"), Machine(settings)))
    return found
