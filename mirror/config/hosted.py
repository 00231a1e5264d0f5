"""What is hosted: content that is pushed here, and has no registry behind it."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from mirror import oci
from mirror.config.section import Section
from mirror.config.values import Duration, Kind, Size, Switch, Whole, shown
from mirror.errors import NameInvalid

LACKING = (
    "replicas host together, and for that each needs cluster.advertise, its own address, and cluster.secret_file, a "
    "secret of all, which are not set"
)
"""Why nothing is hosted by a mirror whose `metadata.url` names a Redis, where that is so."""


def parse_component(value: object) -> str:
    """One component of a repository's name."""
    try:
        if isinstance(value, str) and "/" not in value:
            return oci.parse_name(value)
    except NameInvalid:
        pass
    raise ValueError(
        "must be the first component of repositories' names: lower-case letters and digits, with single . _ __ or - "
        f"between them, not {shown(value)}"
    )


class HostedSettings(Section):
    """What may be pushed here. Hosted content has no registry behind it, and is never evicted."""

    enabled: Switch = Field(True, description="Whether there are hosted repositories. What was pushed stays on disk.")
    prefix: Annotated[str, Kind("name"), BeforeValidator(parse_component)] = Field(
        "hosted",
        description="The first component of their names: `hosted/team-a/auth`. No upstream may have this name.",
    )
    replicas: Whole = Field(
        2,
        ge=1,
        description="On the disks of how many replicas each pushed blob lies, or of all, where there are fewer. "
        "Without `metadata.url` there is one disk; with it, `cluster.advertise` and `cluster.secret_file` are needed.",
    )
    ack: Literal["one", "all"] = Field(
        "one",
        description="When a push is answered: `one`, once it is on the disk of the replica that took it in, and known "
        "to all; `all`, once it is on the disks of `replicas` of them.",
    )
    max_blob_size: Size = Field(10 << 30, gt=0, description="The largest blob that may be pushed.")
    max_manifest_size: Size = Field(4 << 20, gt=0, le=32 << 20, description="The largest manifest that may be pushed.")
    max_repository_size: Size | None = Field(
        None, gt=0, description="What all blobs of one hosted repository may take together. No limit without it."
    )
    max_uploads: Whole = Field(
        32,
        ge=1,
        description="Uploads that each user may have open at once, at each replica; all clients without credentials "
        "are one.",
    )
    upload_expires: Duration = Field(
        3600.0, gt=0, description="How long an upload is kept to which nothing is sent. Uploads survive a restart."
    )
    grace: Duration = Field(
        3600.0,
        gt=0,
        description="How long a blob is kept that no manifest names: time for its manifest to follow.",
    )
