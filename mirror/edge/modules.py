"""``GET`` and ``HEAD`` under ``/modules/``: the plain module, for whoever speaks HTTP but not a registry's protocol.

=====================================================  ===========================================================
``/modules/<upstream>/<repository>:<tag>``             the module's bytes; ``@sha256:<digest>`` in place of the tag,
                                                       which is ``latest`` where there is none; one ``.wasm`` behind
                                                       all that is not part of the name
``…?sha256=<hex>``                                     the same, or 409 where the module has another one
``…?info``                                             what is known of the artifact, as JSON
=====================================================  ===========================================================

Who may read is decided as under ``/v2``. As there, ``Host`` or ``ns`` may name the upstream, and errors are those of
the OCI specification.
"""

import time
from collections.abc import Mapping

from starlette.types import Receive, Scope, Send

from mirror.digest import Digest
from mirror.edge.account import LOOKUP, UPSTREAM, Given, of_failure
from mirror.edge.auth import Gate, send_refusal
from mirror.edge.headers import always
from mirror.edge.respond import header, query, send_answer, send_json
from mirror.errors import DigestInvalid, MirrorError, NotFound, Unsupported
from mirror.modules import Modules
from mirror.names import Names, Place
from mirror.oci import Reference, Resource, parse_reference
from mirror.wasm.description import as_json

ROOT = "/modules/"

_SUFFIX = ".wasm"


class ModulesApp:
    """An ASGI application for the addresses under ``/modules/``."""

    def __init__(self, names: Names, modules: Modules, gate: Gate, given: Given) -> None:
        """``given`` is told of each manifest whose module a client is given."""
        self._names = names
        self._modules = modules
        self._gate = gate
        self._given = given

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; raises `Cut` when a body that has begun cannot be finished."""
        namespace = None
        try:
            asked = query(scope)
            principal = await self._gate.reader(scope)
            reference, place = self._reference(scope, asked)
            namespace = place.upstream if place.by_namespace else None
            passage = await self._gate.pull(scope, principal, place, Resource.MANIFEST, reference.tag, reference.digest)
            if passage is None:
                await self._answer(scope, receive, send, reference, asked, namespace, principal)
            else:
                await passage.through(
                    lambda send: self._answer(scope, receive, send, reference, asked, namespace, principal), send
                )
        except MirrorError as error:
            scope[LOOKUP] = of_failure(error)
            await send_refusal(send, scope["method"], error, namespace)

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        reference: Reference,
        asked: Mapping[str, str],
        namespace: str | None,
        principal: str,
    ) -> None:
        """Answer a request that may be answered."""
        if scope["method"] not in ("GET", "HEAD"):
            raise Unsupported("modules are read here, by GET and HEAD; push artifacts to the registry itself")
        wanted = _sha256(asked.get("sha256"))
        if "info" in asked:
            description = as_json(await self._modules.describe(reference))
            await send_json(send, scope["method"], description, always(namespace), "application/json")
            return
        answer, now = await self._modules.module(reference, wanted), time.time()
        self._given(answer.manifest, scope, principal, now)
        extra = [("x-wasm-sha256", answer.digest.hex)]
        await send_answer(scope, receive, send, answer, now=now, namespace=namespace, ranged=True, extra=extra)

    def _reference(self, scope: Scope, asked: Mapping[str, str]) -> tuple[Reference, Place]:
        """What is asked for, and the repository that it is in."""
        text = scope["path"].removeprefix(ROOT)
        if not text:
            raise NotFound("there is nothing at this address; modules are at /modules/<upstream>/<repository>:<tag>")
        named = parse_reference(text.removesuffix(_SUFFIX))
        place = self._names.place(named.name, ns=asked.get("ns"), host=header(scope, b"host") or "")
        scope[UPSTREAM] = place.upstream
        return Reference(place.upstream, place.repository, named.tag, named.digest), place


def _sha256(text: str | None) -> Digest | None:
    """The sha256 that the module is to have; raises `DigestInvalid`."""
    if text is None:
        return None
    try:
        return Digest.parse(f"sha256:{text.lower()}")
    except DigestInvalid as error:
        raise DigestInvalid(f"sha256 must be 64 hex digits, not {text[:80]!r}") from error
