"""The steps of authentication, taken one by one without a network."""

import base64

import httpx
import pytest
from pydantic import SecretStr

from mirror.config import known
from mirror.errors import UpstreamDenied, UpstreamInvalid
from mirror.upstream.auth import Authenticator, Reply, Send
from mirror.upstream.tokens import Login, Token, TokenKey, TokenRequest, read_token
from tests.upstream.support import Clock

LOGIN = Login("robot", SecretStr("secret"))
IDENTITY = Login("", SecretStr("an-identity-token"), is_identity_token=True)
BASIC = SecretStr("Basic " + base64.b64encode(b"robot:secret").decode())
OK = Reply(200)
SETTING = "upstreams.corp.credentials"
REALM = "https://registry.example/token"


def authenticator(
    endpoint: str = "https://registry.example", auth_hosts: tuple[str, ...] = (), clock: Clock | None = None
) -> Authenticator:
    return Authenticator(httpx.URL(endpoint), auth_hosts, SETTING, clock or Clock())


def challenge(realm: str = REALM, scope: str | None = "repository:team/a:pull") -> Reply:
    told = f',scope="{scope}"' if scope else ""
    return Reply(401, (f'Bearer realm="{realm}",service="registry"{told}',))


def token(value: str, refresh_at: float = 2000.0) -> Token:
    return Token(SecretStr(value), refresh_at)


def bearer(value: str) -> Send:
    return Send(SecretStr(f"Bearer {value}"))


def pull(
    auth: Authenticator, *replies: Reply | Token, repository: str = "team/a", login: Login | None = None
) -> list[Send | TokenRequest]:
    """The steps of a flow that is given these replies and then must be over."""
    flow = auth.flow(repository, login)
    steps = [next(flow)]
    for reply in replies[:-1]:
        steps.append(flow.send(reply))
    with pytest.raises(StopIteration):
        flow.send(replies[-1])
    return steps


def wanted(step: Send | TokenRequest) -> TokenRequest:
    assert isinstance(step, TokenRequest)
    return step


def test_nothing_is_sent_that_was_not_asked_for() -> None:
    assert pull(authenticator(), OK, login=LOGIN) == [Send(None)]


def test_basic_is_answered_and_remembered() -> None:
    auth = authenticator()
    assert pull(auth, Reply(401, ("Basic realm=x",)), OK, login=LOGIN) == [Send(None), Send(BASIC)]
    assert pull(auth, OK, login=LOGIN, repository="team/b") == [Send(BASIC)]
    assert pull(auth, OK, login=None) == [Send(None)]


def test_bearer_beats_basic() -> None:
    steps = pull(authenticator(), Reply(401, ("Basic realm=x", *challenge().challenges)), token("T"), OK, login=LOGIN)
    assert isinstance(steps[1], TokenRequest)


def test_a_token_is_got_for_the_scope_of_the_challenge() -> None:
    steps = pull(authenticator(), challenge(scope="repository:team/a:pull,push"), token("T"), OK, login=LOGIN)
    assert steps[0] == Send(None)
    assert wanted(steps[1]).key == TokenKey(REALM, "registry", "repository:team/a:pull,push")
    assert steps[2] == bearer("T")


def test_a_challenge_without_a_scope_is_met_with_that_of_a_pull() -> None:
    steps = pull(authenticator(), challenge(scope=None), token("T"), OK)
    assert wanted(steps[1]).key.scope == "repository:team/a:pull"


def test_a_token_goes_along_from_the_first_request_on() -> None:
    auth = authenticator()
    pull(auth, challenge(), token("T"), OK)
    assert pull(auth, OK) == [bearer("T")]


def test_after_one_challenge_the_scopes_of_other_repositories_are_foreseen() -> None:
    auth = authenticator()
    pull(auth, challenge(), token("A"), OK)
    steps = pull(auth, token("B"), OK, repository="other/b")
    assert wanted(steps[0]).key == TokenKey(REALM, "registry", "repository:other/b:pull")
    assert steps[1:] == [bearer("B")]


@pytest.mark.parametrize(
    ("scope", "foreseen"),
    [
        ("repository:proxy/team/a:pull", "repository:proxy/other/b:pull"),
        ("repository:team/a:pull,push", "repository:other/b:pull,push"),
        ("aws", "aws"),
    ],
)
def test_scopes_are_foreseen_in_the_manner_of_the_registry(scope: str, foreseen: str) -> None:
    auth = authenticator()
    pull(auth, challenge(scope=scope), token("A"), OK)
    flow = auth.flow("other/b", None)
    step = next(flow)
    assert (step.key.scope if isinstance(step, TokenRequest) else "aws") == foreseen


def test_a_name_that_also_stands_elsewhere_in_the_scope_is_not_confused() -> None:
    auth = authenticator()
    pull(auth, challenge(scope="repository:repository:pull"), token("A"), OK, repository="repository")
    assert wanted(next(auth.flow("b", None))).key.scope == "repository:b:pull"


def test_a_wrong_foresight_is_put_right_by_the_challenge() -> None:
    auth = authenticator()
    pull(auth, challenge(), token("A"), OK)
    other = challenge("https://registry.example/elsewhere", "repository:x/other/b:pull")
    steps = pull(auth, token("useless"), other, token("B"), OK, repository="other/b")
    assert wanted(steps[2]).key.realm == "https://registry.example/elsewhere"
    assert steps[3] == bearer("B")


def test_a_token_is_renewed_before_it_expires() -> None:
    clock = Clock()
    auth = authenticator(clock=clock)
    pull(auth, challenge(), token("old", refresh_at=1100), OK)
    clock.now = 1099.9
    assert pull(auth, OK) == [bearer("old")]
    clock.now = 1100.0
    assert pull(auth, token("new"), OK)[1:] == [bearer("new")]


def test_a_token_that_was_revoked_is_replaced_once() -> None:
    auth = authenticator()
    pull(auth, challenge(), token("old"), OK)
    first, second = auth.flow("team/a", None), auth.flow("team/a", None)
    assert next(first) == next(second) == bearer("old")
    assert isinstance(first.send(challenge()), TokenRequest)
    assert first.send(token("new")) == bearer("new")
    assert second.send(challenge()) == bearer("new")  # and does not ask for another


@pytest.mark.parametrize(
    ("host", "field", "vouched"),
    [
        # As they are sent: Docker Hub, ghcr.io, GAR, quay.io, ECR Public, Harbor, Artifactory.
        (
            "registry-1.docker.io",
            'Bearer realm="https://auth.docker.io/token",service="registry.docker.io",'
            'scope="repository:library/alpine:pull"',
            True,
        ),
        ("ghcr.io", 'Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:user/image:pull"', True),
        ("us-docker.pkg.dev", 'Bearer realm="https://us-docker.pkg.dev/v2/token",service="us-docker.pkg.dev"', True),
        ("quay.io", 'Bearer realm="https://quay.io/v2/auth",service="quay.io",scope="repository:team/a:pull"', True),
        ("public.ecr.aws", 'Bearer realm="https://public.ecr.aws/token/",service="public.ecr.aws",scope="aws"', True),
        ("harbor.corp", 'Bearer realm="https://harbor.corp/service/token",service="harbor-registry"', True),
        ("corp.jfrog.io", 'Bearer realm="https://corp.jfrog.io/v2/token",service="corp.jfrog.io"', True),
        ("corp.jfrog.io", 'Bearer realm="https://corp-docker.jfrog.io/v2/token",service="corp.jfrog.io"', False),
    ],
)
def test_the_challenges_of_known_registries_are_met_with_the_login_where_it_may_go(
    host: str, field: str, vouched: bool
) -> None:
    auth = authenticator(f"https://{host}", known.auth_hosts(host))
    steps = pull(auth, Reply(401, (field,)), token("good"), OK, login=LOGIN)
    request = wanted(steps[1])
    assert (request.login, request.trusted, request.withheld) == ((LOGIN if vouched else None), vouched, not vouched)
    assert steps[2] == bearer("good")


def test_the_challenge_of_ecr_is_met_with_the_login() -> None:
    field = 'Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com"'
    assert pull(authenticator(), Reply(401, (field,)), OK, login=LOGIN) == [Send(None), Send(BASIC)]


def test_a_token_that_is_answered_with_400_is_replaced_once() -> None:
    """As ECR Public answers one that has ended."""
    auth = authenticator()
    pull(auth, Reply(401, challenge().challenges), token("first"), OK)
    steps = pull(auth, Reply(400), challenge(), token("second"), OK)
    assert steps[:2] == [bearer("first"), Send(None)]
    assert steps[3] == bearer("second")
    assert pull(auth, Reply(400), Reply(400)) == [bearer("second"), Send(None)]
    assert wanted(pull(auth, token("third"), OK)[0]).key.scope == "repository:team/a:pull"


def test_a_400_without_a_token_is_an_answer() -> None:
    assert pull(authenticator(), Reply(400), login=LOGIN) == [Send(None)]
    auth = authenticator()
    pull(auth, Reply(401, ("Basic realm=x",)), OK, login=LOGIN)
    assert pull(auth, Reply(400), login=LOGIN) == [Send(BASIC)]


def test_after_a_failure_of_the_token_service_the_next_challenge_is_waited_for() -> None:
    auth = authenticator()
    pull(auth, challenge(), token("T", refresh_at=0), OK)
    auth.forget_service()
    assert next(auth.flow("team/a", None)) == Send(None)


@pytest.mark.parametrize(
    ("login", "replies", "words"),
    [
        (None, [Reply(401)], f"registry.example asks for credentials (401); set {SETTING}"),
        (None, [Reply(401, ("Basic realm=x",))], f"set {SETTING}"),
        (None, [Reply(401, ("Negotiate",))], f"set {SETTING}"),
        (None, [Reply(401, ("Bearer service=x",))], f"set {SETTING}"),
        (LOGIN, [Reply(401)], f"check {SETTING}"),
        (LOGIN, [Reply(401, ("Basic realm=x",)), Reply(401, ("Basic realm=x",))], f"check {SETTING}"),
        (IDENTITY, [Reply(401, ("Basic realm=x",))], f"check {SETTING}"),
        (LOGIN, [challenge(), token("T"), challenge()], f"check {SETTING}"),
        (None, [challenge(), token("T"), challenge()], f"set {SETTING}"),
    ],
)
def test_a_refusal_names_the_endpoint_and_the_setting(
    login: Login | None, replies: list[Reply | Token], words: str
) -> None:
    flow = authenticator().flow("team/a", login)
    next(flow)
    for reply in replies[:-1]:
        flow.send(reply)
    with pytest.raises(UpstreamDenied) as refused:
        flow.send(replies[-1])
    assert "registry.example" in refused.value.message
    assert words in refused.value.message
    assert refused.value.detail == {"endpoint": "registry.example", "status": 401, "setting": SETTING}


def test_wrong_basic_credentials_are_not_sent_twice_in_one_request() -> None:
    auth = authenticator()
    pull(auth, Reply(401, ("Basic realm=x",)), OK, login=LOGIN)
    flow = auth.flow("team/a", LOGIN)
    assert next(flow) == Send(BASIC)
    with pytest.raises(UpstreamDenied):
        flow.send(Reply(401, ("Basic realm=x",)))


@pytest.mark.parametrize("realm", ["no url", "ftp://registry.example/t", "file:///etc/passwd", "https:///t", "/token"])
def test_a_realm_that_is_no_address_is_refused(realm: str) -> None:
    flow = authenticator().flow("team/a", LOGIN)
    next(flow)
    with pytest.raises(UpstreamInvalid, match="realm"):
        flow.send(challenge(realm))


def test_an_anonymous_token_is_asked_for_without_authorization() -> None:
    request = TokenRequest(
        TokenKey(REALM + "?a=b", "registry", "repository:x:pull repository:y:pull"), None, True
    ).request()
    assert request.method == "GET"
    assert list(request.url.params.multi_items()) == [
        ("a", "b"),
        ("service", "registry"),
        ("scope", "repository:x:pull"),
        ("scope", "repository:y:pull"),
    ]
    assert "authorization" not in request.headers


def test_a_password_goes_in_the_header_of_a_token_request() -> None:
    request = TokenRequest(TokenKey(REALM, "registry", "s"), LOGIN, True).request()
    assert request.headers["authorization"] == BASIC.get_secret_value()
    assert "secret" not in str(request.url)
    assert request.url.params["account"] == "robot"


def test_an_identity_token_is_posted() -> None:
    request = TokenRequest(TokenKey(REALM, "registry", "s t"), IDENTITY, True).request()
    assert request.method == "POST"
    assert dict(httpx.QueryParams(request.content.decode())) == {
        "grant_type": "refresh_token",
        "service": "registry",
        "scope": "s t",
        "client_id": "wasm-mirror",
        "refresh_token": "an-identity-token",
    }
    assert "authorization" not in request.headers


DATE = "Tue, 01 Sep 2026 12:00:30 GMT"


@pytest.mark.parametrize(
    ("fields", "value", "good_for"),
    [
        ({"token": "A"}, "A", 54),
        ({"access_token": "B"}, "B", 54),
        ({"token": "A", "access_token": "B"}, "A", 54),
        ({"token": "", "access_token": "B"}, "B", 54),
        ({"token": "A", "expires_in": 300}, "A", 290),
        ({"token": "A", "expires_in": 10}, "A", 9),
        ({"token": "A", "expires_in": 300, "issued_at": "2026-09-01T12:00:00Z"}, "A", 260),
        ({"token": "A", "expires_in": 300, "issued_at": "2026-09-01T14:00:00.123456789+02:00"}, "A", 260),
        ({"token": "A", "expires_in": 300, "issued_at": "yesterday"}, "A", 290),
        ({"token": "A", "expires_in": 300, "issued_at": "2026-09-01T13:00:00Z"}, "A", 290),
        ({"token": "A", "expires_in": 0}, "A", 54),
        ({"token": "A", "expires_in": -5}, "A", 54),
        ({"token": "A", "expires_in": "300"}, "A", 54),
        ({"token": "A", "expires_in": True}, "A", 54),
        ({"token": "A", "expires_in": 10**12}, "A", 86390),
    ],
)
def test_a_token_is_good_until_shortly_before_it_expires(fields: dict[str, object], value: str, good_for: int) -> None:
    found = read_token(fields, DATE, 1000.0, "auth.example")
    assert found.value.get_secret_value() == value
    assert found.refresh_at == pytest.approx(1000 + good_for, abs=0.2)


def test_a_token_that_is_older_than_its_life_serves_once() -> None:
    auth = authenticator()
    fields = {"token": "A", "expires_in": 10, "issued_at": "2026-09-01T11:00:00Z"}
    assert pull(auth, challenge(), read_token(fields, DATE, 1000.0, "auth.example"), OK)[2] == bearer("A")
    assert isinstance(next(auth.flow("team/a", None)), TokenRequest)


@pytest.mark.parametrize(
    "fields",
    [{}, {"token": None}, {"token": 5}, {"token": ["x"]}, {"token": "a\r\nX-Evil: 1"}, {"token": "x" * 70_000}],
)
def test_what_cannot_be_a_token_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(UpstreamInvalid, match=r"auth\.example sends no token"):
        read_token(fields, None, 0.0, "auth.example")


def test_the_tokens_that_are_kept_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mirror.upstream.auth._MAX_TOKENS", 2)
    auth = authenticator()
    pull(auth, challenge(), token("a"), OK)
    for repository in ("b", "c"):
        pull(auth, token(repository), OK, repository=repository)
    assert pull(auth, OK, repository="c") == [bearer("c")]
    assert isinstance(next(auth.flow("team/a", None)), TokenRequest)


def test_when_all_tokens_were_revoked_a_new_one_is_asked_for() -> None:
    auth = authenticator()
    wide = "repository:team/a:pull,push"
    pull(auth, challenge(scope=wide), token("wide"), OK)
    flow = auth.flow("team/a", None, "repository:team/a:pull,push,delete")
    next(flow)
    assert flow.send(token("wider")) == bearer("wider")
    assert flow.send(challenge(scope=wide)) == bearer("wide")
    assert wanted(flow.send(challenge(scope=wide))).key.scope == wide
    assert flow.send(token("new")) == bearer("new")
