"""Where replicas meet: the URLs of a Redis, who the mirror is for it, and how replicas reach one another."""

from pathlib import Path

import pytest

from mirror.config import Settings
from mirror.config.redis import RedisPlace, Topology, parse_place
from tests.config.support import UPSTREAM, faults, load_text

_ALLOWED = "must be sqlite, redis://HOST[:PORT][/DB], redis+sentinel://HOST[:PORT],…/SERVICE[/DB] or redis+cluster://"


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("redis://redis", RedisPlace(Topology.ALONE, False, (("redis", 6379),))),
        ("redis://10.0.0.7:7000/3", RedisPlace(Topology.ALONE, False, (("10.0.0.7", 7000),), "", 3)),
        ("rediss://[::1]:7000/", RedisPlace(Topology.ALONE, True, (("::1", 7000),))),
        (
            "redis+sentinel://a,b.svc:26380/mymaster",
            RedisPlace(Topology.SENTINEL, False, (("a", 26379), ("b.svc", 26380)), "mymaster"),
        ),
        ("rediss+sentinel://a/m.1_x-Y/2", RedisPlace(Topology.SENTINEL, True, (("a", 26379),), "m.1_x-Y", 2)),
        ("redis+cluster://a,b:7001", RedisPlace(Topology.CLUSTER, False, (("a", 6379), ("b", 7001)))),
        ("rediss+cluster://a", RedisPlace(Topology.CLUSTER, True, (("a", 6379),))),
    ],
)
def test_a_url_says_which_servers_there_are_and_how_they_hang_together(
    tmp_path: Path, url: str, place: RedisPlace
) -> None:
    settings = load_text(tmp_path, f"{UPSTREAM}metadata: {{url: '{url}'}}").metadata
    assert (settings.url, settings.place, settings.shared) == (url, place, True)


def test_without_a_redis_nothing_is_shared(tmp_path: Path) -> None:
    settings = load_text(tmp_path).metadata
    assert (settings.url, settings.place, settings.shared) == ("sqlite", None, False)


@pytest.mark.parametrize(
    "url",
    [
        "redis", "redis:", "redis://", "redis:///0", "redis://a:b", "redis://a:0", "redis://a:70000", "redis://a/x",
        "redis://a/1/2", "redis://a/-1", "redis://a,b", "redis://a b", "redis+sentinel://a", "redis+sentinel://a/",
        "redis+sentinel://a,/m", "redis+sentinel://a/m m", "redis+sentinel://a/m/x", "redis+sentinel://a/m/1/2",
        "redis+cluster://a/0", "redis+cluster://", "redis+proxy://a", "unix:///run/redis", "http://a", "SQLITE", "",
        "sqlite://x", "valkey://a", "redis://a#1",
    ],
)  # fmt: skip
def test_a_wrong_url_is_refused_with_what_is_allowed(tmp_path: Path, url: str) -> None:
    (fault,) = faults(tmp_path, f"{UPSTREAM}metadata: {{url: '{url}'}}")
    assert _ALLOWED in fault
    assert "metadata.url" in fault


def test_a_url_of_sentinels_without_the_name_of_their_master_is_told_what_is_missing(tmp_path: Path) -> None:
    for url in ("redis+sentinel://a", "rediss+sentinel://a:1,b/"):
        (fault,) = faults(tmp_path, f"{UPSTREAM}metadata: {{url: '{url}'}}")
        assert "the name by which the Sentinels know the master" in fault
    (fault,) = faults(tmp_path, f"{UPSTREAM}metadata: {{url: 'redis+sentinel://a,/m'}}")
    assert "the name by which" not in fault


@pytest.mark.parametrize("url", ["redis://:hunter2@redis:6379/0", "redis://redis?password=hunter2"])
def test_a_secret_in_the_url_is_refused_and_not_shown(tmp_path: Path, url: str) -> None:
    (fault,) = faults(tmp_path, f"{UPSTREAM}metadata: {{url: '{url}'}}")
    assert "put these under metadata.username and metadata.password_file" in fault
    assert "hunter2" not in fault


_REDIS = "url: redis://r, "
_TLS = "url: rediss://r, "


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (f"{_REDIS}username: a, username_file: b, password_file: c", "must not have both username and username_file"),
        (f"{_REDIS}username: a", "must have a password_file beside the user"),
        (f"{_REDIS}username_file: a", "must have a password_file beside the user"),
        (f"{_REDIS}username: 'a b', password_file: c", "must be the name of a user, without blanks"),
        (f"{_REDIS}username: '', password_file: c", "must be the name of a user, without blanks"),
        ("password_file: c", "must have the URL of a Redis beside a password_file"),
        (f"{_TLS}client_key: a", "client_certificate is missing"),
        (f"{_TLS}client_certificate: a", "client_key is missing"),
        (f"{_REDIS}ca_file: a", "must have a url that begins with rediss"),
        (f"{_REDIS}client_certificate: a, client_key: b", "must have a url that begins with rediss"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path: Path, keys: str, words: str) -> None:
    (fault,) = faults(tmp_path, f"{UPSTREAM}metadata: {{{keys}}}")
    assert words in fault


def test_everything_about_a_redis_may_be_said_at_once(tmp_path: Path) -> None:
    keys = f"{_TLS}username_file: u, password_file: p, ca_file: ca, client_certificate: c, client_key: k"
    settings = load_text(
        tmp_path,
        f"{UPSTREAM}metadata: {{{keys}}}\ncluster: {{advertise: 'http://10.0.0.5:8080/', secret_file: s}}",
    )
    metadata = settings.metadata
    assert (metadata.username_file, metadata.password_file, metadata.ca_file) == (Path("u"), Path("p"), Path("ca"))
    assert (settings.cluster.advertise, settings.cluster.secret_file) == ("http://10.0.0.5:8080", Path("s"))
    assert Settings.model_validate(settings.model_dump()) == settings


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("advertise: 'http://r:8080'", "secret_file is missing"),
        ("secret_file: s", "advertise is missing"),
        ("advertise: 'http://r:8080/path', secret_file: s", "without a path"),
        ("advertise: 'r:8080', secret_file: s", "with http or https"),
        ("advertise: 'http://u:hunter2@r', secret_file: s", "replicas know one another by cluster.secret_file"),
    ],
)
def test_a_replica_is_reached_at_a_url_with_a_secret(tmp_path: Path, keys: str, words: str) -> None:
    (fault,) = faults(tmp_path, f"{UPSTREAM}metadata: {{url: redis://r}}\ncluster: {{{keys}}}")
    assert words in fault
    assert "hunter2" not in fault


@pytest.mark.parametrize("metadata", ["", "metadata: {url: sqlite}\n", "metadata:\n"])
def test_replicas_cannot_meet_without_a_redis(tmp_path: Path, metadata: str) -> None:
    (fault,) = faults(tmp_path, f"{UPSTREAM}{metadata}cluster: {{advertise: 'http://r:8080', secret_file: s}}")
    assert "cluster.advertise: needs metadata.url" in fault
    assert "replicas meet through Redis" in fault


@pytest.mark.parametrize("text", ["redis://" + "a" * 100_000, "redis://" + "/" * 100_000, "redis://" + "a," * 50_000])
def test_a_long_url_costs_no_time(text: str) -> None:
    parse_place(text)
