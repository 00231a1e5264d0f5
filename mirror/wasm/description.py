"""The description of an artifact: what it is, what its module says of itself, and who would take it.

It is one value for all who ask: ``inspect``, ``/modules/…?info``, ``/api/v1/modules``, the log and the metrics.
"""

from dataclasses import dataclass

from mirror.digest import Digest
from mirror.wasm.artifact import Found, Layout, Verdict
from mirror.wasm.module import Module


@dataclass(frozen=True, slots=True)
class Description:
    """``digest`` is the manifest's (None for a bare file), ``index`` that of the index that led to it.

    ``chosen`` is the module that is described: the one that agents would take, or else the only good one there is;
    ``module`` what it says of itself, or None, and then ``problem`` says in a sentence why not.
    """

    layout: Layout
    agent: Verdict
    gateway: Verdict
    envoy: Verdict
    digest: Digest | None = None
    media_type: str | None = None
    index: Digest | None = None
    found: tuple[Found, ...] = ()
    chosen: Found | None = None
    module: Module | None = None
    module_digest: Digest | None = None
    problem: str | None = None
    warnings: tuple[str, ...] = ()

    @property
    def accepted(self) -> bool:
        """Whether agents take it, and the Envoy beside them then runs it."""
        return self.agent.accepted and self.envoy.accepted
