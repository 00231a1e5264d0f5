"""The description of an artifact, as an answer: `mirror.wasm.description.as_json`, field by field."""

from pydantic import Field

from mirror.edge.api.operation import Told


class Verdict(Told):
    """Whether somebody would take it."""

    accepted: bool
    reason: str = Field(description="One sentence, where it is not accepted.")
    remedy: str = Field(description="What to change.")


class Verdicts(Told):
    """Those of all who might take it."""

    agents: Verdict
    envoy_gateway: Verdict
    envoy: Verdict


class Item(Told):
    """An import or an export."""

    name: str
    kind: str
    signature: str | None = Field(description="Of a function, such as `i32 i32 -> i32`.")


class Memory(Told):
    """A linear memory; limits in pages of 64 KiB."""

    minimum: int
    maximum: int | None
    imported: bool
    memory64: bool
    shared: bool


class Section(Told):
    """A section of the module; `size` in bytes."""

    name: str
    size: int
    custom: bool


class Producer(Told):
    """What has made the module."""

    role: str
    name: str
    version: str


class Module(Told):
    """What the chosen module says of itself."""

    sha256: str | None = Field(description="Of the module, in hex.")
    layer: int | None = Field(description="The layer that holds it, from 0.")
    file: str | None = Field(description="Its name in the layer's archive.")
    size: int = Field(description="Bytes.")
    version: int
    kind: str
    abi: list[str] = Field(description="The versions of the Proxy-Wasm ABI.")
    name: str | None
    imports: dict[str, list[Item]] = Field(description="By the module that they are of.")
    lacking: dict[str, list[Item]] = Field(description="Those that Envoy does not have.")
    exports: list[Item]
    memories: list[Memory]
    sections: list[Section]
    producers: list[Producer]
    left_out: int = Field(description="Imports, exports, sections and producers that are not told.")


class Found(Told):
    """What there is in a layer."""

    layer: int = Field(description="From 0.")
    name: str | None = Field(description="In the archive.")
    size: int = Field(description="Bytes.")
    wasm: bool = Field(description="It begins as a module does.")


class Described(Told):
    """What an artifact is, what its module says of itself, and who would take it."""

    layout: str
    digest: str | None = Field(description="Of the manifest; null for a bare file.")
    media_type: str | None = Field(description="Of the manifest.")
    index: str | None = Field(description="The digest of the index that led to it.")
    module: Module | None = Field(description="Null where there is none; then `problem` says why.")
    problem: str | None
    accepted: bool = Field(description="Agents take it, and Envoy runs it.")
    accepted_by: Verdicts
    warnings: list[str]
    complete: bool = Field(description="False where a layer could not be looked at.")
    found: list[Found]
