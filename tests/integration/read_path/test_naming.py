"""By path, by ``?ns=`` and by ``Host``: the same content, kept once; and no upstream but those that are configured."""

from pathlib import Path

from tests.support.artifacts import compat, publish, raw, wasm_module
from tests.support.ports import ReservedPort
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream


async def test_the_three_ways_lead_to_the_same_cached_content(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        plugin = raw(wasm_module(100_000))
        digest = publish(up, "team/plugin", "1", plugin)
        layer = plugin.layers[0]
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            first = await mirror.get("/v2/ghcr.io/team/plugin/manifests/1")
            assert first.header("oci-namespace") is None
            for each in plugin.layers:
                await mirror.until_held(each)
            asked = len(up.requests)
            for target, headers in (
                ("/v2/ghcr.io/team/plugin/{}", {}),
                ("/v2/team/plugin/{}?ns=ghcr.io", {}),
                ("/v2/team/plugin/{}", {"Host": "ghcr.io"}),
                ("/v2/team/plugin/{}", {"Host": "GHCR.io:8080"}),
            ):
                named = "ghcr.io" if "ns=" in target else None
                for tail, body in (
                    ("manifests/1", plugin.body),
                    (f"manifests/{digest}", plugin.body),
                    (f"blobs/{layer}", plugin.blobs[layer]),
                ):
                    reply = await mirror.get(target.format(tail), headers)
                    assert (reply.status, reply.body) == (200, body)
                    assert (reply.header("cache-status") or "").startswith("wasm-mirror; hit")
                    assert reply.header("oci-namespace") == named
            assert len(up.requests) == asked


async def test_ns_is_told_in_each_kind_of_answer(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        digest = publish(up, "team/plugin", "1", raw(wasm_module()))
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            for tail, status in (
                ("manifests/1", 200),
                ("manifests/none", 404),
                (f"blobs/sha256:{'0' * 64}", 404),
                ("tags/list", 200),
                (f"referrers/{digest}", 200),
            ):
                reply = await mirror.get(f"/v2/team/plugin/{tail}?ns=ghcr.io")
                assert (tail, reply.status, reply.header("oci-namespace")) == (tail, status, "ghcr.io")
            not_modified = await mirror.get("/v2/team/plugin/manifests/1?ns=ghcr.io", {"If-None-Match": "*"})
            assert (not_modified.status, not_modified.header("oci-namespace")) == (304, "ghcr.io")


async def test_docker_hub_has_a_library_by_each_way(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        image = compat(wasm_module())
        publish(up, "library/busybox", "1", image)
        hub = {"endpoints": [up.url], "fresh_for": "0s"}
        async with running(tmp_path, {"docker.io": hub}, {"default_upstream": "docker.io"}) as mirror:
            for target, headers in (
                ("/v2/docker.io/busybox/manifests/1", {}),
                ("/v2/docker.io/library/busybox/manifests/1", {}),
                ("/v2/busybox/manifests/1?ns=docker.io", {}),
                ("/v2/busybox/manifests/1?ns=registry-1.docker.io", {}),
                ("/v2/library/busybox/manifests/1?ns=docker.io", {}),
                ("/v2/busybox/manifests/1", {"Host": "registry-1.docker.io"}),
                ("/v2/busybox/manifests/1", {"Host": "index.docker.io"}),
                ("/v2/busybox/manifests/1", {}),
            ):
                reply = await mirror.get(target, headers)
                assert (target, reply.status, reply.body) == (target, 200, image.body)
        assert {request.path for request in up.requests if "/manifests/" in request.path} == {
            "/v2/library/busybox/manifests/1"
        }


async def test_the_default_upstream_is_for_clients_that_name_none(tmp_path: Path) -> None:
    with FaultyUpstream() as up, FaultyUpstream() as other:
        ours, theirs = raw(wasm_module(seed=1)), raw(wasm_module(seed=2))
        publish(up, "team/plugin", "1", ours)
        publish(other, "team/plugin", "1", theirs)
        async with running(tmp_path, {"corp": up, "ghcr.io": other}, {"default_upstream": "corp"}) as mirror:
            assert (await mirror.get("/v2/team/plugin/manifests/1")).body == ours.body
            assert (await mirror.get("/v2/ghcr.io/team/plugin/manifests/1")).body == theirs.body
            assert (await mirror.get("/v2/team/plugin/manifests/1?ns=ghcr.io")).body == theirs.body


async def test_the_mirrors_own_names_never_name_an_upstream(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        plugin = raw(wasm_module())
        publish(up, "team/plugin", "1", plugin)
        async with running(tmp_path, {"ghcr.io": up}, {"names": ["mirror.corp:5000", "ghcr.io"]}) as mirror:
            for host in ("mirror.corp:5000", "ghcr.io"):
                reply = await mirror.get("/v2/ghcr.io/team/plugin/manifests/1", {"Host": host})
                assert (reply.status, reply.body) == (200, plugin.body)
            reply = await mirror.get("/v2/ghcr.io/team/plugin/manifests/1?ns=mirror.corp:5000")
            assert (reply.status, reply.header("oci-namespace")) == (200, None)


async def test_an_unknown_upstream_is_not_found_and_nobody_is_connected_to(tmp_path: Path) -> None:
    with FaultyUpstream() as up, ReservedPort() as port:
        async with running(tmp_path, {"ghcr.io": up}) as mirror:
            for target in (
                "/v2/quay.io/team/plugin/manifests/1",
                "/v2/team/plugin/manifests/1",
                "/v2/team/plugin/manifests/1?ns=quay.io",
                "/v2/ghcr.io/team/plugin/manifests/1?ns=quay.io",
                f"/v2/ghcr.io/team/plugin/manifests/1?ns={up.host}",
                f"/v2/ghcr.io/team/plugin/manifests/1?ns=127.0.0.1:{port.number}",
                "/v2/ghcr.io/team/plugin/tags/list?ns=",
            ):
                reply = await mirror.get(target)
                assert (target, reply.status, reply.code) == (target, 404, "NAME_UNKNOWN")
                assert "`upstreams`" in reply.message
                assert reply.detail["setting"] == "upstreams"
        assert up.accepted_connections == 0


async def test_an_upstream_without_a_repository_says_what_is_missing(tmp_path: Path) -> None:
    async with running(tmp_path, {"ghcr.io": "http://127.0.0.1:9"}) as mirror:
        reply = await mirror.get("/v2/ghcr.io/manifests/1")
        assert (reply.status, reply.code) == (400, "NAME_INVALID")
        assert "ghcr.io/<repository>" in reply.message


async def test_allow_keeps_all_other_repositories_out(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        plugin = raw(wasm_module())
        for repository in (
            "team-a/plugin",
            "team-a/deep/plugin",
            "team-b/proxy",
            "team-b/deep/proxy",
            "team-ax/plugin",
        ):
            publish(up, repository, "1", plugin)
        settings = {"endpoints": [up.url], "allow": ["team-a/**", "*/proxy"]}
        async with running(tmp_path, {"ghcr.io": settings}) as mirror:
            for repository in ("team-a/plugin", "team-a/deep/plugin", "team-b/proxy"):
                assert await statuses(mirror, repository, str(plugin.digest), str(plugin.layers[0])) == {200}
            allowed = len(up.requests)
            for repository in ("team-b/plugin", "team-b/deep/proxy", "team-ax/plugin", "proxy", "x"):
                assert await statuses(mirror, repository, str(plugin.digest), str(plugin.layers[0])) == {404}
                reply = await mirror.get(f"/v2/ghcr.io/{repository}/manifests/1")
                assert (reply.code, "upstreams.ghcr.io.allow" in reply.message) == ("NAME_UNKNOWN", True)
            assert len(up.requests) == allowed


async def statuses(mirror: Running, repository: str, digest: str, layer: str) -> set[int]:
    """What all ways into a repository answer."""
    return {
        (await mirror.ask(method, f"/v2/ghcr.io/{repository}/{tail}")).status
        for method in ("GET", "HEAD")
        for tail in (
            "manifests/1",
            f"manifests/{digest}",
            f"blobs/{layer}",
            "tags/list",
            "tags/list?n=0",
            f"referrers/{digest}",
        )
    }
