"""What the edge hands to whoever takes in pushes, and what it makes of clients that leave, lie or fall silent."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.types import Message, Scope

from mirror.config import Settings
from mirror.digest import Digest
from mirror.edge import body
from mirror.edge.auth import Gate
from mirror.edge.headers import warnings
from mirror.edge.push import Pushes, takes
from mirror.edge.respond import Cut, query, send_error
from mirror.errors import ChunkInvalid, MirrorError, StoreError, Unsupported, UploadUnknown
from mirror.metrics import Metrics
from mirror.names import Names, Place
from mirror.oci import OCI_MANIFEST, Manifest, parse_path
from mirror.publish import Chunk, Pushed
from tests.edge.asgi import Sent, nothing_more
from tests.support.artifacts import raw, wasm_module

SETTINGS = Settings.model_validate({"listen": "127.0.0.1:0", "upstreams": {"ghcr.io": {}}})
ROOT = "/v2/hosted/team/plugin"
UPLOAD = f"{ROOT}/blobs/uploads/the-one"
DIGEST = Digest.of(b"abcdef")


@dataclass
class Kept:
    """An `Upload` in memory. ``calls`` is what became of it, ``read`` the pieces as they were taken."""

    id: str = "the-one"
    size: int = 0
    min_chunk: int = 0
    read: list[bytes] = field(default_factory=list)
    calls: list[object] = field(default_factory=list)
    gate: asyncio.Event | None = None

    async def append(self, chunk: Chunk) -> int:
        self.calls.append(("append", chunk.start, chunk.length))
        async for piece in chunk.content:
            if self.gate is not None:
                await self.gate.wait()
            self.read.append(piece)
            self.size += len(piece)
        return self.size

    async def finish(self, digest: Digest, last: Chunk | None) -> None:
        if last is not None:
            await self.append(last)
        self.calls.append(("finish", digest))

    async def cancel(self) -> None:
        self.calls.append("cancel")


@dataclass
class Strict(Kept):
    """One that holds chunks against where it stands."""

    async def append(self, chunk: Chunk) -> int:
        if chunk.start not in (None, self.size):
            raise ChunkInvalid("not there", size=self.size)
        return await super().append(chunk)


@dataclass
class Shelf:
    """A `Publisher` with one upload; ``fails`` is raised for manifests."""

    upload: Kept = field(default_factory=Kept)
    pushed: Pushed | None = None
    fails: MirrorError | None = None
    put: list[object] = field(default_factory=list)

    async def begin(self, place: Place, principal: str, *, algorithm: str) -> Kept:
        self.put.append(("begin", algorithm))
        return self.upload

    async def find(self, place: Place, principal: str, upload: str) -> Kept:
        if (place, upload) != (Place("hosted", "team/plugin"), "the-one"):
            raise UploadUnknown("there is no such upload")
        return self.upload

    async def mount(
        self, place: Place, principal: str, digest: Digest, source: Place | None, readable: Callable[[Place], bool]
    ) -> bool:
        self.put.append(("mount", source))
        return False

    async def put_manifest(
        self, place: Place, principal: str, manifest: Manifest, tags: Sequence[str], *, overwrite: bool
    ) -> Pushed:
        if self.fails is not None:
            raise self.fails
        self.put.append((manifest.media_type, tuple(tags)))
        return self.pushed or Pushed(manifest.digest)

    async def delete_tag(self, place: Place, principal: str, tag: str) -> None:
        self.put.append(tag)

    async def delete_manifest(self, place: Place, principal: str, digest: Digest) -> None:
        self.put.append(digest)

    async def delete_blob(self, place: Place, principal: str, digest: Digest) -> None:
        self.put.append(digest)


@dataclass
class Client:
    """Sends messages one by one, and then hangs up; ``asked`` counts how many were taken."""

    messages: list[Message]
    asked: int = 0
    silent: bool = False

    async def receive(self) -> Message:
        self.asked += 1
        if self.asked <= len(self.messages):
            return self.messages[self.asked - 1]
        if self.silent:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}


def pieces(*parts: bytes, end: bool = True) -> list[Message]:
    """The messages of a body; without ``end`` more would follow."""
    return [
        {"type": "http.request", "body": part, "more_body": not end or number < len(parts) - 1}
        for number, part in enumerate(parts)
    ]


async def asked(
    shelf: Shelf,
    method: str,
    target: str,
    client: Client,
    headers: Mapping[str, str] | None = None,
    metrics: Metrics | None = None,
) -> Sent:
    """What is sent for a request; raises `Cut`."""
    path, _, search = target.partition("?")
    fields = {"host": "localhost", **(headers or {})}
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": search.encode(),
        "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
    }
    pushes = Pushes(Names(SETTINGS), {"hosted": shelf}, Gate(SETTINGS), metrics or Metrics(), SETTINGS.hosted)
    sent = Sent()
    parsed = parse_path(path)
    assert takes(method, parsed)
    try:
        await pushes.answer(scope, client.receive, sent.send, parsed, query(scope))
    except MirrorError as error:
        await send_error(sent.send, method, error)
    return sent


async def test_a_whole_blob_that_is_to_begin_elsewhere_is_refused() -> None:
    shelf = Shelf(Strict())
    target = f"{ROOT}/blobs/uploads/?digest={DIGEST}"
    sent = await asked(shelf, "POST", target, Client(pieces(b"ab")), {"content-range": "5-6", "content-length": "2"})
    assert (sent.status, sent.headers["range"], "location" in sent.headers) == (416, "0-0", False)
    assert shelf.upload.calls == ["cancel"]


async def test_a_chunk_is_handed_on_piece_by_piece_and_no_faster_than_it_is_taken() -> None:
    shelf = Shelf(Kept(gate=asyncio.Event()))
    client = Client(pieces(b"ab", b"cd", b"ef"))
    working = asyncio.create_task(
        asked(shelf, "PATCH", UPLOAD, client, {"content-range": "0-5", "content-length": "6"})
    )
    for _ in range(20):
        await asyncio.sleep(0)
    assert (client.asked, shelf.upload.read) == (1, [])
    assert shelf.upload.gate is not None
    shelf.upload.gate.set()
    sent = await working
    assert (sent.status, sent.headers["range"], sent.headers["location"]) == (202, "0-5", UPLOAD)
    assert shelf.upload.read == [b"ab", b"cd", b"ef"]
    assert shelf.upload.calls == [("append", 0, 6)]


@pytest.mark.parametrize(("method", "target"), [("PATCH", UPLOAD), ("PUT", f"{UPLOAD}?digest={DIGEST}")])
async def test_a_client_that_leaves_is_not_answered_and_what_came_stays(method: str, target: str) -> None:
    shelf = Shelf()
    with pytest.raises(Cut):
        await asked(shelf, method, target, Client(pieces(b"ab", b"cd", end=False)), {"transfer-encoding": "chunked"})
    assert shelf.upload.read == [b"ab", b"cd"]
    assert shelf.upload.calls == [("append", None, None)]


async def test_an_upload_whose_id_nobody_was_told_is_cancelled_with_its_request() -> None:
    shelf = Shelf()
    with pytest.raises(Cut):
        await asked(
            shelf,
            "POST",
            f"{ROOT}/blobs/uploads/?digest={DIGEST}",
            Client(pieces(b"ab", end=False)),
            {"content-length": "6"},
        )
    assert shelf.upload.calls == [("append", None, 6), "cancel"]


@pytest.mark.parametrize(
    ("body", "words"), [((b"abcd", b"efgh"), "more than the 6 bytes"), ((b"ab", b"c"), "has 3 bytes")]
)
async def test_a_chunk_that_has_not_what_its_range_says_is_refused(body: tuple[bytes, ...], words: str) -> None:
    shelf = Shelf()
    sent = await asked(
        shelf, "PATCH", UPLOAD, Client(pieces(*body)), {"content-range": "0-5", "transfer-encoding": "chunked"}
    )
    (error,) = json.loads(sent.body)["errors"]
    assert (sent.status, error["code"]) == (400, "BLOB_UPLOAD_INVALID")
    assert words in error["message"]
    assert shelf.upload.size <= 6


async def test_a_client_that_falls_silent_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "IDLE", 0.01)
    shelf = Shelf()
    sent = await asked(shelf, "PATCH", UPLOAD, Client(pieces(b"ab", end=False), silent=True))
    assert (sent.status, sent.headers["connection"]) == (408, "close")
    assert shelf.upload.read == [b"ab"]


async def test_an_upload_is_finished_without_a_chunk_where_the_request_has_no_body() -> None:
    shelf = Shelf()
    sent = await asked(shelf, "PUT", f"{UPLOAD}?digest={DIGEST}", Client([]), {"content-length": "0"})
    assert (sent.status, sent.headers["location"]) == (201, f"{ROOT}/blobs/{DIGEST}")
    assert shelf.upload.calls == [("finish", DIGEST)]


async def test_the_least_size_of_chunks_is_told_where_there_is_one() -> None:
    sent = await asked(Shelf(Kept(min_chunk=5_000_000)), "POST", f"{ROOT}/blobs/uploads/", Client([]))
    assert sent.headers["oci-chunk-min-length"] == "5000000"
    sent = await asked(Shelf(), "POST", f"{ROOT}/blobs/uploads/?digest-algorithm=sha512", Client([]))
    assert "oci-chunk-min-length" not in sent.headers


async def test_what_is_asked_for_is_handed_on() -> None:
    shelf = Shelf()
    await asked(shelf, "POST", f"{ROOT}/blobs/uploads/?digest-algorithm=sha512", Client([]))
    await asked(shelf, "POST", f"{ROOT}/blobs/uploads/?mount={DIGEST}&from=hosted/other/one", Client([]))
    await asked(shelf, "DELETE", f"{ROOT}/manifests/v1", Client([]))
    await asked(shelf, "DELETE", f"{ROOT}/manifests/{DIGEST}", Client([]))
    sent = await asked(shelf, "DELETE", f"{ROOT}/blobs/{DIGEST}", Client([]))
    assert (sent.status, sent.headers["content-length"]) == (202, "0")
    source = Place("hosted", "other/one")
    assert shelf.put == [("begin", "sha512"), ("mount", source), ("begin", "sha256"), "v1", DIGEST, DIGEST]


async def test_a_mirror_that_replicas_cannot_ask_says_which_settings_pushes_need() -> None:
    scope: Scope = {"type": "http", "method": "POST", "query_string": b"", "headers": [(b"host", b"localhost")]}
    pushes = Pushes(Names(SETTINGS), {}, Gate(SETTINGS), Metrics(), SETTINGS.hosted)
    with pytest.raises(Unsupported, match=r"cluster\.advertise, .* cluster\.secret_file") as refused:
        await pushes.answer(scope, nothing_more, Sent().send, parse_path(f"{ROOT}/blobs/uploads/"), {})
    assert refused.value.allow == ()


MANIFEST = raw(wasm_module())
TYPED = {"content-type": OCI_MANIFEST}


async def test_a_manifest_that_is_too_large_is_not_read_to_its_end() -> None:
    shelf = Shelf()
    client = Client([*pieces(b"x" * (3 << 20), b"x" * (3 << 20), b"x" * (3 << 20))])
    sent = await asked(shelf, "PUT", f"{ROOT}/manifests/v1", client, TYPED)
    assert (sent.status, client.asked) == (413, 2)
    assert "hosted.max_manifest_size" in json.loads(sent.body)["errors"][0]["message"]
    sent = await asked(
        shelf, "PUT", f"{ROOT}/manifests/v1", client := Client([]), {**TYPED, "content-length": "5000000"}
    )
    assert (sent.status, client.asked) == (413, 0)


async def test_pushes_are_counted_by_what_became_of_them() -> None:
    metrics = Metrics()
    target = f"{ROOT}/manifests/v1"
    for shelf, content in (
        (Shelf(), pieces(MANIFEST.body)),
        (Shelf(pushed=Pushed(MANIFEST.digest, None, ("words",))), pieces(MANIFEST.body)),
        (Shelf(), pieces(b"{")),
        (Shelf(fails=StoreError("the disk")), pieces(MANIFEST.body)),
    ):
        await asked(shelf, "PUT", target, Client(content), TYPED, metrics)
    with pytest.raises(Cut):
        await asked(Shelf(), "PUT", target, Client(pieces(b"{", end=False)), TYPED, metrics)
    assert {labels: count for labels, count in metrics.pushes.items() if labels[0] == "hosted"} == {
        ("hosted", result): 1 for result in ("success", "warned", "refused", "failed", "cut")
    }


async def test_what_is_said_of_a_manifest_is_in_the_headers() -> None:
    subject = Digest.of(b"subject")
    shelf = Shelf(pushed=Pushed(MANIFEST.digest, subject, ("first", "second")))
    sent = await asked(
        shelf, "PUT", f"{ROOT}/manifests/{MANIFEST.digest}?tag=a&tag=b", Client(pieces(MANIFEST.body)), TYPED
    )
    fields = [(name.decode(), value.decode()) for name, value in sent.messages[0]["headers"]]
    assert ("oci-subject", str(subject)) in fields
    assert ("oci-tag", "a, b") in fields
    assert [value for name, value in fields if name == "warning"] == ['299 - "first"', '299 - "second"']
    assert shelf.put == [(OCI_MANIFEST, ("a", "b"))]


_ids = st.sampled_from(["", "the-one", "?", "a/b", ".."])
_digests = st.sampled_from([str(DIGEST), str(Digest.of(b"", "sha512")), "sha256:x", "", ":", "%00"])
_tails = st.one_of(
    st.builds("blobs/uploads/{}".format, _ids),
    st.builds("{}/{}".format, st.sampled_from(["manifests", "blobs", "referrers"]), st.one_of(_digests, st.just("v1"))),
)
_queries = st.dictionaries(
    st.sampled_from(["digest", "mount", "from", "digest-algorithm", "tag", "ns"]),
    st.one_of(_digests, st.sampled_from(["hosted/a/b", "sha512", "v1", "-", "localhost"])),
)
_headers = st.dictionaries(
    st.sampled_from(["content-range", "content-length", "transfer-encoding", "content-type", "authorization"]),
    st.sampled_from(
        ["0-5", "5-0", "0-99999999999999999999", "6", "-1", "chunked", OCI_MANIFEST, "Basic x", "\xff", ""]
    ),
)


@settings(max_examples=40, deadline=None)
@given(
    method=st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
    tail=_tails,
    search=_queries,
    headers=_headers,
    content=st.lists(st.sampled_from([b"", b"abcdef", raw(wasm_module()).body, b"{"]), max_size=3),
    ends=st.booleans(),
)
def test_whatever_is_sent_is_answered_once_or_cut(
    method: str, tail: str, search: dict[str, str], headers: dict[str, str], content: list[bytes], ends: bool
) -> None:
    if method == "GET" and not tail.startswith("blobs/uploads/"):
        return
    client = Client(pieces(*content, end=ends))
    with contextlib.suppress(Cut, MirrorError):  # what stands against an address is raised by its parser
        sent = asyncio.run(asked(Shelf(Strict()), method, f"{ROOT}/{tail}?{urlencode(search)}", client, headers))
        assert sent.finished
        assert [message["type"] for message in sent.messages].count("http.response.start") == 1
        assert 200 <= sent.status < 500


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ([], []),
        (['say "no" to \\'], ['299 - "say \\"no\\" to \\\\"']),
        (["a\r\nSet-Cookie: b\x00"], ['299 - "a  Set-Cookie: b "']),
        (["größer…"], ['299 - "gr??er..."']),
        ([""], []),
    ],
)
def test_a_warning_is_one_quoted_string_of_ascii(words: list[str], values: list[str]) -> None:
    assert warnings(words) == values


@pytest.mark.parametrize("letter", ["x", '"', "\\"])
def test_warnings_are_no_longer_than_may_be_sent(letter: str) -> None:
    values = warnings([letter * 3000, letter * 3000, letter * 3000])
    assert 4090 < sum(map(len, values)) <= 4096
    assert all(value.startswith('299 - "') and value.endswith('"') for value in values)
    for value in values:
        inner = value.removeprefix('299 - "')[:-1]
        assert inner.replace("\\\\", "").replace('\\"', "").count('"') == 0
