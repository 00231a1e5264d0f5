"""``/api/v1/modules``: what is known of artifacts."""

from collections.abc import Sequence

from mirror.edge.api.described import Described
from mirror.edge.api.operation import Call, Operation
from mirror.errors import (
    DigestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    TagInvalid,
    UpstreamDenied,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.modules import Modules
from mirror.wasm.description import as_json


def operations(modules: Modules) -> Sequence[Operation]:
    """What can be asked here."""

    async def describe(call: Call) -> Described:
        description = await modules.describe(call.reference(call.path["reference"]))
        return Described.model_validate(as_json(description))

    return (
        Operation(
            method="GET",
            path="modules/{reference:path}",
            summary="Describe an artifact: what it is, what its module says of itself, and who would take it",
            answer=Described,
            handler=describe,
            errors=(
                NameInvalid,
                TagInvalid,
                DigestInvalid,
                NameUnknown,
                ManifestUnknown,
                UpstreamDenied,
                UpstreamInvalid,
                UpstreamUnavailable,
                UpstreamTimeout,
            ),
        ),
    )
