"""What Envoy offers to a module, and whether it would run one."""

from mirror.wasm.artifact import Verdict
from mirror.wasm.module import Import, Module


def lacking(module: Module) -> tuple[Import, ...]:
    """The imports that the Proxy-Wasm hosts of Envoy do not have."""
    return ()


def for_envoy(module: Module) -> Verdict:
    """Whether an Envoy would load the module."""
    if module.component:
        return Verdict(False, "it is a component, and Envoy runs core modules only", "build it as a core module")
    return Verdict(True)
