"""The admin API and the metrics may have a port of their own, and are then nowhere else."""

import socket
from pathlib import Path

import pytest

from mirror.config import Settings
from mirror.errors import StartError
from mirror.listening import Listeners, bind
from tests.support.admin import operated
from tests.support.artifacts import compat, publish, wasm_module
from tests.support.asking import ask
from tests.support.running import Running, running
from tests.support.upstream import FaultyUpstream

APART = {"admin": {"listen": "127.0.0.1:0"}}
OF_ADMIN = ["/metrics", "/api/v1/upstreams", "/api/v1/openapi.json"]


def settings(listen: str, admin: str | None) -> Settings:
    return Settings.model_validate({"listen": listen, "admin": {"listen": admin}, "upstreams": {"ghcr.io": {}}})


def both(mirror: Running) -> tuple[Running, Running]:
    assert mirror.beside is not None
    return mirror, mirror.beside


async def test_each_port_has_its_own_and_both_say_that_they_are_alive(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        publish(up, "team/plugin", "1", compat(wasm_module()))
        of_registry = ["/v2/", "/v2/ghcr.io/team/plugin/manifests/1", "/modules/ghcr.io/team/plugin:1"]
        async with running(tmp_path, {"ghcr.io": up.url}, APART) as mirror:
            registry, admin = both(mirror)
            for one in (registry, admin):
                assert (await one.get("/healthz")).body == b"alive\n"
                assert (await one.get("/readyz")).body == b"ready\n"
            for target in of_registry:
                assert (await registry.get(target)).status == 200
                elsewhere = await admin.get(target)
                assert elsewhere.status == 404
                assert "the registry has another port" in elsewhere.message
            for target in OF_ADMIN:
                assert (await admin.get(target)).status == 200
            for method, target in (*(("GET", target) for target in OF_ADMIN), ("POST", "/api/v1/gc")):
                elsewhere = await ask(registry.address, target, method=method)
                assert elsewhere.status == 404
                assert "the admin API and /metrics have another port" in elsewhere.message


async def test_without_it_all_is_at_one_port(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        async with running(tmp_path, {"ghcr.io": up.url}) as mirror:
            assert mirror.beside is None
            for target in ("/v2/", *OF_ADMIN):
                assert (await mirror.get(target)).status == 200


async def test_an_open_registry_may_have_its_admin_api_on_loopback_and_not_the_other_way_round(tmp_path: Path) -> None:
    with FaultyUpstream() as up:
        apart = {"listen": "0.0.0.0:0", **APART}
        async with running(tmp_path, {"ghcr.io": up.url}, apart) as mirror:
            _, admin = both(mirror)
            assert (await operated(admin, "GET", "upstreams")).status == 200
        wrong = {"listen": "127.0.0.1:0", "admin": {"listen": "0.0.0.0:0"}}
        async with running(tmp_path, {"ghcr.io": up.url}, wrong) as mirror:
            _, admin = both(mirror)
            reached = Running(("127.0.0.1", admin.address[1]), admin.directory)
            refused = await operated(reached, "GET", "upstreams")
            assert (refused.status, refused.code) == (401, "UNAUTHORIZED")
            assert "admin.listen" in refused.message


def test_a_port_that_is_taken_is_named_with_its_setting_and_the_other_one_is_given_back() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(StartError, match=rf"{taken} is in use .* `admin\.listen`"):
            bind(settings("127.0.0.1:0", taken))
        with pytest.raises(StartError, match=rf"{taken} is in use .* `listen`"):
            bind(settings(taken, "127.0.0.1:0"))
    with pytest.raises(StartError, match=r"192\.0\.2\.1:9090 cannot be listened on: .* `admin\.listen`"):
        bind(settings("127.0.0.1:0", "192.0.2.1:9090"))


def takes(listeners: Listeners, server: tuple[str, int]) -> bool:
    """Whether a request that came in there is for the admin API alone."""
    at_admin = listeners.at_admin()
    assert at_admin is not None
    return at_admin({"type": "http", "server": server})


def test_two_addresses_with_one_port_are_told_apart() -> None:
    first = bind(settings("127.0.0.1:0", None))
    try:
        assert first.at_admin() is None
        port = first.registry.getsockname()[1]
        listeners = Listeners(first.registry, bind(settings(f"127.0.0.2:{port}", None)).registry)
        try:
            assert takes(listeners, ("127.0.0.2", port))
            assert not takes(listeners, ("127.0.0.1", port))
        finally:
            listeners.close()
    finally:
        first.close()


def test_two_ports_are_told_apart_at_whatever_address_a_request_comes_in() -> None:
    listeners = bind(settings("127.0.0.1:0", "0.0.0.0:0"))
    try:
        (registry, admin) = (listener.getsockname()[1] for listener in listeners.sockets)
        assert takes(listeners, ("10.1.2.3", admin))
        assert not takes(listeners, ("127.0.0.1", registry))
    finally:
        listeners.close()
