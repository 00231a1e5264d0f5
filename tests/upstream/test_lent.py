"""Clients' own credentials at an origin: what they are good for, who gets to see them, and whose tokens are used."""

import asyncio
import functools
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr

from mirror.config import EndpointSettings
from mirror.digest import Digest
from mirror.errors import (
    BlobUnknown,
    ManifestUnknown,
    MirrorError,
    NameUnknown,
    Unauthorized,
    UpstreamDenied,
    UpstreamUnavailable,
)
from mirror.oci import Resource
from mirror.upstream.failover import Upstream
from mirror.upstream.lenders import MOST_LENDERS, Lenders, Logins
from mirror.upstream.lent import Lent
from mirror.upstream.tokens import Login
from tests.support.contents import Answer
from tests.support.faults import Fault
from tests.support.tokens import TokenService
from tests.support.tokens import basic as user_of
from tests.support.upstream import FaultyUpstream
from tests.support.wire import Request
from tests.upstream.support import (
    BLOB,
    BLOB_DIGEST,
    LOGIN,
    MANIFEST,
    MANIFEST_DIGEST,
    PASSWORD,
    REPOSITORY,
    Clock,
    content,
    holding,
    pulling_from,
    within,
)

OTHER = "other/plugin"
ALICE = Login("alice", SecretStr("the password of alice"))
BOB = Login("bob", SecretStr("the password of bob"))
USERS = {one.username: one.secret.get_secret_value() for one in (ALICE, BOB)}
WRONG = Login("alice", SecretStr("a wrong password"))
SECRETS = [
    part for one in (ALICE, BOB, WRONG) for part in (one.secret.get_secret_value(), one.basic().get_secret_value())
]


@pytest.fixture
def stack() -> Any:
    with ExitStack() as open_things:
        yield open_things


def registry(stack: ExitStack, rights: dict[str, dict[str | None, str]] | None = None, **tokens: Any) -> FaultyUpstream:
    """A registry with a token service, where alice and bob may what ``rights`` say."""
    up = stack.enter_context(FaultyUpstream())
    holding(up).add_manifest(OTHER, MANIFEST, tag="v1")
    up.add_blob(OTHER, BLOB)
    up.require_bearer(TokenService(dict(USERS), rights=rights, **tokens))
    return up


@asynccontextmanager
async def lending(
    *endpoints: FaultyUpstream | EndpointSettings, **settings: Any
) -> AsyncIterator[tuple[Upstream, Lent]]:
    """The upstream ``corp`` in ``auth.mode: upstream``."""
    wiring = {"clients_decide": True, **settings.pop("wiring", {})}
    async with pulling_from(*endpoints, wiring=wiring, **settings) as upstream:
        assert upstream.lent is not None
        yield upstream, upstream.lent


def may_pull(lent: Lent, login: Login | None, repository: str = REPOSITORY) -> Any:
    return lent.may_pull(repository, Resource.MANIFEST, "v1", login)


def who(up: FaultyUpstream, request: Request) -> str | None:
    """Whose token a request brought; None for an anonymous one."""
    assert up.tokens is not None
    kind, _, token = request.headers.get("authorization", "").partition(" ")
    assert kind == "Bearer", request.headers
    return up.tokens._issued[token].user


def bearers(up: FaultyUpstream, repository: str) -> list[str | None]:
    """Whose tokens came with the requests about a repository, in their order."""
    asked = [request for request in up.requests if f"/v2/{repository}/" in request.path]
    return [who(up, request) for request in asked if "authorization" in request.headers]


def seen(*servers: FaultyUpstream) -> str:
    """All that came to these servers, as text; what is in base64 too."""
    return "\n".join(
        f"{request.path} {request.query} {request.headers} {bytes(request.body)!r}"
        for server in servers
        for request in server.requests
    )


def unseen(*servers: FaultyUpstream) -> bool:
    """Whether these servers have seen no credentials: of nobody."""
    return not any("authorization" in request.headers for server in servers for request in server.requests) and not any(
        secret in seen(*servers)
        for secret in (*SECRETS, *(secret.partition(" ")[2] for secret in SECRETS if " " in secret))
    )


# What a client may pull.


async def test_two_clients_with_different_rights_never_get_by_with_each_others_tokens(stack: ExitStack) -> None:
    up = registry(stack, {REPOSITORY: {"alice": "pull"}, OTHER: {"bob": "pull"}})
    async with lending(up) as (_, lent):
        for _ in range(2):
            answers = await asyncio.gather(
                *(may_pull(lent, one, where) for one in (ALICE, BOB, None) for where in (REPOSITORY, OTHER)),
                return_exceptions=True,
            )
            assert [type(answer) for answer in answers] == [
                *(type(None), UpstreamDenied),
                *(UpstreamDenied, type(None)),
                *(UpstreamDenied, UpstreamDenied),
            ]
    let_in = [request for request in up.matching(path="/manifests/", status=200)]
    assert {(request.path.split("/manifests")[0], who(up, request)) for request in let_in} == {
        (f"/v2/{REPOSITORY}", "alice"),
        (f"/v2/{OTHER}", "bob"),
    }
    for request in up.matching(path="/token"):
        user, password = user_of(request.headers.get("authorization", ""))
        assert (user, password) in {(None, None), *USERS.items()}
        assert request.query.get("account") == user


@pytest.mark.parametrize("lenient", [False, True])
async def test_a_wrong_password_is_found_out_although_everybody_may_read(stack: ExitStack, lenient: bool) -> None:
    up = registry(stack, lenient=lenient, tells_subject=lenient)
    async with lending(up) as (_, lent):
        await may_pull(lent, None)
        await may_pull(lent, ALICE)
        with pytest.raises(UpstreamDenied) as refused:
            await may_pull(lent, WRONG)
        assert refused.value.detail == {"endpoint": up.host, "status": 401}
        with pytest.raises(UpstreamDenied):
            await lent.vouch(WRONG)
        await lent.vouch(BOB)


class Open(FaultyUpstream):
    """A registry that asks nobody who reads for anything, but who logs in."""

    def _refusal(self, request: Request) -> Answer | None:
        return super()._refusal(request) if request.path == "/v2/" else None


async def test_a_wrong_password_is_found_out_at_a_registry_that_does_not_ask_for_it(stack: ExitStack) -> None:
    up = holding(stack.enter_context(Open()))
    up.require_bearer(TokenService(dict(USERS)))
    async with lending(up) as (_, lent):
        for login in (None, ALICE):
            await may_pull(lent, login)
        with pytest.raises(UpstreamDenied):
            await may_pull(lent, WRONG)


@pytest.mark.parametrize("public", [False, True])
async def test_a_wrong_password_is_found_out_at_a_registry_with_basic_authentication(
    stack: ExitStack, public: bool
) -> None:
    up = holding(stack.enter_context(FaultyUpstream()))
    up.require_basic(dict(USERS), public=public)
    async with lending(up) as (_, lent):
        await may_pull(lent, ALICE)
        with pytest.raises(UpstreamDenied):
            await may_pull(lent, WRONG)
        await may_pull(lent, BOB)
        if public:
            await may_pull(lent, None)
        else:
            with pytest.raises(UpstreamDenied, match=r"asks for credentials \(401\)"):
                await may_pull(lent, None)


async def test_a_password_that_was_changed_is_found_out_though_its_token_is_good_for_longer(stack: ExitStack) -> None:
    up = registry(stack, anonymous=False)
    async with lending(up) as (_, lent):
        await may_pull(lent, ALICE)
        assert up.tokens is not None
        up.tokens.users["alice"] = "another one"
        with pytest.raises(UpstreamDenied):
            await may_pull(lent, ALICE)


async def test_a_right_that_was_taken_away_is_found_out_though_its_token_is_good_for_longer(stack: ExitStack) -> None:
    rights: dict[str, dict[str | None, str]] = {REPOSITORY: {"alice": "pull"}}
    up = registry(stack, rights)
    async with lending(up) as (_, lent):
        await may_pull(lent, ALICE)
        del rights[REPOSITORY]["alice"]
        with pytest.raises(UpstreamDenied):
            await may_pull(lent, ALICE)


async def test_all_that_can_be_pulled_is_asked_for_as_the_client_would(stack: ExitStack) -> None:
    up = registry(stack, {REPOSITORY: {"alice": "pull"}})
    asked = [
        (Resource.MANIFEST, "v1"),
        (Resource.MANIFEST, str(MANIFEST_DIGEST)),
        (Resource.BLOB, str(BLOB_DIGEST)),
        (Resource.TAGS, ""),
        (Resource.REFERRERS, str(MANIFEST_DIGEST)),
    ]
    async with lending(up) as (_, lent):
        for resource, target in asked:
            await lent.may_pull(REPOSITORY, resource, target, ALICE)
            with pytest.raises(UpstreamDenied):
                await lent.may_pull(REPOSITORY, resource, target, BOB)
        up.referrers_api = False
        await lent.may_pull(REPOSITORY, Resource.REFERRERS, str(MANIFEST_DIGEST), ALICE)
    assert not up.matching(method="GET", path="/manifests/")
    assert not up.matching(method="GET", path="/blobs/")
    assert [request.query for request in up.matching(path="/tags/list", status=200)] == [{"n": "1"}] * 2


async def test_what_is_not_there_is_no_refusal(stack: ExitStack) -> None:
    up = registry(stack)
    missing = str(Digest.of(b"nothing"))
    async with lending(up) as (_, lent):
        with pytest.raises(ManifestUnknown):
            await lent.may_pull(REPOSITORY, Resource.MANIFEST, "nothing", ALICE)
        with pytest.raises(BlobUnknown):
            await lent.may_pull(REPOSITORY, Resource.BLOB, missing, ALICE)
        with pytest.raises(NameUnknown):
            await lent.may_pull("no/where", Resource.TAGS, "", ALICE)


async def test_a_registry_that_fails_says_nothing_about_a_client(stack: ExitStack) -> None:
    up = registry(stack)
    async with lending(up) as (_, lent):
        for path in ("/v2/$", "/token", "/manifests/"):
            rule = up.inject(Fault(status=503), path=path)
            with pytest.raises(UpstreamUnavailable):
                await may_pull(lent, ALICE)
            rule.remove()
            await may_pull(lent, BOB)
        up.inject(Fault(status=403), path="/manifests/")
        with pytest.raises(UpstreamDenied) as refused:
            await may_pull(lent, ALICE)
        assert refused.value.detail == {"endpoint": up.host, "status": 403}


async def test_an_origin_that_keeps_failing_is_left_alone_and_one_that_is_offline_too(stack: ExitStack) -> None:
    up = registry(stack)
    up.inject(Fault(status=503))
    async with lending(up) as (_, lent):
        for _ in range(5):
            with pytest.raises(UpstreamUnavailable):
                await may_pull(lent, ALICE)
        so_far = len(up.requests)
        with pytest.raises(UpstreamUnavailable):
            await may_pull(lent, ALICE)
        assert len(up.requests) == so_far
    async with lending(up, offline=True) as (_, lent):
        for asking in (may_pull(lent, ALICE), lent.vouch(ALICE)):
            with pytest.raises(UpstreamUnavailable, match="offline"):
                await asking
        assert len(up.requests) == so_far


async def test_a_login_is_held_against_the_registry_once_a_minute_for_all_repositories(stack: ExitStack) -> None:
    up, clock = registry(stack), Clock()
    async with lending(up, wiring={"clock": clock}) as (_, lent):
        for where in (REPOSITORY, OTHER, REPOSITORY):
            await may_pull(lent, ALICE, where)
        first = len(up.matching(path="/v2/$", status=200))
        clock.now += 61
        await may_pull(lent, ALICE)
    assert (first, len(up.matching(path="/v2/$", status=200))) == (1, 2)


# Who sees the credentials.


async def test_only_the_origin_and_its_auth_hosts_see_a_clients_credentials(stack: ExitStack) -> None:
    before, storage = holding(stack.enter_context(FaultyUpstream())), holding(stack.enter_context(FaultyUpstream()))
    up, tokens = registry(stack, anonymous=False), stack.enter_context(FaultyUpstream())
    tokens.require_bearer(up.tokens)
    up.require_bearer(up.tokens, realm=f"{tokens.url}/token")
    before.inject(Fault(status=404), path=f"{BLOB_DIGEST}")
    up.inject(Fault(redirect=f"{storage.url}{{path}}"), method="GET", path="/blobs/")
    origin = EndpointSettings(url=up.url, auth_hosts=(tokens.host,), redirect_hosts=(storage.host,))
    async with lending(before, origin) as (upstream, lent):
        await may_pull(lent, ALICE)
        lent.lend(REPOSITORY, "a", ALICE, within())
        stream = await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())
        assert await content(stream) == BLOB
    assert before.matching(path="/blobs/")
    assert storage.matching(path="/blobs/")
    assert unseen(before, storage)
    assert bearers(up, REPOSITORY) == ["alice", "alice"]
    assert {user_of(request.headers.get("authorization", "")) for request in tokens.requests} == {
        ("alice", USERS["alice"])
    }


async def test_a_foreign_realm_gets_no_credentials_and_the_client_no_yes(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    up, foreign = registry(stack), stack.enter_context(FaultyUpstream())
    foreign.require_bearer(up.tokens)
    up.require_bearer(up.tokens, realm=f"{foreign.url}/token")
    async with lending(up) as (_, lent):
        for asking in (may_pull(lent, ALICE), lent.vouch(ALICE)):
            with pytest.raises(UpstreamDenied, match=rf"wants your credentials to go to {foreign.host}.*auth_hosts"):
                await asking
    assert unseen(foreign)
    assert not foreign.requests
    (warning,) = caplog.messages
    assert warning.startswith(f"nobody can log in at corp: {up.host} wants your credentials to go to {foreign.host}")


async def test_an_endpoint_before_the_origin_is_not_asked_what_a_client_may(stack: ExitStack) -> None:
    up, before = registry(stack, {REPOSITORY: {"alice": "pull"}}), holding(stack.enter_context(FaultyUpstream()))
    async with lending(before, up) as (_, lent):
        with pytest.raises(UpstreamDenied):
            await may_pull(lent, BOB)
    assert not before.requests


async def test_that_an_endpoint_before_the_origin_asks_for_credentials_is_no_word_about_a_client(
    stack: ExitStack,
) -> None:
    up, before = registry(stack, anonymous=False), stack.enter_context(FaultyUpstream())
    before.require_basic({"somebody": "else"})
    async with lending(before, up) as (upstream, lent):
        lent.lend(REPOSITORY, "a", ALICE, within())
        manifest = await upstream.get_manifest(REPOSITORY, "v1", deadline=within())
        assert manifest.digest == MANIFEST_DIGEST
    assert unseen(before)
    async with lending(EndpointSettings(url=before.url, credentials=LOGIN), up) as (upstream, lent):
        lent.lend(REPOSITORY, "a", ALICE, within())
        with pytest.raises(UpstreamDenied, match=r"refuses this mirror's credentials.*endpoints\[0\]\.credentials"):
            await upstream.get_manifest(REPOSITORY, "v1", deadline=within())


# What is lent.


async def test_without_a_lender_nothing_is_shown_and_with_one_that_ones(stack: ExitStack) -> None:
    up = registry(stack, anonymous=False)
    async with lending(up) as (upstream, lent):
        with pytest.raises(UpstreamDenied, match=r"asks for credentials"):
            await upstream.get_manifest(REPOSITORY, "v1", deadline=within())
        assert unseen(up)
        lent.lend(REPOSITORY, "a", ALICE, within())
        await upstream.get_manifest(REPOSITORY, "v1", deadline=within())
        with pytest.raises(UpstreamDenied):  # she has not asked for anything there
            await upstream.get_manifest(OTHER, "v1", deadline=within())
    assert (bearers(up, REPOSITORY), bearers(up, OTHER)) == (["alice"], [])


async def test_the_mirrors_own_credentials_are_used_where_there_are_some_and_clients_are_on_trial_all_the_same(
    stack: ExitStack,
) -> None:
    up = registry(stack, {REPOSITORY: {"robot": "pull", "alice": "pull"}})
    assert up.tokens is not None
    up.tokens.users["robot"] = PASSWORD
    async with lending(up, credentials=LOGIN) as (upstream, lent):
        await may_pull(lent, ALICE)
        loan = lent.lend(REPOSITORY, "a", ALICE, within())
        with pytest.raises(UpstreamDenied):
            await may_pull(lent, BOB)
        await upstream.get_manifest(REPOSITORY, "v1", deadline=within())
        await loan.persist(functools.partial(asyncio.sleep, 0))
    assert [who(up, request) for request in up.matching(method="HEAD", status=200)] == ["alice"]
    assert [who(up, request) for request in up.matching(method="GET", path="/manifests/", status=200)] == ["robot"]


async def test_whose_password_was_changed_hears_it_and_the_next_lender_goes_on(stack: ExitStack) -> None:
    up = registry(stack, anonymous=False)
    refused: list[tuple[str, str]] = []
    async with lending(up) as (upstream, lent):
        lent.on_refusal(lambda principal, repository: refused.append((principal, repository)))
        bobs = lent.lend(REPOSITORY, "b", BOB, within())
        alices = lent.lend(REPOSITORY, "a", ALICE, within())
        elsewhere = lent.lend(OTHER, "a", ALICE, within())
        assert up.tokens is not None
        up.tokens.users["alice"] = "another one"
        stream = await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())
        assert await content(stream) == BLOB
        assert refused == [("a", REPOSITORY)]
        bobs.check()
        elsewhere.check()
        with pytest.raises(UpstreamDenied, match=r"refuses your credentials \(401\)"):
            alices.check()
        again = lent.lend(REPOSITORY, "a", ALICE, within())  # a new verdict
        again.check()


async def test_a_blob_that_was_cut_goes_on_with_the_next_lender(stack: ExitStack) -> None:
    up = registry(stack, anonymous=False)
    assert up.tokens is not None
    async with lending(up) as (upstream, lent):
        lent.lend(REPOSITORY, "b", BOB, within())
        lent.lend(REPOSITORY, "a", ALICE, within())
        first = await upstream.open_blob(REPOSITORY, BLOB_DIGEST, deadline=within())
        await first.aclose()
        up.tokens.users["alice"] = "another one"
        up.tokens.revoke()
        rest = await upstream.open_blob(REPOSITORY, BLOB_DIGEST, offset=1000, deadline=within())
        assert await content(rest) == BLOB[1000:]
        assert who(up, up.matching(path="/blobs/", status=206)[0]) == "bob"


async def test_a_repository_is_lent_for_under_the_name_that_clients_know(stack: ExitStack) -> None:
    up = registry(stack, {f"proxy/{REPOSITORY}": {"alice": "pull"}}, anonymous=False)
    up.add_manifest(f"proxy/{REPOSITORY}", MANIFEST, tag="v1")
    refused: list[tuple[str, str]] = []
    async with lending(EndpointSettings(url=up.url, repository_prefix="proxy/")) as (upstream, lent):
        lent.on_refusal(lambda principal, repository: refused.append((principal, repository)))
        await may_pull(lent, ALICE)
        lent.lend(REPOSITORY, "a", ALICE, within())
        await upstream.get_manifest(REPOSITORY, "v1", deadline=within())
        lent.lend(REPOSITORY, "b", BOB, within())
        await upstream.get_manifest(REPOSITORY, "v1", deadline=within())
    assert refused == [("b", REPOSITORY)]


# The loans themselves.


async def logins(lenders: Lenders, *refused: Login | None) -> list[Login | None]:
    """Which login is used, and which instead of each that is ``refused``."""
    found = [await lenders.login("a")]
    for one in refused:
        found.append(await lenders.instead_of(one, "a", UpstreamDenied("no")))
    return found


async def test_the_latest_lender_counts_until_its_verdict_ends() -> None:
    clock = Clock()
    lenders = Lenders("", clock)
    assert await logins(lenders) == [None]
    lenders.lend("a", "alice", ALICE, clock.now + 20)
    lenders.lend("a", "bob", BOB, clock.now + 10)
    assert await logins(lenders) == [BOB]
    clock.now += 10
    assert await logins(lenders) == [ALICE]
    lenders.lend("a", "bob", BOB, clock.now + 10)
    lenders.lend("a", "alice", ALICE, clock.now + 10)
    assert await logins(lenders, ALICE, BOB) == [ALICE, BOB, None]
    assert await lenders.login("b") is None


async def test_nobodys_credentials_are_shown_where_an_anonymous_client_may_pull() -> None:
    clock = Clock()
    lenders = Lenders("", clock)
    anonymous = lenders.lend("a", "", None, clock.now + 10)
    lenders.lend("a", "alice", ALICE, clock.now + 10)
    assert await logins(lenders, None) == [None, ALICE]
    with pytest.raises(UpstreamDenied):
        anonymous.check()


async def test_only_so_many_lenders_are_remembered() -> None:
    lenders = Lenders("", Clock())
    many = [Login(str(number), SecretStr("x")) for number in range(MOST_LENDERS + 3)]
    for one in many:
        lenders.lend("a", one.username, one, 2000.0)
    assert await logins(lenders, *reversed(many)) == [*reversed(many[3:]), None, None, None, None]


class Work:
    """A question that is shared: it meets the refusals of ``refused``, one by one, and is answered then."""

    def __init__(self, lenders: Lenders, refused: Sequence[Login | None]) -> None:
        self.asked = 0
        self._lenders = lenders
        self._refused = list(refused)

    async def __call__(self) -> str:
        self.asked += 1
        if self._refused:
            one = self._refused.pop(0)
            await self._lenders.instead_of(one, "a", UpstreamDenied("of somebody"))
            raise UpstreamDenied("of somebody")
        return "the answer"


async def test_anothers_refusal_is_no_answer_and_ones_own_is() -> None:
    clock = Clock()
    lenders = Lenders("", clock)
    alices, bobs = (lenders.lend("a", one.username, one, clock.now + 10) for one in (ALICE, BOB))
    work = Work(lenders, [BOB])
    assert await alices.persist(work) == "the answer"
    assert work.asked == 2
    with pytest.raises(UpstreamDenied, match="of somebody"):
        await bobs.persist(work)
    assert work.asked == 2
    work = Work(lenders, [ALICE])
    with pytest.raises(UpstreamDenied):
        await alices.persist(work)
    assert work.asked == 1


async def test_others_refusals_are_never_a_clients_own_however_many_there_are() -> None:
    lenders = Lenders("", Clock())
    work = Work(lenders, [Login(str(number), SecretStr("x")) for number in range(100)])
    with pytest.raises(UpstreamUnavailable, match="ask again"):
        await lenders.lend("a", "alice", ALICE, 2000.0).persist(work)
    assert work.asked == 5


async def test_that_the_mirrors_own_credentials_are_refused_is_said_at_once(stack: ExitStack) -> None:
    up = registry(stack, anonymous=False)
    async with lending(up, credentials=LOGIN) as (upstream, lent):
        await may_pull(lent, ALICE)
        loan = lent.lend(REPOSITORY, "a", ALICE, within())
        up.reset()
        with pytest.raises(UpstreamDenied, match=r"refuses this mirror's credentials.*upstreams\.corp\.credentials"):
            await loan.persist(lambda: upstream.get_manifest(REPOSITORY, "v1", deadline=within()))
    assert len(up.matching(path="/token")) == 1


async def test_who_was_let_in_lends_to_the_end_of_the_request_and_others_push_nobody_out() -> None:
    clock = Clock()
    lenders = Lenders("", clock)
    loan = lenders.lend("a", "alice", ALICE, clock.now + 1)
    found: list[Login | None] = []

    async def work() -> None:
        clock.now += 2
        if not found:
            for number in range(MOST_LENDERS):
                lenders.lend("a", str(number), Login(str(number), SecretStr("x")), clock.now - 1)
            found.append(await lenders.login("a"))
            raise UpstreamDenied("of somebody")
        found.append(await lenders.login("a"))

    await loan.persist(work)
    assert found == [None, ALICE]
    assert await lenders.login("a") is None


# Authors.


def test_a_principal_that_is_not_known_is_asked_for_its_credentials() -> None:
    known = Logins()
    known.introduce("p", ALICE)
    assert (known.of("p"), known.of("")) == (ALICE, None)
    with pytest.raises(Unauthorized, match="send them again"):
        known.of("q")


# Secrets.


def test_nothing_of_a_login_is_in_a_repr() -> None:
    lenders = Lenders("", Clock())
    loan, known = lenders.lend("a", "p", ALICE, 2000.0), Logins()
    known.introduce("p", ALICE)
    for thing in (ALICE, loan, lenders, known, [ALICE], {ALICE: 1}):
        assert "alice" not in f"{thing!r} {thing}"


async def test_no_error_says_a_password_a_token_or_who_a_client_is(
    stack: ExitStack, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    up = registry(stack, {REPOSITORY: {"bob": "pull"}}, anonymous=False)
    async with lending(up) as (upstream, lent):
        told = []
        for login in (ALICE, WRONG):
            with pytest.raises(MirrorError) as failure:
                await may_pull(lent, login)
            told.append(f"{failure.value!r} {failure.value.detail}")
        loan = lent.lend(REPOSITORY, "p", WRONG, within())
        with pytest.raises(MirrorError) as failure:
            await loan.persist(lambda: upstream.get_manifest(REPOSITORY, "v1", deadline=within()))
        told.append(f"{failure.value!r} {failure.value.detail} {loan!r}")
    everything = "\n".join([*told, *(record.getMessage() for record in caplog.records if record.name != "asyncio")])
    assert up.tokens is not None
    secrets = [*SECRETS, *(secret.removeprefix("Basic ") for secret in SECRETS), *up.tokens._issued, "alice"]
    assert [secret for secret in secrets if secret in everything] == []
