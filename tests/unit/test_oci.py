"""What a request names and what a manifest says is parsed strictly: the right value, or the right error, and soon."""

import json
import re
import string
import time
from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mirror.digest import Digest
from mirror.errors import DigestInvalid, NameInvalid, NotFound, RequestError, TagInvalid, UploadUnknown, UpstreamInvalid
from mirror.oci import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_JSON_DEPTH,
    MAX_MANIFEST_SIZE,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    Manifest,
    Platform,
    Reference,
    RegistryPath,
    Resource,
    parse_name,
    parse_object,
    parse_path,
    parse_reference,
    parse_tag,
)

unhurried = settings(deadline=None)

components = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
names = st.lists(components, min_size=1, max_size=6).map("/".join)
tags = st.from_regex(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}", fullmatch=True)
digests = st.one_of(
    st.text("0123456789abcdef", min_size=64, max_size=64).map(lambda digits: Digest("sha256", digits)),
    st.text("0123456789abcdef", min_size=128, max_size=128).map(lambda digits: Digest("sha512", digits)),
)
SOME = Digest.of(b"some content")


# Names and tags.


@unhurried
@given(names)
def test_a_good_name_is_taken_unchanged(name: str) -> None:
    assert parse_name(name) == name


BAD_NAMES = [
    "", "/", "a/", "/a", "a//b", "A", "a/B", ".", "..", "a/..", "../a", "a/../b", "a..b", "a._b", "a___b", "-a", "a-",
    "_a", "a.", "a b", "a\n", "a\0", "a%2fb", "a:b", "a@b", "a\\b", "é", "a/\u0661", "\uff41", "a" * 256, "a/" * 128,
]  # fmt: skip


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(NameInvalid):
        parse_name(name)


def test_who_writes_a_registry_with_its_port_is_told_what_to_write() -> None:
    for refused in (
        lambda: parse_name("localhost:5000/team/plugin"),
        lambda: parse_path("/v2/localhost:5000/team/plugin/manifests/1.0"),
        lambda: parse_reference("localhost:5000/team/plugin:1.0"),
    ):
        with pytest.raises(NameInvalid, match="a registry with a port needs an alias under `upstreams`"):
            refused()


def test_a_name_may_have_255_characters() -> None:
    assert parse_name("a" * 255)


@unhurried
@given(tags)
def test_a_good_tag_is_taken_unchanged(tag: str) -> None:
    assert parse_tag(tag) == tag


@pytest.mark.parametrize(
    "tag", ["", ".a", "-a", "a/b", "a:b", "a@b", "a b", "a\n", "\n", "a\0", "é", "\uff11", "a" * 129]
)
def test_a_bad_tag_is_refused(tag: str) -> None:
    with pytest.raises(TagInvalid):
        parse_tag(tag)


@unhurried
@given(st.text())
@example("a\n")
def test_any_text_is_a_name_and_a_tag_by_the_specifications_grammar_or_refused(text: str) -> None:
    component = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
    grammar: list[tuple[Callable[[str], str], str, type[RequestError]]] = [
        (parse_name, rf"{component}(/{component})*\Z", NameInvalid),
        (parse_tag, r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z", TagInvalid),
    ]
    for parse, pattern, error in grammar:
        if re.match(pattern, text):
            assert parse(text) == text
        else:
            with pytest.raises(error):
                parse(text)


@pytest.mark.parametrize("text", ["a-" * 100_000, "a" * 100_000 + "!", "_" * 100_000, "a/" * 100_000, "a" + "-" * 254])
def test_no_name_or_tag_takes_long_to_refuse(text: str) -> None:
    began = time.monotonic()
    with pytest.raises(NameInvalid) as caught:
        parse_name(text)
    with pytest.raises(RequestError):
        parse_tag(text)
    assert time.monotonic() - began < 0.5
    assert len(caught.value.message) < 400


# Paths.


@unhurried
@given(names, tags, digests)
def test_the_path_of_a_resource_is_parsed_to_what_it_was_built_of(name: str, tag: str, digest: Digest) -> None:
    assert parse_path(f"/v2/{name}/manifests/{tag}") == RegistryPath(Resource.MANIFEST, name, tag=tag)
    assert parse_path(f"/v2/{name}/manifests/{digest}") == RegistryPath(Resource.MANIFEST, name, digest=digest)
    assert parse_path(f"/v2/{name}/blobs/{digest}") == RegistryPath(Resource.BLOB, name, digest=digest)
    assert parse_path(f"/v2/{name}/referrers/{digest}") == RegistryPath(Resource.REFERRERS, name, digest=digest)
    assert parse_path(f"/v2/{name}/tags/list") == RegistryPath(Resource.TAGS, name)
    for end in ("", "/"):
        assert parse_path(f"/v2/{name}/blobs/uploads{end}") == RegistryPath(Resource.UPLOAD, name)
    assert parse_path(f"/v2/{name}/blobs/uploads/3f_a-1") == RegistryPath(Resource.UPLOAD, name, upload="3f_a-1")


@pytest.mark.parametrize("upload", [".", "..", "a.b", "a%2fb", "a b", "é", "a" * 257, "a\n", "\0"])
def test_an_upload_that_cannot_be_one_is_unknown(upload: str) -> None:
    with pytest.raises(UploadUnknown):
        parse_path(f"/v2/a/blobs/uploads/{upload}")


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_base_is_found_with_and_without_its_slash(path: str) -> None:
    assert parse_path(path) == RegistryPath(Resource.BASE)


@pytest.mark.parametrize("name", ["manifests", "blobs/uploads", "a/tags/list", "v2", "a/blobs/uploads/b", "uploads"])
def test_a_name_may_look_like_a_route(name: str) -> None:
    assert parse_path(f"/v2/{name}/manifests/1") == RegistryPath(Resource.MANIFEST, name, tag="1")
    assert parse_path(f"/v2/{name}/blobs/{SOME}") == RegistryPath(Resource.BLOB, name, digest=SOME)
    assert parse_path(f"/v2/{name}/tags/list") == RegistryPath(Resource.TAGS, name)
    assert parse_path(f"/v2/{name}/blobs/uploads/1") == RegistryPath(Resource.UPLOAD, name, upload="1")


@pytest.mark.parametrize("name", [name for name in BAD_NAMES if name])
@pytest.mark.parametrize("rest", ["manifests/1", f"blobs/{SOME}", "tags/list", f"referrers/{SOME}", "blobs/uploads/"])
def test_a_bad_name_in_a_path_is_refused(name: str, rest: str) -> None:
    with pytest.raises(NameInvalid):
        parse_path(f"/v2/{name}/{rest}")


@pytest.mark.parametrize("kind", ["manifests", "blobs", "referrers"])
@pytest.mark.parametrize(
    "digest",
    ["sha256:", "sha256:abc", f"sha256:{'A' * 64}", f"sha1:{'a' * 40}", f"sha512:{'a' * 64}", f"{SOME}0", f"{SOME}\n",
     f"sha256:{'a' * 63}:", ":"],
)  # fmt: skip
def test_a_bad_digest_in_a_path_is_refused(kind: str, digest: str) -> None:
    with pytest.raises(DigestInvalid):
        parse_path(f"/v2/a/{kind}/{digest}")


@pytest.mark.parametrize("tag", ["", ".", "..", "a b", "%20", "a" * 129])
def test_a_bad_tag_in_a_path_is_refused(tag: str) -> None:
    with pytest.raises(TagInvalid):
        parse_path(f"/v2/a/manifests/{tag}")


@pytest.mark.parametrize(
    "path",
    ["", "/", "/v1/", "v2/", "/v2x", "//v2/", "/v2//", "/v2/a", "/v2/_catalog", "/v2/a/tags", "/v2/a/tags/all",
     "/v2/tags/list", "/v2/manifests/1", "/v2/a/tags/list/", f"/v2/blobs/{SOME}",
     "/v2/a/blobs/uploadsx/1", "/v2/a/blobs/uploads/1/2"],
)  # fmt: skip
def test_a_path_without_a_route_is_not_found(path: str) -> None:
    with pytest.raises(NotFound):
        parse_path(path)


path_pieces = st.one_of(
    st.sampled_from(
        ["/", "/v2/", "manifests", "blobs", "uploads", "tags/list", "referrers", "a", "..", "%2e", "\0", "\n"]
    ),
    st.sampled_from([str(SOME), "sha256:", "sha512:", ":"]),
    st.text(max_size=4),
)


@unhurried
@given(st.lists(path_pieces, max_size=12).map("".join))
def test_any_path_is_parsed_or_refused_with_an_error_of_ours(path: str) -> None:
    for whole in (path, f"/v2/{path}"):
        try:
            parsed = parse_path(whole)
        except (NameInvalid, TagInvalid, DigestInvalid, NotFound) as error:
            error.message.encode()
        else:
            assert parsed.resource is Resource.BASE or parse_name(parsed.name)


@unhurried
@given(names, tags, digests)
def test_a_reference_is_written_as_people_write_it(name: str, tag: str, digest: Digest) -> None:
    assert str(Reference("ghcr.io", name, tag=tag)) == f"ghcr.io/{name}:{tag}"
    assert str(Reference("ghcr.io", name, digest=digest)) == f"ghcr.io/{name}@{digest}"
    assert Reference("ghcr.io", name, tag=tag).target == tag


# Manifests.

CONFIG = {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": str(Digest.of(b"{}")), "size": 2}
LAYER = {"mediaType": "application/wasm", "digest": str(SOME), "size": 12}
IMAGE: dict[str, object] = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": CONFIG, "layers": [LAYER]}
CHILD = {**LAYER, "mediaType": OCI_MANIFEST, "platform": {"os": "linux", "architecture": "amd64"}}
INDEX: dict[str, object] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [CHILD]}


def parse(fields: object, media_type: str = OCI_MANIFEST) -> Manifest:
    body = fields if isinstance(fields, bytes) else json.dumps(fields).encode()
    return Manifest.parse(body, media_type, Digest.of(body))


def without(fields: dict[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in fields.items() if key != name}


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_an_image_is_parsed(media_type: str) -> None:
    manifest = parse({**IMAGE, "mediaType": media_type, "annotations": {"a": "b"}}, media_type)
    layer = Descriptor("application/wasm", SOME, 12)
    config = Descriptor("application/vnd.oci.image.config.v1+json", Digest.of(b"{}"), 2)
    assert (manifest.media_type, manifest.layers, manifest.config) == (media_type, (layer,), config)
    assert (manifest.named, manifest.manifests, manifest.annotations) == ((config, layer), (), (("a", "b"),))


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_LIST])
def test_an_index_is_parsed(media_type: str) -> None:
    manifest = parse({**INDEX, "mediaType": media_type}, media_type)
    child = Descriptor(OCI_MANIFEST, SOME, 12, Platform("linux", "amd64"))
    assert (manifest.media_type, manifest.manifests, manifest.named) == (media_type, (child,), (child,))
    assert (manifest.config, manifest.layers) == (None, ())


@unhurried
@given(st.lists(st.tuples(st.text(string.ascii_lowercase, min_size=1), digests, st.integers(0, 2**60)), max_size=6))
def test_every_layer_is_parsed_to_what_it_was_built_of(layers: list[tuple[str, Digest, int]]) -> None:
    fields = [{"mediaType": kind, "digest": str(digest), "size": size} for kind, digest, size in layers]
    assert parse({**IMAGE, "layers": fields}).layers == tuple(Descriptor(*layer) for layer in layers)


@pytest.mark.parametrize("header", ["", "application/json", "application/octet-stream", "text/plain; charset=utf-8"])
def test_a_header_that_says_nothing_leaves_it_to_the_body(header: str) -> None:
    assert parse({**IMAGE, "mediaType": DOCKER_MANIFEST}, header).media_type == DOCKER_MANIFEST
    assert parse(INDEX, header).media_type == OCI_INDEX
    assert parse(without(IMAGE, "mediaType"), header).media_type == OCI_MANIFEST
    assert parse(without(INDEX, "mediaType"), header).media_type == OCI_INDEX


@pytest.mark.parametrize("header", [f"{OCI_INDEX}; charset=utf-8", OCI_INDEX.upper(), f" {OCI_INDEX} "])
def test_the_media_type_is_exact_though_the_header_is_not(header: str) -> None:
    assert parse(INDEX, header).media_type == OCI_INDEX


def test_fields_that_are_not_known_are_passed_over() -> None:
    assert parse({**IMAGE, "subject": LAYER, "artifactType": "a/b", "x": {"y": [1.5, None, True]}}).layers


def bad(change: dict[str, object], base: dict[str, object] = IMAGE) -> bytes:
    return json.dumps({**base, **change}).encode()


BAD_MANIFESTS: dict[str, tuple[str, bytes, str]] = {
    "duplicate key": (OCI_MANIFEST, bad({})[:-1] + b',"layers":[]}', "twice"),
    "duplicate key deep inside": (OCI_MANIFEST, bad({})[:-1] + b',"x":[{"a":1,"\\u0061":1}]}', "twice"),
    "key that some read as another": (OCI_MANIFEST, bad({"Layers": []}), "'Layers'"),
    "key with a long s": (OCI_MANIFEST, bad({"layer\u017f": []}), "layer"),
    "descriptor's key that some read as another": (OCI_MANIFEST, bad({"layers": [{**LAYER, "Digest": "x"}]}), "Digest"),
    "NaN": (OCI_MANIFEST, bad({"x": float("nan")}), "NaN"),
    "Infinity": (OCI_MANIFEST, bad({"x": float("inf")}), "Infinity"),
    "-Infinity": (OCI_MANIFEST, bad({"x": -float("inf")}), "-Infinity"),
    "depth 10,000 of lists": (OCI_MANIFEST, bad({})[:-1] + b',"x":' + b"[" * 10_000 + b"]" * 10_000 + b"}", "deeper"),
    "depth 10,000 of maps": (OCI_MANIFEST, b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "deeper"),
    "depth 10,000, never closed": (OCI_MANIFEST, b"[" * 10_000, "deeper"),
    "4 MiB of brackets": (OCI_MANIFEST, b"[" * MAX_MANIFEST_SIZE, "deeper"),
    "number of 5,000 digits": (OCI_MANIFEST, bad({})[:-1] + b',"x":' + b"9" * 5000 + b"}", "not valid JSON"),
    "nothing": (OCI_MANIFEST, b"", "not valid JSON"),
    "HTML": (OCI_MANIFEST, b"<!DOCTYPE html><html></html>", "not valid JSON"),
    "HTML as such": ("text/html; charset=utf-8", bad({}), "text/html"),
    "gzip": (OCI_MANIFEST, b"\x1f\x8b\x08\0\0\0\0\0", "not valid JSON"),
    "truncated": (OCI_MANIFEST, bad({})[:-1], "not valid JSON"),
    "followed by more": (OCI_MANIFEST, bad({}) + b"{}", "not valid JSON"),
    "byte order mark": (OCI_MANIFEST, b"\xef\xbb\xbf" + bad({}), "not valid JSON"),
    "UTF-16": (OCI_MANIFEST, bad({}).decode().encode("utf-16"), "not valid JSON"),
    "not UTF-8": (OCI_MANIFEST, bad({})[:-1] + b',"x":"\xff"}', "not valid JSON"),
    "lone surrogate": (OCI_MANIFEST, bad({})[:-1] + b',"annotations":{"a":"\\uDc00"}}', "not valid JSON"),
    "list": (OCI_MANIFEST, b"[]", "not a JSON object"),
    "null": (OCI_MANIFEST, b"null", "not a JSON object"),
    "index that says it is a manifest": (OCI_MANIFEST, bad({"mediaType": OCI_MANIFEST}, INDEX), "'manifests'"),
    "index sent as a manifest": (OCI_MANIFEST, bad({}, INDEX), "calls itself"),
    "index sent as a manifest, silent": (OCI_MANIFEST, bad({}, without(INDEX, "mediaType")), "'manifests'"),
    "manifest sent as an index": (OCI_INDEX, bad({}), "calls itself"),
    "manifest sent as an index, silent": (OCI_INDEX, bad({}, without(IMAGE, "mediaType")), "'config'"),
    "index with layers": (OCI_INDEX, bad({"layers": [LAYER]}, INDEX), "'layers'"),
    "index with a config": (OCI_INDEX, bad({"config": CONFIG}, INDEX), "'config'"),
    "manifest with manifests": (OCI_MANIFEST, bad({"manifests": []}), "'manifests'"),
    "manifest with null manifests": (OCI_MANIFEST, bad({"manifests": None}), "'manifests'"),
    "both, silent": ("", bad({"manifests": []}, without(IMAGE, "mediaType")), "has the field"),
    "manifest with fsLayers": (OCI_MANIFEST, bad({"fsLayers": []}), "'fsLayers'"),
    "Docker's type in the header, OCI's in the body": (DOCKER_MANIFEST, bad({}), "calls itself"),
    "schema 1": ("", b'{"schemaVersion":1,"fsLayers":[]}', "schema 1"),
    "schema 1 by its header": ("application/vnd.docker.distribution.manifest.v1+prettyjws", bad({}), "schema 1"),
    "schema 3": (OCI_MANIFEST, bad({"schemaVersion": 3}), "schemaVersion"),
    "no schemaVersion": (OCI_MANIFEST, bad({}, without(IMAGE, "schemaVersion")), "schemaVersion"),
    "schemaVersion as text": (OCI_MANIFEST, bad({"schemaVersion": "2"}), "schemaVersion"),
    "schemaVersion 2.0": (OCI_MANIFEST, bad({"schemaVersion": 2.0}), "schemaVersion"),
    "media type of something else": ("", bad({"mediaType": "application/vnd.oci.image.config.v1+json"}), "media type"),
    "media type that is a list": (OCI_MANIFEST, bad({"mediaType": [OCI_MANIFEST]}), "not a string"),
    "no layers": (OCI_MANIFEST, bad({}, without(IMAGE, "layers")), "'layers'"),
    "layers as a map": (OCI_MANIFEST, bad({"layers": {}}), "'layers'"),
    "no config": (OCI_MANIFEST, bad({}, without(IMAGE, "config")), "config"),
    "no manifests": (OCI_INDEX, bad({}, without(INDEX, "manifests")), "'manifests'"),
    "layer as text": (OCI_MANIFEST, bad({"layers": [str(SOME)]}), r"layers\[0\] is not a descriptor"),
    "second layer bad": (OCI_MANIFEST, bad({"layers": [LAYER, None]}), r"layers\[1\]"),
    "layer without digest": (OCI_MANIFEST, bad({"layers": [without({**LAYER}, "digest")]}), "digest"),
    "layer with a path for a digest": (OCI_MANIFEST, bad({"layers": [{**LAYER, "digest": "../../etc"}]}), "etc"),
    "layer without a media type": (OCI_MANIFEST, bad({"layers": [without({**LAYER}, "mediaType")]}), "media type"),
    "layer with a line in its media type": (
        OCI_MANIFEST,
        bad({"layers": [{**LAYER, "mediaType": "a\r\nb: c"}]}),
        "type",
    ),
    "size as text": (OCI_MANIFEST, bad({"layers": [{**LAYER, "size": "12"}]}), "size"),
    "size true": (OCI_MANIFEST, bad({"layers": [{**LAYER, "size": True}]}), "size"),
    "size 1.5": (OCI_MANIFEST, bad({"layers": [{**LAYER, "size": 1.5}]}), "size"),
    "size negative": (OCI_MANIFEST, bad({"layers": [{**LAYER, "size": -1}]}), "size"),
    "size of 2**63": (OCI_MANIFEST, bad({"layers": [{**LAYER, "size": 2**63}]}), "size"),
    "annotations as a list": (OCI_MANIFEST, bad({"annotations": []}), "annotations"),
    "annotation that is a number": (OCI_MANIFEST, bad({"annotations": {"a": 1}}), "annotations"),
}


@pytest.mark.parametrize(("media_type", "body", "words"), BAD_MANIFESTS.values(), ids=BAD_MANIFESTS.keys())
def test_a_bad_manifest_is_refused_with_what_is_wrong(media_type: str, body: bytes, words: str) -> None:
    with pytest.raises(UpstreamInvalid, match=words) as caught:
        parse(body, media_type)
    assert len(caught.value.message) < 400
    caught.value.message.encode()


def test_null_annotations_are_none() -> None:
    assert parse({**IMAGE, "annotations": None}).annotations == ()


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from([str(SOME), OCI_INDEX]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
field_names = st.sampled_from(["schemaVersion", "mediaType", "config", "layers", "manifests", "annotations", "Config"])


@unhurried
@given(
    st.sampled_from([IMAGE, INDEX]),
    st.dictionaries(field_names, json_values, max_size=3),
    st.sampled_from([OCI_MANIFEST, OCI_INDEX, DOCKER_MANIFEST, DOCKER_LIST, "", "text/html"]),
)
def test_any_fields_are_a_manifest_or_refused(base: dict[str, object], change: dict[str, object], kind: str) -> None:
    try:
        manifest = parse({**base, **change}, kind)
    except UpstreamInvalid as error:
        error.message.encode()
    else:
        assert not (manifest.manifests and manifest.layers)
        assert all(value.encode() is not None for pair in manifest.annotations for value in pair)


@unhurried
@given(st.binary() | st.text().map(str.encode), st.text())
@example(b'{"a":"\\', "")
def test_any_bytes_are_a_manifest_or_refused(body: bytes, media_type: str) -> None:
    with pytest.raises(UpstreamInvalid) as caught:
        parse(body, media_type)
    caught.value.message.encode()


# JSON.


@unhurried
@given(st.dictionaries(st.text(), json_values))
def test_what_is_json_is_read_as_json_reads_it(fields: dict[str, object]) -> None:
    try:
        body = json.dumps(fields, allow_nan=False).encode()
        json.dumps(fields, ensure_ascii=False).encode()
    except ValueError:  # not JSON: NaN, or a lone surrogate
        with pytest.raises(UpstreamInvalid):
            parse_object(json.dumps(fields).encode(), "it")
    else:
        assert parse_object(body, "it") == fields


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_the_limit_of_depth_is_exact(opening: bytes, closing: bytes) -> None:
    inner = MAX_JSON_DEPTH - 1
    assert parse_object(b'{"x":' + opening * inner + b"1" + closing * inner + b"}", "it")
    with pytest.raises(UpstreamInvalid, match="deeper than 64"):
        parse_object(b'{"x":' + opening * (inner + 1) + b"1" + closing * (inner + 1) + b"}", "it")


@pytest.mark.parametrize("text", ["[" * 1000, "{[" * 1000, '\\"[' * 1000, '"' + "[" * 1000, "\\" * 999])
def test_brackets_inside_a_string_are_not_depth(text: str) -> None:
    assert parse_object(json.dumps({text: text}).encode(), "it") == {text: text}


def test_many_neighbours_are_not_depth() -> None:
    assert parse_object(b'{"x":[' + b"[{}]," * 1000 + b"[]]}", "it")


@pytest.mark.parametrize(
    "body",
    [b'{"x":"' + b"\\" * MAX_MANIFEST_SIZE, b'"' * MAX_MANIFEST_SIZE, b'{"x":' + b"9" * MAX_MANIFEST_SIZE + b"}"],
    ids=["backslashes", "quotes", "digits"],
)
def test_no_manifest_takes_long_to_refuse(body: bytes) -> None:
    began = time.monotonic()
    with pytest.raises(UpstreamInvalid):
        parse_object(body, "it")
    assert time.monotonic() - began < 5
