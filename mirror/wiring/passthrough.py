"""Who asks upstreams what each client may do."""

import time

from mirror.auth.keyed import key_in, keyed
from mirror.auth.remembered import Remembered
from mirror.auth.verdicts import Verdicts
from mirror.edge.passthrough import PassThrough
from mirror.wiring.answering import Pulls
from mirror.wiring.ground import Ground


def passthrough_of(ground: Ground, pulls: Pulls) -> PassThrough | None:
    """Where the upstreams say what each client may do: who asks them."""
    settings, secret = ground.settings, ground.around.secret
    auth = settings.auth
    if auth.mode != "upstream":
        return None
    own = key_in(ground.directory.verdicts_key) if secret is None else b""
    lent = {name: upstream.lent for name, upstream in ground.upstreams.items() if upstream.lent is not None}
    names = keyed((lambda: own) if secret is None else lambda: secret.derived("verdicts"))
    remembered = Remembered(
        ground.around.metadata,
        names,
        {name: of.endpoints[-1].url for name, of in settings.upstreams.items()},
        yes_for=auth.verdict_for,
        stands_for=auth.stale_verdict_for,
        now=time.time,
    )
    verdicts = Verdicts(
        ground.upstreams,
        lent,
        remembered,
        names,
        pulls.suspicion,
        original=pulls.original,
    )
    return PassThrough(verdicts, ground.logins, lent, ground.through)
