"""The network policies: closed but for what a mirror needs."""

from typing import Any

import pytest

from tests.support.helm import Objects, one, rendered

pytestmark = [pytest.mark.needs("helm"), pytest.mark.integration]

ANYWHERE = [
    {"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}},
    {"ipBlock": {"cidr": "::/0", "except": ["fe80::/10", "fd00:ec2::254/128"]}},
]
TEAM = {"namespaceSelector": {"matchLabels": {"team": "a"}}}
PROMETHEUS = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
WARMED = {"hook": {"enabled": True}, "cluster": {"enabled": True}}


def policy(objects: Objects, name: str = "mirror-wasm-mirror") -> dict[str, Any]:
    found: dict[str, Any] = one(objects, "NetworkPolicy", name)["spec"]
    assert found["policyTypes"] == ["Ingress", "Egress"]
    assert found.keys() == {"podSelector", "policyTypes", "ingress", "egress"}
    return found


def ways(rules: list[dict[str, Any]], side: str) -> dict[tuple[int, ...], list[dict[str, Any]] | None]:
    """The peers of each rule by its ports; None is everyone. A rule without ports, or with no peers, is for all."""
    assert all(rule["ports"] and rule.get(side) != [] for rule in rules)
    return {tuple(port["port"] for port in rule["ports"]): rule.get(side) for rule in rules}


def components(peers: list[dict[str, Any]]) -> list[str]:
    """The release's own pods among the peers."""
    own = [peer["podSelector"] for peer in peers if "podSelector" in peer]
    assert all(
        one["matchLabels"] == {"app.kubernetes.io/name": "wasm-mirror", "app.kubernetes.io/instance": "mirror"}
        for one in own
    )
    return [name for one in own for name in one["matchExpressions"][0]["values"]]


def test_by_default_any_pod_pulls_and_the_mirror_reaches_upstreams_and_names_alone() -> None:
    found = policy(rendered())
    for rule in found["ingress"]:
        assert rule["ports"] == [{"port": 8080, "protocol": "TCP"}]
        assert {"namespaceSelector": {}} in rule["from"]
    assert ways(found["egress"], "to") == {(53, 53): None, (443,): ANYWHERE}


def test_who_may_pull_and_who_may_look_are_told_apart() -> None:
    objects = rendered({"networkPolicy": {"clients": [TEAM], "admins": [PROMETHEUS]}, "admin": {"port": 9090}})
    registry, admin = policy(objects)["ingress"]
    assert (registry["ports"][0]["port"], admin["ports"][0]["port"]) == (8080, 9090)
    assert (registry["from"][0], components(registry["from"])) == (TEAM, ["mirror"])
    assert (admin["from"][0], components(admin["from"])) == (PROMETHEUS, ["prewarm", "test"])
    assert len(registry["from"]) == len(admin["from"]) == 2

    shared = policy(rendered({"networkPolicy": {"clients": [TEAM]}}))["ingress"]
    assert all({"namespaceSelector": {}} not in rule["from"] for rule in shared), "to name clients closes it to others"
    closed = policy(rendered({"networkPolicy": {"clients": []}}))["ingress"]
    assert [components(rule["from"]) for rule in closed] == [["mirror"], ["prewarm", "test"]]


def test_replicas_reach_one_another_and_their_redis_which_only_they_reach() -> None:
    objects = rendered({"replicas": 3, "redis": {"bundled": {"enabled": True}}})
    mirror, redis = policy(objects), policy(objects, "mirror-wasm-mirror-redis")
    there = ways(mirror["egress"], "to")
    assert components(there[8080,] or []) == ["mirror"]
    assert components(there[6379,] or []) == ["redis"]
    assert redis["egress"] == []
    ((ports, peers),) = ways(redis["ingress"], "from").items()
    assert (ports, components(peers or [])) == ((6379,), ["mirror"])


def test_ports_are_those_that_the_settings_write() -> None:
    config = {
        "tracing": {"endpoint": "http://collector:4318"},
        "upstreams": {
            "ghcr.io": {},
            "corp": {
                "endpoints": [
                    "http://plain.corp",
                    {"url": "https://[2001:db8::1]:5000", "redirect_hosts": ["minio.corp:9000", "s3.corp"]},
                ]
            },
        },
    }
    url = "redis+sentinel://a.corp:26380,b.corp/main/0"
    proxy = {"name": "HTTPS_PROXY", "value": "http://proxy.corp:3128"}
    found = policy(rendered({"replicas": 2, "config": config, "redis": {"url": url}, "extraEnv": [proxy]}))
    there = ways(found["egress"], "to")
    assert {ports for ports, peers in there.items() if peers == ANYWHERE} == {(3128, 4318, 443, 5000, 80, 9000)}
    assert there[26379, 26380, 6379] is None

    given = {"upstreams": {"ports": [5000], "to": [TEAM]}, "redis": [TEAM], "nameServerPorts": [5353]}
    found = policy(rendered({"replicas": 2, "redis": {"url": "redis://r:7000/1"}, "networkPolicy": given}))
    there = ways(found["egress"], "to")
    assert (there[5000,], there[7000,], there[5353, 5353]) == ([TEAM], [TEAM], None)
    offline = policy(rendered({"networkPolicy": {"upstreams": {"to": []}}}))
    assert list(ways(offline["egress"], "to")) == [(53, 53)]


def test_the_hook_reaches_the_mirror_and_the_api_server_and_nobody_reaches_it() -> None:
    name = "mirror-wasm-mirror-prewarm"
    found = policy(rendered({"prewarm": WARMED, "admin": {"port": 9090}}), name)
    assert components([{"podSelector": found["podSelector"]}]) == ["prewarm", "test"]
    assert found["ingress"] == []
    there = ways(found["egress"], "to")
    assert components(there[9090,] or []) == ["mirror"]
    assert there.keys() == {(53, 53), (9090,), (443, 6443)}
    assert (443, 6443) not in ways(policy(rendered(), name)["egress"], "to")


def test_further_rules_are_taken_as_they_are_and_all_of_it_may_be_left_out() -> None:
    rule = {"ports": [{"port": 80}], "to": [{"ipBlock": {"cidr": "169.254.169.254/32"}}]}
    more = {"extraEgress": [rule], "extraIngress": [{"from": [TEAM]}]}
    found = policy(rendered({"networkPolicy": more}))
    assert (found["egress"][-1], found["ingress"][-1]) == (rule, {"from": [TEAM]})
    assert not [value for value in rendered({"networkPolicy": {"enabled": False}}) if value["kind"] == "NetworkPolicy"]
