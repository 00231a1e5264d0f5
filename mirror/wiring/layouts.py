"""Who writes archives of what is held, and who takes them in."""

import time

from mirror.exporting import Exporter
from mirror.importing import Importer, Pins
from mirror.names import Names
from mirror.publish import Publisher
from mirror.publishing import Hosted
from mirror.shelving import Shelves
from mirror.tagging import Tagging
from mirror.wiring.answering import Pulls
from mirror.wiring.ground import Ground


def exporter_of(ground: Ground, pulls: Pulls) -> Exporter:
    """Who writes them."""
    return Exporter(pulls.everything, pulls.manifests, ground.store, ground.tags, ground.settings.hosted.prefix)


def importer_of(ground: Ground, pulls: Pulls, hosted: Publisher | None, names: Names, pins: Pins) -> Importer:
    """Who takes them in. ``hosted`` is who takes in what is pushed to hosted repositories, where there are any."""
    settings, around = ground.settings, ground.around
    shelves = Shelves(
        upstreams=ground.upstreams,
        store=ground.store,
        metadata=around.metadata,
        manifests=pulls.manifests,
        tagging=Tagging(ground.tags, pulls.manifests, around.metadata, around.leases, time.time),
        accesses=ground.accesses,
        sharing=around.sharing,
        pull=pulls.everything,
        prefix=settings.hosted.prefix,
        hosted=hosted if isinstance(hosted, Hosted) else None,
    )
    return Importer(ground.directory, shelves, names, pins, settings.cache.max_size)
