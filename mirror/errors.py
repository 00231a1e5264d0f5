"""The tree of errors. Each knows the OCI error code and the HTTP status with which a client sees it.

::

    MirrorError
    ├── RequestError                      the client's mistake
    │   ├── NameInvalid                   400 NAME_INVALID
    │   ├── TagInvalid                    400 TAG_INVALID
    │   ├── DigestInvalid                 400 DIGEST_INVALID
    │   ├── PaginationInvalid             400 PAGINATION_NUMBER_INVALID
    │   ├── RangeInvalid                  416 RANGE_INVALID
    │   ├── Unauthorized                  401 UNAUTHORIZED
    │   ├── Denied                        403 DENIED: it is known who asks, and that they may not
    │   ├── ModuleMismatch                409 MODULE_MISMATCH: the module has another sha256 than the one asked for
    │   ├── ManifestInvalid               400 MANIFEST_INVALID: what is pushed is no manifest, or none to be taken in
    │   ├── ArchiveInvalid                400 ARCHIVE_INVALID: what is imported is no tar of an OCI image layout
    │   ├── UploadInvalid                 400 BLOB_UPLOAD_INVALID
    │   │   ├── ChunkInvalid              416: it does not begin where the one before it ended
    │   │   └── UploadStalled             408: no byte of it has come for too long
    │   ├── SizeInvalid                   413 SIZE_INVALID: more than the settings allow
    │   ├── RequestInvalid                400 REQUEST_INVALID: a field of the admin API is not what it may be
    │   │   └── MediaTypeInvalid          415: the body is of another kind than the one that is taken
    │   ├── TooMany                       429 TOOMANYREQUESTS
    │   └── Unsupported                   405 UNSUPPORTED
    ├── NotFound                          it is not there
    │   ├── NameUnknown                   404 NAME_UNKNOWN
    │   │   └── NotPinned                 404: what is to be unpinned is not pinned
    │   ├── ManifestUnknown               404 MANIFEST_UNKNOWN
    │   │   └── AbsenceRemembered         404: upstream said so a moment ago
    │   ├── BlobUnknown                   404 BLOB_UNKNOWN
    │   ├── ManifestBlobUnknown           404 MANIFEST_BLOB_UNKNOWN: a manifest is pushed before what it names
    │   ├── UploadUnknown                 404 BLOB_UPLOAD_UNKNOWN
    │   └── ModuleUnknown                 404 MODULE_UNKNOWN: the artifact holds no module that could be given out
    ├── NotNow                            503 UNAVAILABLE: what replicas have to agree on, while they cannot
    ├── UpstreamError                     the registry behind the mirror
    │   ├── UpstreamDenied                403 DENIED: it refuses the mirror's own credentials
    │   ├── UpstreamRefused               4xx: it refuses what is pushed to it, with a status and a code of its own
    │   ├── UpstreamInvalid               502 UPSTREAM_INVALID: wrong bytes, wrong digest, too large
    │   │   └── DigestMismatch            502: bytes that do not have the digest that names them
    │   ├── UpstreamUnavailable           503 UPSTREAM_UNAVAILABLE: refuses, does not resolve, 5xx, 429
    │   │   └── UpstreamCutShort          503: the body ended before its end
    │   └── UpstreamTimeout               504 UPSTREAM_TIMEOUT
    ├── StoreError                        500 UNKNOWN: the disk, or the database
    │   ├── DiskFull                      507 UNKNOWN: no space for what is pushed
    │   └── LeaseLost                     never seen by a client: somebody else holds the lease now
    ├── CommandError                      never seen by a client: a command cannot do what it was asked; status 1 or 2
    │   ├── MirrorUnreachable             no answer of the mirror that a command talks to, or half of one
    │   ├── MirrorRefused                 its answer is an error
    │   └── InspectError                  `inspect` has nothing to describe
    ├── ClusterError                      never seen by a client: `--cluster` has nobody to ask; exit status 2
    └── StartError                        never seen by a client: the mirror cannot start; exit status 2

Codes: OCI distribution specification 1.1, "Error Codes"; those that start with ``UPSTREAM_``, ``MODULE_`` or
``REQUEST_`` are this mirror's own.
"""


class MirrorError(Exception):
    """An error with words for the person who sees it: what is wrong, and what to do.

    ``detail`` goes into the ``detail`` field of the OCI error body and must be JSON; it never holds a secret or
    a path of this host. ``retry_after`` is in seconds.
    """

    code: str = "UNKNOWN"
    status: int = 500

    def __init__(self, message: str, *, detail: object = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.retry_after = retry_after


class RequestError(MirrorError):
    """The request cannot be understood, or asks for what is not offered."""

    status = 400


class NameInvalid(RequestError):
    """A repository name outside the grammar."""

    code = "NAME_INVALID"


class TagInvalid(RequestError):
    """A tag outside the grammar."""

    code = "TAG_INVALID"


class DigestInvalid(RequestError):
    """A digest outside the grammar, or of an algorithm that is not supported."""

    code = "DIGEST_INVALID"


class PaginationInvalid(RequestError):
    """An ``n`` or ``last`` that is not one."""

    code = "PAGINATION_NUMBER_INVALID"


class RangeInvalid(RequestError):
    """A range that lies outside the content. ``size`` is the whole size in bytes, for ``Content-Range``."""

    code = "RANGE_INVALID"
    status = 416

    def __init__(self, message: str, *, size: int) -> None:
        super().__init__(message, detail={"size": size})
        self.size = size


class Unauthorized(RequestError):
    """Who asks has not proved to be somebody who may."""

    code = "UNAUTHORIZED"
    status = 401


class Denied(RequestError):
    """Who asks is known, and may not do this; ``message`` names the setting that says so."""

    code = "DENIED"
    status = 403


class ModuleMismatch(RequestError):
    """The module has another sha256 than the one that the client asked for."""

    code = "MODULE_MISMATCH"
    status = 409


class ManifestInvalid(RequestError):
    """What is pushed is no manifest, or one that the settings do not let in; ``message`` says what to change."""

    code = "MANIFEST_INVALID"


class ArchiveInvalid(RequestError):
    """What is imported is no tar archive of an OCI image layout, is damaged, or over a limit; nothing is taken in."""

    code = "ARCHIVE_INVALID"


class UploadInvalid(RequestError):
    """A request of an upload that cannot be carried out: its headers contradict its body, or one another."""

    code = "BLOB_UPLOAD_INVALID"


class ChunkInvalid(UploadInvalid):
    """A chunk that does not begin where the upload ends. ``size`` is what is there, in bytes, for ``Range``."""

    status = 416

    def __init__(self, message: str, *, size: int) -> None:
        super().__init__(message, detail={"size": size})
        self.size = size


class UploadStalled(UploadInvalid):
    """The client has sent nothing for too long, in the middle of a body; what came before is kept."""

    status = 408


class SizeInvalid(RequestError):
    """A blob, manifest or repository larger than allowed; ``message`` names the setting."""

    code = "SIZE_INVALID"
    status = 413


class RequestInvalid(RequestError):
    """A query or a body that the admin API cannot take. ``message`` names the fields, ``detail`` has each of them."""

    code = "REQUEST_INVALID"


class MediaTypeInvalid(RequestInvalid):
    """A body of another media type than the one that is taken."""

    status = 415


class TooMany(RequestError):
    """The client has too much under way; ``message`` says of what. ``retry_after`` says when to come back."""

    code = "TOOMANYREQUESTS"
    status = 429


class Unsupported(RequestError):
    """An operation that this mirror does not offer. ``allow`` are the methods that may be used there, if any."""

    code = "UNSUPPORTED"
    status = 405

    def __init__(self, message: str, *, allow: tuple[str, ...] = ("GET", "HEAD")) -> None:
        super().__init__(message)
        self.allow = allow


class NotFound(MirrorError):
    """What was asked for does not exist."""

    status = 404


class NameUnknown(NotFound):
    """An upstream that is not configured, or a repository that upstream does not know."""

    code = "NAME_UNKNOWN"


class NotPinned(NameUnknown):
    """What is to be unpinned is not pinned under this name."""


class ManifestUnknown(NotFound):
    """No such tag or manifest."""

    code = "MANIFEST_UNKNOWN"


class AbsenceRemembered(ManifestUnknown):
    """Upstream said a moment ago that there is no such manifest, and was not asked again."""


class BlobUnknown(NotFound):
    """No such blob."""

    code = "BLOB_UNKNOWN"


class ManifestBlobUnknown(NotFound):
    """A manifest is pushed that names a blob or manifest which its repository does not have; ``detail`` has which."""

    code = "MANIFEST_BLOB_UNKNOWN"


class UploadUnknown(NotFound):
    """No such upload: it is finished, cancelled or expired, or belongs to another repository or user."""

    code = "BLOB_UPLOAD_UNKNOWN"


class ModuleUnknown(NotFound):
    """The artifact is there, but no module can be given out of it; ``message`` says why, and what to change."""

    code = "MODULE_UNKNOWN"


class NotNow(MirrorError):
    """A change that the replicas have to agree on, while they cannot: their Redis is away, or they keep others waiting.
    ``retry_after`` says when to try again.
    """

    code = "UNAVAILABLE"
    status = 503


class UpstreamError(MirrorError):
    """The registry behind the mirror failed. ``message`` names the endpoint, and how it failed."""


class UpstreamDenied(UpstreamError):
    """Upstream answered 401 or 403 to the mirror's own credentials."""

    code = "DENIED"
    status = 403


class UpstreamRefused(UpstreamError):
    """Upstream does not take what is pushed to it: ``status``, ``code`` and the reason are its own."""

    def __init__(
        self, message: str, *, status: int, code: str, detail: object = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, detail=detail, retry_after=retry_after)
        self.status = status
        self.code = code


class UpstreamInvalid(UpstreamError):
    """Upstream sent what must not be believed: malformed, too large, or of the wrong kind."""

    code = "UPSTREAM_INVALID"
    status = 502


class DigestMismatch(UpstreamInvalid):
    """Upstream sent bytes that do not have the digest that names them."""


class UpstreamUnavailable(UpstreamError):
    """Upstream refuses connections, does not resolve, or answers 5xx or 429."""

    code = "UPSTREAM_UNAVAILABLE"
    status = 503


class UpstreamCutShort(UpstreamUnavailable):
    """Upstream ended a body early: a bad line, unless it happens there again. ``received`` is what came, in bytes."""

    def __init__(self, message: str, *, received: int, detail: object = None) -> None:
        super().__init__(message, detail=detail)
        self.received = received


class UpstreamTimeout(UpstreamError):
    """Upstream takes too long."""

    code = "UPSTREAM_TIMEOUT"
    status = 504


class StoreError(MirrorError):
    """The disk or the database failed in a way that could not be hidden from this request."""


class DiskFull(StoreError):
    """There is no space left for what a client sends."""

    status = 507


class LeaseLost(StoreError):
    """What was to be written was written under a lease that somebody else holds now; theirs is the later word."""


class CommandError(MirrorError):
    """A command cannot do what it was asked to do. ``wrong_use``: no mirror would have been able to."""

    def __init__(self, message: str, *, wrong_use: bool = False) -> None:
        super().__init__(message)
        self.wrong_use = wrong_use


class MirrorUnreachable(CommandError):
    """The mirror that a command talks to gives no answer, or half of one; it may be there again in a moment."""


class MirrorRefused(CommandError):
    """That mirror answers with an error: ``answered`` is its status, ``said`` the code and message of its body, if any,
    and ``detail`` what else is in that.

    ``message`` is what a person needs to know of it.
    """

    def __init__(self, message: str, *, answered: int, said: tuple[str, str] | None, detail: object = None) -> None:
        super().__init__(message)
        self.answered = answered
        self.said = said
        self.detail = detail

    @property
    def is_of_all(self) -> bool:
        """Whether it would say so whatever it was asked about: who asks may not, or there is no such operation."""
        return self.answered == 401 or self.said is None or self.said[0] in ("UNKNOWN", "UNSUPPORTED")


class InspectError(CommandError):
    """There is no description to show. ``broken``: what is there contradicts itself, and whoever asked was right."""

    def __init__(self, message: str, *, broken: bool = False) -> None:
        super().__init__(message)
        self.broken = broken


class ClusterError(MirrorError):
    """No Kubernetes API server can be asked; ``message`` is the one line that says why, and what to do."""


class StartError(MirrorError):
    """The mirror cannot start; ``message`` is the one line that says why."""
