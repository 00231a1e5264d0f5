"""Who warms references."""

from mirror.warming import Warmer
from mirror.wiring.answering import Pulls
from mirror.wiring.ground import Ground


def warmer_of(ground: Ground, pulls: Pulls) -> Warmer:
    """Who brings what references name to this disk."""
    return Warmer(pulls.everything, pulls.manifests, pulls.modules, ground.store)
