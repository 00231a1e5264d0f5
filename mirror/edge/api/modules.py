"""``/api/v1/modules``: what is known of artifacts."""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from mirror.edge.api.described import Described
from mirror.edge.api.operation import Asked, Call, Operation, Told
from mirror.errors import (
    DigestInvalid,
    ManifestUnknown,
    NameInvalid,
    NameUnknown,
    PaginationInvalid,
    StoreError,
    TagInvalid,
    UpstreamDenied,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.inventory import Inventory, Module
from mirror.modules import Modules
from mirror.narrowing import Sort, Wanted
from mirror.wasm.description import as_json
from mirror.wasm.facts import Verdict


class ListQuery(Asked):
    """Which modules, and in which order."""

    upstream: str | None = Field(None, max_length=255, description="Of this upstream, or `hosted`, alone.")
    repository: str | None = Field(
        None, max_length=255, description="A pattern, such as `team-a/**`; `*` stays within a part of a name."
    )
    pinned: bool | None = Field(None, description="Only what is pinned, or what is not.")
    hosted: bool | None = Field(None, description="Only what was pushed here, or what was not.")
    min_size: int | None = Field(None, ge=0, description="Bytes on this replica's disk, at least.")
    max_size: int | None = Field(None, ge=0, description="Bytes on this replica's disk, at most.")
    older_than: float | None = Field(
        None, ge=0, description="Seconds since it was last asked for, or since it came, if nobody ever has."
    )
    min_hits: int | None = Field(None, ge=0, description="How often it was asked for at this replica, at least.")
    search: str | None = Field(
        None, min_length=1, max_length=255, description="What stands somewhere in the reference, in whatever case."
    )
    verdict: Verdict | None = Field(None, description="Only those of which agents make this.")
    sort: Sort = Field("reference", description="By what the rows are sorted.")
    order: Literal["asc", "desc"] = Field("asc", description="Which of them comes first.")
    limit: int = Field(100, ge=1, le=1000, description="Rows on a page.")
    after: str | None = Field(None, max_length=8192, description="The `next` of the page before, as it was given.")


class ModuleTold(Told):
    """A tag that is known here and what it names, or a digest that is pinned or was imported. All numbers are about
    this replica.
    """

    reference: str
    upstream: str
    repository: str
    tag: str | None
    digest: str = Field(description="Of the manifest.")
    media_type: str = Field(description="Of the manifest; empty when unknown.")
    size: int = Field(description="Bytes of the manifest and of all that it leads to, as far as they are here.")
    complete: bool = Field(description="Whether all of it is here that agents ask for.")
    hits: int = Field(description="How often the manifest was asked for, by whatever name.")
    used_at: float | None = Field(description="When it was last asked for, in seconds since the epoch.")
    fetched_at: float | None = Field(
        description="When its upstream was last asked what the tag names, or it was pushed."
    )
    fresh: bool = Field(description="Whether it is served without a question to its upstream.")
    pinned: bool
    layout: str | None = Field(description="Of the artifact, as its description has it; null: nobody has looked yet.")
    abi: list[str] = Field(description="The versions of the Proxy-Wasm ABI; none where nobody has looked yet.")
    verdict: Verdict | None = Field(description="What agents make of it; null: nobody has looked yet.")
    why: str | None = Field(description="One sentence, where agents would not take it, or else Envoy would not run it.")


class ModulesTold(Told):
    """A page."""

    modules: list[ModuleTold]
    next: str | None = Field(description="To be given as `after` for the next page; null: this is the last one.")
    total: int = Field(description="Rows on all pages.")


def operations(modules: Modules, inventory: Inventory) -> Sequence[Operation]:
    """What can be asked here."""

    async def listed(call: Call) -> ModulesTold:
        asked: ListQuery = call.query
        fields = asked.model_dump(exclude={"order"})
        found = await inventory.listed(Wanted(**fields, descending=asked.order == "desc"))
        return ModulesTold(modules=list(map(_told, found.modules)), next=found.next, total=found.total)

    async def describe(call: Call) -> Described:
        description = await modules.describe(call.reference(call.path["reference"]))
        return Described.model_validate(as_json(description))

    return (
        Operation(
            method="GET",
            path="modules",
            summary="List what this replica knows and holds: tags, and what is pinned or was imported by digest",
            answer=ModulesTold,
            handler=listed,
            query=ListQuery,
            errors=(PaginationInvalid, StoreError),
        ),
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


def _told(module: Module) -> ModuleTold:
    row, facts = module.row, module.facts
    return ModuleTold(
        reference=row.reference,
        upstream=row.upstream,
        repository=row.repository,
        tag=row.tag,
        digest=str(row.digest),
        media_type=row.media_type,
        size=module.here.size,
        complete=module.here.complete,
        hits=row.hits,
        used_at=row.used_at,
        fetched_at=row.fetched_at,
        fresh=module.fresh,
        pinned=module.pinned,
        layout=facts.layout if facts is not None else None,
        abi=list(facts.abi) if facts is not None else [],
        verdict=facts.verdict if facts is not None else None,
        why=facts.why if facts is not None else None,
    )
