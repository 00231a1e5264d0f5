"""All that changes something under ``/v2``: uploads, manifests that are put, what is deleted; and who may do so.

Source: OCI distribution specification 1.1, "Push" and "Content management".
"""

import contextlib
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

from starlette.types import Receive, Scope, Send

from mirror.auth.rules import Action
from mirror.config import HostedSettings
from mirror.config.hosted import LACKING
from mirror.edge import uploads
from mirror.edge.account import OPERATION, UPSTREAM
from mirror.edge.auth import Gate
from mirror.edge.headers import warnings
from mirror.edge.manifest import manifest_of, tags_of
from mirror.edge.respond import Cut, header, send_error
from mirror.edge.uploads import Forwarding, Push
from mirror.errors import (
    ChunkInvalid,
    Denied,
    MirrorError,
    Unauthorized,
    Unsupported,
    UploadStalled,
    UploadUnknown,
    UpstreamDenied,
)
from mirror.metrics import Metrics
from mirror.names import Names, Place
from mirror.oci import Reference, RegistryPath, Resource
from mirror.publish import BodyCut, Publisher, Pushed

log = logging.getLogger(__name__)

_METHODS: Mapping[Resource, tuple[str, ...]] = {
    Resource.BASE: ("GET", "HEAD"),
    Resource.MANIFEST: ("GET", "HEAD", "PUT", "DELETE"),
    Resource.BLOB: ("GET", "HEAD", "DELETE"),
    Resource.TAGS: ("GET", "HEAD"),
    Resource.REFERRERS: ("GET", "HEAD"),
}
_BEGIN = ("POST",)
_UPLOAD = ("GET", "HEAD", "PATCH", "PUT", "DELETE")
_READING = frozenset({"GET", "HEAD"})

_UNHOSTED = f"nothing can be pushed here, or deleted: {LACKING}"


@dataclass(frozen=True, slots=True)
class Passed:
    """What another replica says of a request that it passes on: who asks; and `Push.start`, or that only the upload's
    ``size`` is asked.
    """

    principal: str
    start: int | None = None
    size: bool = False


class Pushes:
    """Answers what is not a mere read. ``publishers`` are by the upstream of a `Place`."""

    def __init__(
        self,
        names: Names,
        publishers: Mapping[str, Publisher],
        gate: Gate,
        metrics: Metrics,
        hosted: HostedSettings,
        forwarding: Forwarding | None = None,
    ) -> None:
        """``forwarding``: for the uploads of other replicas, where there are any."""
        self._names = names
        self._publishers = publishers
        self._gate = gate
        self._metrics = metrics
        self._hosted = hosted.prefix
        self._max_manifest_size = hosted.max_manifest_size
        self._forwarding = forwarding

    async def answer(
        self, scope: Scope, receive: Receive, send: Send, path: RegistryPath, asked: Mapping[str, str]
    ) -> None:
        """Answer it. Raises `MirrorError` before anything was sent, and `Cut` when the client has left."""
        place, publisher = self._placed(scope, path, asked)
        principal = await self._gate.principal(scope, place)
        push = self._push(scope, receive, send, path, asked, place, publisher, principal)
        async with _answering(push, path):
            if not await self._is_passed_on(push, path.upload):
                await self._carry_out(push, path)

    async def passed(
        self, scope: Scope, receive: Receive, send: Send, path: RegistryPath, asked: Mapping[str, str], passed: Passed
    ) -> int | None:
        """Answer a request for an upload that came in at another replica; never by asking a third one.

        How far the upload is, where only that is asked: then nothing is sent. Raises as `answer`.
        """
        if path.upload is None:
            raise UploadUnknown("another replica passes on what is no request for an upload")
        place, publisher = self._placed(scope, path, asked)
        with_credentials = header(scope, b"authorization") is not None  # they come along where upstream decides
        if with_credentials and await self._gate.principal(scope, place) != passed.principal:
            raise Unauthorized("the credentials are not those of whom the request is said to come from")
        push = self._push(scope, receive, send, path, asked, place, publisher, passed.principal, passed.start)
        try:
            if passed.size:
                self._allow(push, Action.PUSH)
                return (await publisher.find(place, passed.principal, path.upload)).size
            async with _answering(push, path):
                await self._carry_out(push, path)
        except UpstreamDenied as denied:
            raise self._gate.refused(denied) from denied
        return None

    def _placed(self, scope: Scope, path: RegistryPath, asked: Mapping[str, str]) -> tuple[Place, Publisher]:
        """Where it is to happen, and who does it."""
        method, allowed = scope["method"], _allowed(path)
        if path.resource is Resource.BASE:
            raise _unsupported(method, allowed)
        place = self._names.place(path.name, ns=asked.get("ns"), host=header(scope, b"host") or "")
        scope[UPSTREAM] = place.upstream
        publisher = self._publishers.get(place.upstream)
        if publisher is None:
            words = _UNHOSTED if place.upstream == self._hosted else _not_through(place.upstream)
            raise Unsupported(words, allow=() if path.resource is Resource.UPLOAD else ("GET", "HEAD"))
        if method not in allowed:
            raise _unsupported(method, allowed)
        return place, publisher

    def _push(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        path: RegistryPath,
        asked: Mapping[str, str],
        place: Place,
        publisher: Publisher,
        principal: str,
        start: int | None = None,
    ) -> Push:
        def elsewhere(name: str) -> Place:
            return self._names.place(name, ns=asked.get("ns"), host=header(scope, b"host") or "")

        def readable(other: Place) -> bool:
            return self._may(principal, Action.PULL, other)

        return Push(scope, receive, send, path.name, place, asked, principal, publisher, elsewhere, readable, start)

    async def _is_passed_on(self, push: Push, upload: str | None) -> bool:
        """Whether it is about the upload of another replica, which has answered it then."""
        if self._forwarding is None or upload is None or (owner := self._forwarding.owner(upload)) is None:
            return False
        self._allow(push, Action.PUSH)
        await self._forwarding.pass_on(push, upload, owner)
        return True

    async def _carry_out(self, push: Push, path: RegistryPath) -> None:
        method = push.scope["method"]
        if path.resource is Resource.UPLOAD:
            self._allow(push, Action.PUSH)
            if path.upload is None:
                await uploads.begin(push)
                return
            upload = await push.publisher.find(push.place, push.principal, path.upload)
            steps = {"PATCH": uploads.proceed, "PUT": uploads.finish, "DELETE": uploads.cancel}
            await steps.get(method, uploads.tell)(push, upload)
        elif method == "PUT":
            push.scope[OPERATION] = "push"
            self._allow(push, Action.PUSH)
            await self._put(push, path)
        else:
            push.scope[OPERATION] = "delete"
            self._allow(push, Action.DELETE)
            await self._delete(push, path)

    async def _put(self, push: Push, path: RegistryPath) -> None:
        """Take in a manifest, and count what became of it."""
        result = "failed"
        try:
            pushed, tags = await self._put_manifest(push, path)
            result = "warned" if pushed.warnings else "success"
        except MirrorError as error:
            result = "refused" if error.status < 500 else "failed"
            raise
        except BodyCut:
            result = "cut"
            raise
        finally:
            kind = "hosted" if push.place.upstream == self._hosted else "through"
            self._metrics.pushes[kind, result] += 1
        headers = [("oci-tag", ", ".join(tags))] if tags else []
        if pushed.subject is not None:
            headers.append(("oci-subject", str(pushed.subject)))
        headers += [("warning", value) for value in warnings(pushed.warnings)]
        await push.created("manifests", pushed.digest, headers)

    async def _put_manifest(self, push: Push, path: RegistryPath) -> tuple[Pushed, Sequence[str]]:
        """What became of it, and the tags that were asked for by ``?tag=``."""
        more = tags_of(push.scope)
        manifest = await manifest_of(push.scope, push.receive, self._max_manifest_size, path.digest)
        tags = dict.fromkeys([*([path.tag] if path.tag is not None else []), *more])
        overwrite = self._may(push.principal, Action.OVERWRITE, push.place)
        pushed = await push.publisher.put_manifest(
            push.place, push.principal, manifest, tuple(tags), overwrite=overwrite
        )
        return pushed, more

    async def _delete(self, push: Push, path: RegistryPath) -> None:
        if path.resource is Resource.BLOB:
            assert path.digest is not None
            await push.publisher.delete_blob(push.place, push.principal, path.digest)
        elif path.digest is not None:
            await push.publisher.delete_manifest(push.place, push.principal, path.digest)
        else:
            assert path.tag is not None
            await push.publisher.delete_tag(push.place, push.principal, path.tag)
        what = Reference(push.place.upstream, push.place.repository, path.tag, path.digest)
        log.info("%s was deleted by %s", what, push.principal or "anonymous")
        await push.answer(202, [])

    def _allow(self, push: Push, action: Action) -> None:
        self._gate.allow(push.principal, action, push.place)

    def _may(self, principal: str, action: Action, place: Place) -> bool:
        try:
            self._gate.allow(principal, action, place)
        except (Unauthorized, Denied):
            return False
        return True


@contextlib.asynccontextmanager
async def _answering(push: Push, path: RegistryPath) -> AsyncIterator[None]:
    """Answer what has more to say than any error."""
    method = push.scope["method"]
    try:
        yield
    except ChunkInvalid as error:  # says where the upload is too; that of a mere POST is over
        extra = [("location", uploads.where(push, path.upload))] if path.upload is not None else []
        await send_error(push.send, method, error, extra=extra)
    except UploadStalled as error:  # what is left of its body will not come
        await send_error(push.send, method, error, extra=[("connection", "close")])
    except BodyCut as cut:
        raise Cut from cut


def takes(method: str, path: RegistryPath) -> bool:
    """Whether a request is for `Pushes.answer`."""
    return method not in _READING or path.resource is Resource.UPLOAD


def _allowed(path: RegistryPath) -> tuple[str, ...]:
    if path.resource is Resource.UPLOAD:
        return _BEGIN if path.upload is None else _UPLOAD
    return _METHODS[path.resource]


def _unsupported(method: str, allowed: tuple[str, ...]) -> Unsupported:
    shown = method if method.isalpha() and len(method) < 16 else "this method"
    return Unsupported(f"{shown} does nothing here; {', '.join(allowed)} may be used", allow=allowed)


def _not_through(upstream: str) -> str:
    return (
        f"nothing can be pushed to {upstream} through this mirror while upstreams.{upstream}.push is deny in its "
        "settings; push to the registry itself, or let that setting be through"
    )
