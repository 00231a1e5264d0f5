"""Who writes archives of what is held, and who takes them in."""

import time
from dataclasses import dataclass

from mirror.exporting import Exporter
from mirror.importing import Importer, Pins
from mirror.names import Names
from mirror.publish import Publisher
from mirror.publishing import Hosted
from mirror.shelving import Shelves
from mirror.tagging import Tagging
from mirror.wiring.answering import Pulls
from mirror.wiring.ground import Ground


@dataclass(frozen=True, slots=True)
class Archives:
    """Both."""

    exporter: Exporter
    importer: Importer


def archives_of(ground: Ground, pulls: Pulls, hosted: Publisher | None, names: Names, pins: Pins) -> Archives:
    """Archives out of this mirror, and into it. ``hosted`` takes in what is pushed to hosted repositories, if any."""
    settings, around = ground.settings, ground.around
    prefix = settings.hosted.prefix
    shelves = Shelves(
        upstreams=ground.upstreams,
        store=ground.store,
        metadata=around.metadata,
        manifests=pulls.manifests,
        tagging=Tagging(ground.tags, pulls.manifests, around.metadata, around.leases, time.time),
        accesses=ground.accesses,
        sharing=around.sharing,
        pull=pulls.everything,
        prefix=prefix,
        hosted=hosted if isinstance(hosted, Hosted) else None,
    )
    return Archives(
        Exporter(pulls.everything, pulls.manifests, ground.store, ground.tags, prefix),
        Importer(ground.directory, shelves, names, pins, settings.cache.max_size),
    )
