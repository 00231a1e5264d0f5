"""The advice for each way in which an endpoint does not answer as a registry."""

import pytest
from pydantic import SecretStr

from mirror.doctor.asking import Seen
from mirror.doctor.remedies import remedy
from mirror.errors import (
    MirrorError,
    NameUnknown,
    UpstreamDenied,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.upstream.tokens import Login, TokenKey, TokenRequest

LOGIN = Login("robot", SecretStr("hush"))
KEY = TokenKey("https://auth.example/token", "registry", "")
VOUCHED = TokenRequest(KEY, LOGIN, trusted=True)
WITHHELD = TokenRequest(KEY, None, trusted=False, withheld=True)


@pytest.mark.parametrize(
    ("failure", "seen", "check", "words"),
    [
        (UpstreamUnavailable("x"), Seen(knows_login=False), "auth", "mend upstreams.corp.credentials: without it"),
        (UpstreamDenied("x"), Seen(True, LOGIN), "auth", "whether upstreams.corp.credentials still holds"),
        (UpstreamDenied("x"), Seen(True), "auth", "set upstreams.corp.credentials"),
        (UpstreamDenied("x"), Seen(True, LOGIN, token=WITHHELD), "auth", "auth.example is the token service"),
        (UpstreamInvalid("x"), Seen(True, LOGIN, token=WITHHELD), "auth", "endpoints[0].auth_hosts"),
        (UpstreamUnavailable("x"), Seen(True, LOGIN, token=VOUCHED), "auth", "see to auth.example"),
        (UpstreamInvalid("x"), Seen(True, LOGIN, schemes=("bearer",)), "auth", "token service that cannot be right"),
        (UpstreamTimeout("x"), Seen(True), "/v2/", "says nothing"),
        (UpstreamUnavailable("x"), Seen(True), "/v2/", "beside it in upstreams.corp.endpoints"),
        (UpstreamUnavailable("no client_certificate"), Seen(True), "TLS", "endpoints[0].client_certificate"),
        (UpstreamInvalid("x"), Seen(True), "/v2/", "check upstreams.corp.endpoints[0].url"),
        (NameUnknown("x"), Seen(True), "/v2/", "no registry"),
    ],
)
def test_the_advice_names_the_setting(failure: MirrorError, seen: Seen, check: str, words: str) -> None:
    found, advice = remedy(failure, seen, "upstreams.corp.endpoints[0]", "upstreams.corp.credentials")
    assert found == check
    assert words in advice


def test_a_host_that_nobody_vouches_for_is_named_with_a_warning() -> None:
    _, advice = remedy(UpstreamDenied("x"), Seen(True, LOGIN, token=WITHHELD), "upstreams.corp.endpoints[0]", "c")
    assert "upstreams.corp.endpoints[0].auth_hosts" in advice
    assert "your password goes there" in advice
