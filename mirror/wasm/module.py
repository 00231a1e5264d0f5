"""What a module says of itself: its sections, imports, exports, and the Proxy-Wasm ABI that it was made for.

Source: WebAssembly core specification 3.0, "Binary Format".
"""

from dataclasses import dataclass


class Malformed(Exception):
    """The bytes are no module; the message is one sentence that says what is wrong, and where."""


@dataclass(frozen=True, slots=True)
class Import:
    """What a module needs from its host. ``kind``: function, table, memory, global or tag."""

    module: str
    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Export:
    """What a module offers. ``kind`` as for an import."""

    name: str
    kind: str


@dataclass(frozen=True, slots=True)
class Section:
    """A section: ``name`` is that of its kind, or for a custom section its own; ``size`` of its content, in bytes."""

    name: str
    size: int
    custom: bool


@dataclass(frozen=True, slots=True)
class Memory:
    """A linear memory; limits are in pages of 64 KiB, None where there is no maximum."""

    minimum: int
    maximum: int | None
    imported: bool


@dataclass(frozen=True, slots=True)
class Producer:
    """What made the module. ``role``: language, processed-by or sdk."""

    role: str
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Module:
    """A module's own facts. A component has a version and sections, and nothing else of these."""

    size: int
    version: int
    component: bool
    sections: tuple[Section, ...] = ()
    imports: tuple[Import, ...] = ()
    exports: tuple[Export, ...] = ()
    memories: tuple[Memory, ...] = ()
    producers: tuple[Producer, ...] = ()
    name: str | None = None

    @property
    def abi_versions(self) -> tuple[str, ...]:
        """The Proxy-Wasm ABI versions that it exports, such as ``0.2.1``; one, if it is a plugin."""
        prefix = "proxy_abi_version_"
        return tuple(
            export.name.removeprefix(prefix).replace("_", ".")
            for export in self.exports
            if export.kind == "function" and export.name.startswith(prefix)
        )
