"""What an upstream has said of a client: for how long it counts, what stands in an outage, and what is never said."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import pytest
from pydantic import SecretStr

from mirror.auth.keyed import key_in, keyed
from mirror.auth.remembered import NO_FOR, Remembered
from mirror.auth.verdicts import Verdicts
from mirror.errors import (
    Denied,
    ManifestUnknown,
    MirrorError,
    NameUnknown,
    StartError,
    StoreError,
    TooMany,
    Unauthorized,
    UpstreamDenied,
    UpstreamInvalid,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from mirror.freshness import Policy
from mirror.metadata.base import KeptAnswer, Metadata
from mirror.names import Place
from mirror.oci import Reference, Resource
from mirror.suspicion import Suspicion
from mirror.upstream.failover import Upstream
from mirror.upstream.tokens import Login
from tests.cluster.replica import Clock
from tests.metadata.memory import Memory, MemoryMetadata
from tests.support.waiting import eventually

YES_FOR, STANDS_FOR = 300.0, 3600.0
HERE = Place("ghcr.io", "acme/plugin")
DOWN = UpstreamUnavailable("ghcr.io refuses connections")
SLOW = UpstreamTimeout("ghcr.io did not answer within 5 s")


def refused(status: int = 401) -> UpstreamDenied:
    return UpstreamDenied("refuses your credentials", detail={"status": status})


def login(user: str, password: str = "hunter2") -> Login:
    return Login(user, SecretStr(password))


ALICE, BOB = login("alice"), login("bob", "swordfish")


@dataclass
class Registry:
    """The origin: what it answers, to whom; and what it was asked. Raises the error that stands for a login."""

    answers: dict[Login | None, MirrorError | None] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    down: MirrorError | None = None
    gate: asyncio.Event | None = None
    asked: list[tuple[str, Resource, str, Login | None]] = field(default_factory=list)

    async def vouch(self, login: Login) -> None:
        await self.may_pull("", Resource.BASE, "", login)

    async def may_pull(self, repository: str, resource: Resource, target: str, login: Login | None) -> None:
        self.asked.append((repository, resource, target, login))
        if self.gate is not None:
            await self.gate.wait()
        answer = self.down or self.answers.get(login, refused())
        if answer is not None:
            raise type(answer)(answer.message, detail=answer.detail, retry_after=answer.retry_after)
        if target in self.absent:
            raise ManifestUnknown(f"{target} is not there")


@dataclass
class Behind:
    """As much of an upstream as is looked at."""

    policy: Policy = field(default_factory=lambda: Policy(hold_for=0.2))
    allowed: bool = True

    def allows(self, repository: str) -> bool:
        return self.allowed


@dataclass
class Scene:
    """A worker, and what it shares with others: ``memory`` and ``key``."""

    registry: Registry = field(default_factory=lambda: Registry({ALICE: None}))
    clock: Clock = field(default_factory=Clock)
    memory: Memory = field(default_factory=Memory)
    behind: Behind = field(default_factory=Behind)
    key: bytes = b"k" * 32
    origin: str = "https://ghcr.io"
    metadata: Metadata | None = None
    original: Callable[[Reference], Awaitable[Reference | None]] | None = None
    _workers: list[Verdicts] = field(default_factory=list)

    def worker(self) -> Verdicts:
        """Another worker, or the same after a restart."""
        names = keyed(lambda: self.key)
        remembered = Remembered(
            self.metadata or MemoryMetadata(self.memory),
            names,
            {"ghcr.io": self.origin},
            yes_for=YES_FOR,
            stands_for=STANDS_FOR,
            now=self.clock,
        )
        made = Verdicts(
            {"ghcr.io": cast(Upstream, self.behind)},
            {"ghcr.io": self.registry},
            remembered,
            names,
            Suspicion(self.clock),
            original=self.original,
            random=lambda: 0.05,
        )
        self._workers.append(made)
        return made

    async def aclose(self) -> None:
        for worker in self._workers:
            await worker.aclose()


@asynccontextmanager
async def scene(**of: object) -> AsyncIterator[tuple[Scene, Verdicts]]:
    made = Scene(**of)  # type: ignore[arg-type]  # the fields of a dataclass, by name
    try:
        yield made, made.worker()
    finally:
        await made.aclose()


async def pull(
    verdicts: Verdicts, who: Login | None = ALICE, what: str = "1", *, kind: Resource = Resource.MANIFEST
) -> float:
    return await verdicts.may_pull(HERE, kind, what, who, verdicts.principal(who))


async def test_a_yes_counts_until_its_time_is_over_and_for_whatever_the_repository_holds() -> None:
    async with scene() as (it, verdicts):
        assert await pull(verdicts) == YES_FOR
        it.clock.seconds += 299
        assert await pull(verdicts, what="2") == 1
        assert await pull(verdicts, what="sha256:" + "a" * 64, kind=Resource.BLOB) == 1
        assert len(it.registry.asked) == 1
        it.registry.answers[ALICE] = refused()
        it.clock.seconds += 2
        with pytest.raises(Unauthorized):
            await pull(verdicts)


async def test_a_no_counts_for_ten_seconds_and_then_it_is_asked_again() -> None:
    async with scene() as (it, verdicts):
        for _ in range(3):
            with pytest.raises(
                Unauthorized, match=r"ghcr\.io does not let these credentials pull ghcr\.io/acme/plugin"
            ):
                await pull(verdicts, BOB)
        assert len(it.registry.asked) == 1
        it.registry.answers[BOB] = None
        it.clock.seconds += NO_FOR + 0.1
        await pull(verdicts, BOB)


async def test_nobody_lives_on_the_verdict_of_another() -> None:
    async with scene() as (it, verdicts):
        it.registry.answers[None] = refused()
        await pull(verdicts)
        for other in (BOB, None, login("alice", "hunter3"), login("Alice"), login("alicehunter2", "")):
            with pytest.raises(Unauthorized):
                await pull(verdicts, other)
        it.registry.answers[ALICE] = refused()
        elsewhere = Place("ghcr.io", "acme/secret")
        with pytest.raises(Unauthorized):
            await verdicts.may_pull(elsewhere, Resource.MANIFEST, "1", ALICE, verdicts.principal(ALICE))


async def test_anonymous_is_somebody_too() -> None:
    async with scene() as (it, verdicts):
        it.registry.answers[None] = None
        await pull(verdicts, None)
        await pull(verdicts, None)
        assert len(it.registry.asked) == 1
        it.clock.seconds += YES_FOR
        it.registry.answers[None] = refused(403)
        with pytest.raises(Unauthorized, match="send credentials"):  # never 403: there may be some to be sent
            await pull(verdicts, None)


async def test_what_upstream_forbids_is_forbidden_and_what_it_does_not_believe_is_not_believed() -> None:
    async with scene() as (it, verdicts):
        it.registry.answers[BOB] = refused(403)
        with pytest.raises(Denied, match=r"ghcr\.io does not let these credentials pull ghcr\.io/acme/plugin \(403\)"):
            await pull(verdicts, BOB)
        with pytest.raises(Unauthorized, match=r"ghcr\.io does not take these credentials"):
            await verdicts.vouch("ghcr.io", login("x"), verdicts.principal(login("x")))


async def test_what_is_in_a_repository_and_its_lists_have_verdicts_of_their_own() -> None:
    async with scene() as (it, verdicts):
        await pull(verdicts, kind=Resource.TAGS, what="")
        it.registry.answers[ALICE] = refused()
        with pytest.raises(Unauthorized):
            await pull(verdicts)
        await pull(verdicts, kind=Resource.REFERRERS, what="sha256:" + "a" * 64)


async def test_a_repository_that_the_settings_do_not_allow_is_never_asked_about() -> None:
    async with scene() as (it, verdicts):
        it.behind.allowed = False
        with pytest.raises(NameUnknown, match=r"upstreams\.ghcr\.io\.allow"):
            await pull(verdicts)
        assert it.registry.asked == []


async def test_what_is_not_there_is_said_and_is_no_verdict() -> None:
    async with scene() as (it, verdicts):
        it.registry.absent = {"nope"}
        for _ in range(2):
            with pytest.raises(ManifestUnknown):
                await pull(verdicts, what="nope")
        assert len(it.registry.asked) == 2
        it.registry.answers[ALICE] = refused()
        with pytest.raises(Unauthorized):
            await pull(verdicts)


async def test_who_asks_for_what_is_there_does_not_hear_that_something_else_is_not() -> None:
    async with scene() as (it, verdicts):
        it.registry.absent, it.registry.gate = {"nope"}, asyncio.Event()
        asking = [asyncio.create_task(pull(verdicts, what=what)) for what in ("nope", "1", "nope", "2")]
        await eventually(lambda: it.registry.asked)
        it.registry.gate.set()
        told = await asyncio.gather(*asking, return_exceptions=True)
        assert [type(one) for one in told] == [ManifestUnknown, float, ManifestUnknown, float]
        assert len(it.registry.asked) == 2


@pytest.mark.parametrize(
    ("made", "kind"),
    [
        ("1-istio", Resource.MANIFEST),
        ("sha256:" + "b" * 64, Resource.MANIFEST),
        ("sha256:" + "b" * 64, Resource.BLOB),
    ],
)
async def test_what_is_made_here_is_as_readable_as_what_it_is_made_of(made: str, kind: Resource) -> None:
    async def original(reference: Reference) -> Reference | None:
        return Reference(reference.upstream, reference.repository, "1") if reference.target == made else None

    async with scene(original=original) as (it, verdicts):
        it.registry.absent = {made, "2"}
        with pytest.raises(ManifestUnknown):
            await pull(verdicts, what="2")
        await pull(verdicts, what=made, kind=kind)
        with pytest.raises(Unauthorized):
            await pull(verdicts, BOB, made, kind=kind)
        it.registry.absent = {made, "1"}
        it.clock.seconds += YES_FOR
        with pytest.raises(ManifestUnknown):
            await pull(verdicts, what=made, kind=kind)


async def test_a_thousand_pulls_with_one_secret_are_one_question() -> None:
    async with scene() as (it, verdicts):
        it.behind.policy = Policy(hold_for=30.0)
        it.registry.gate = asyncio.Event()
        pulls = [asyncio.create_task(pull(verdicts, what=str(number))) for number in range(1000)]
        await eventually(lambda: it.registry.asked)
        it.registry.gate.set()
        await asyncio.gather(*pulls)
        assert len(it.registry.asked) == 1


async def test_a_wrong_password_is_not_in_the_way_of_the_right_one() -> None:
    async with scene() as (_, verdicts):
        with pytest.raises(Unauthorized):
            await pull(verdicts, login("alice", "hunter3"))
        await pull(verdicts)


@pytest.mark.parametrize("failure", [DOWN, SLOW])
async def test_in_an_outage_the_last_yes_stands_and_nothing_else_does(failure: MirrorError) -> None:
    async with scene() as (it, verdicts):
        await pull(verdicts)
        with pytest.raises(Unauthorized):
            await pull(verdicts, BOB)
        it.registry.down = failure
        it.clock.seconds += YES_FOR + 100
        assert await pull(verdicts) == STANDS_FOR - 100
        for other in (BOB, login("stranger"), None):
            with pytest.raises(UpstreamUnavailable, match=r"ghcr\.io .*, and it has not let you lately") as told:
                await pull(verdicts, other)
            assert told.value.retry_after
        it.clock.seconds += STANDS_FOR
        with pytest.raises(UpstreamUnavailable):
            await pull(verdicts)


async def test_a_no_ends_the_yes_before_it_outage_or_not() -> None:
    async with scene() as (it, verdicts):
        await pull(verdicts)
        it.registry.answers[ALICE] = refused()
        it.clock.seconds += YES_FOR
        with pytest.raises(Unauthorized):
            await pull(verdicts)
        it.registry.down = DOWN
        it.clock.seconds += NO_FOR
        for worker in (verdicts, it.worker()):
            with pytest.raises(UpstreamUnavailable):
                await pull(worker)


async def test_nonsense_is_no_answer_and_a_refusal_of_any_kind_is_one() -> None:
    async with scene() as (it, verdicts):
        await pull(verdicts)
        it.registry.down = UpstreamInvalid("ghcr.io sends a page of HTML", detail={"status": 200})
        it.clock.seconds += YES_FOR
        await pull(verdicts)
        with pytest.raises(UpstreamInvalid):
            await pull(verdicts, BOB)
        it.registry.down = UpstreamInvalid("ghcr.io answers 400", detail={"status": 400})
        with pytest.raises(UpstreamInvalid):
            await pull(verdicts)


async def test_an_upstream_that_hangs_is_not_waited_for_twice_where_a_yes_stands() -> None:
    async with scene() as (it, verdicts):
        await pull(verdicts)
        it.registry.gate = asyncio.Event()
        it.clock.seconds += YES_FOR
        began = asyncio.get_running_loop().time()
        for _ in range(20):
            await pull(verdicts)
        assert asyncio.get_running_loop().time() - began < 2
        it.registry.answers[ALICE] = refused()
        it.registry.gate.set()  # and its word, once it comes, counts
        it.clock.seconds += 31

        for _ in range(2):  # the first of them may be let in while the word is on its way
            with contextlib.suppress(Unauthorized):
                await pull(verdicts)
        with pytest.raises(Unauthorized):
            await pull(verdicts)


async def test_who_has_no_yes_waits_while_upstream_is_asked_again() -> None:
    async with scene() as (it, verdicts):
        it.behind.policy = Policy(hold_for=5.0)
        it.registry.down = DOWN
        waiting = asyncio.create_task(pull(verdicts))
        await eventually(lambda: len(it.registry.asked) > 1)
        it.registry.down = None
        await waiting


async def test_an_upstream_that_is_offline_is_not_asked_and_its_yes_stands() -> None:
    async with scene() as (it, verdicts):
        await pull(verdicts)
        it.behind.policy = Policy(hold_for=0.2, offline=True)
        it.clock.seconds += YES_FOR
        await pull(verdicts)
        with pytest.raises(UpstreamUnavailable, match="offline in the mirror's settings"):
            await pull(verdicts, BOB)
        assert len(it.registry.asked) == 1


async def test_a_yes_is_known_to_other_workers_and_after_a_restart() -> None:
    async with scene() as (it, verdicts):
        await pull(verdicts)
        other = it.worker()
        assert await pull(other) == YES_FOR
        assert len(it.registry.asked) == 1
        it.registry.down = DOWN
        it.clock.seconds += YES_FOR + 1
        await pull(it.worker())
        with pytest.raises(UpstreamUnavailable):
            await pull(it.worker(), BOB)


async def test_the_later_word_counts_whichever_worker_has_heard_it() -> None:
    async with scene() as (it, verdicts):
        other = it.worker()
        await pull(verdicts)
        it.clock.seconds += YES_FOR
        await pull(other)
        await pull(verdicts)
        assert len(it.registry.asked) == 2
        it.registry.answers[ALICE] = refused()
        it.clock.seconds += YES_FOR
        with pytest.raises(Unauthorized):
            await pull(other)
        it.registry.down = DOWN
        with pytest.raises(Unauthorized):
            await pull(verdicts)


@pytest.mark.parametrize(
    "changed", [{"key": b"other" * 8}, {"origin": "https://ghcr.io:444"}], ids=lambda changed: next(iter(changed))
)
async def test_nothing_is_believed_that_another_mirror_was_told_or_another_registry_said(
    changed: Mapping[str, object],
) -> None:
    async with scene() as (it, verdicts):
        await pull(verdicts)
        async with scene(**{**changed, "memory": it.memory, "registry": it.registry}) as (_, other):
            await pull(other)
        assert len(it.registry.asked) == 2


@pytest.mark.parametrize(
    "body_of",
    [lambda no: b"", lambda no: no.body, lambda no: b"\0" * 32],
    ids=["empty", "the seal of a no", "made up"],
)
async def test_who_writes_into_the_shared_store_cannot_make_up_a_yes(body_of: Callable[[KeptAnswer], bytes]) -> None:
    async with scene() as (it, verdicts):
        await pull(verdicts)
        it.registry.answers[ALICE] = refused()
        it.clock.seconds += YES_FOR
        with pytest.raises(Unauthorized):
            await pull(verdicts)
        ((name, no),) = it.memory.answers.items()
        it.memory.answers[name] = KeptAnswer(body_of(no), {"status": "200"}, no.fetched_at)
        with pytest.raises(Unauthorized):
            await pull(it.worker())
        it.memory.answers[name] = KeptAnswer(b"", {"status": "x"}, no.fetched_at)
        with pytest.raises(Unauthorized):
            await pull(it.worker())


async def test_a_no_that_follows_no_yes_is_not_written_down_for_guesses_cost_nothing() -> None:
    async with scene() as (it, verdicts):
        for number in range(20):
            with pytest.raises(Unauthorized):
                await pull(verdicts, login("alice", str(number)))
        assert it.memory.answers == {}


async def test_a_clock_that_is_set_back_makes_no_verdict_last_longer() -> None:
    async with scene() as (it, verdicts):
        await pull(verdicts)
        it.registry.answers[ALICE] = refused()
        it.clock.seconds -= 1000
        with pytest.raises(Unauthorized):
            await pull(verdicts)


async def test_credentials_that_were_refused_meanwhile_are_refused_from_then_on() -> None:
    async with scene() as (it, verdicts):
        await pull(verdicts)
        verdicts.refuted("ghcr.io", "acme/plugin", verdicts.principal(ALICE))
        with pytest.raises(Unauthorized):
            await pull(verdicts)
        it.registry.down = DOWN
        it.clock.seconds += NO_FOR

        def is_written() -> bool:
            return {answer.headers["status"] for answer in it.memory.answers.values()} == {"401"}

        await eventually(is_written)
        with pytest.raises(UpstreamUnavailable):
            await pull(it.worker())


class Broken(MemoryMetadata):
    """A store that fails."""

    async def kept(self, key: str) -> KeptAnswer | None:
        raise StoreError("the disk fails")

    async def keep(self, key: str, answer: KeptAnswer) -> None:
        raise StoreError("the disk fails")


async def test_a_database_that_fails_denies_nobody_and_lets_nobody_in() -> None:
    async with scene(metadata=Broken(Memory())) as (it, verdicts):
        await pull(verdicts)
        with pytest.raises(Unauthorized):
            await pull(verdicts, BOB)
        it.registry.down = DOWN
        it.clock.seconds += YES_FOR
        await pull(verdicts)


async def test_a_flood_of_passwords_is_not_passed_on_without_end_nor_in_the_way_of_whom_it_lets() -> None:
    async with scene() as (it, verdicts):
        await pull(verdicts)
        it.clock.seconds += YES_FOR
        it.registry.asked = []
        it.behind.policy = Policy(hold_for=5.0)
        it.registry.gate = asyncio.Event()
        tries = [asyncio.create_task(pull(verdicts, login("alice", str(number)))) for number in range(1100)]
        await eventually(lambda: sum(task.done() for task in tries) == 1100 - 1024)
        assert len(it.registry.asked) == 32
        assert {type(task.exception()) for task in tries if task.done()} == {TooMany}
        alices = asyncio.create_task(pull(verdicts))
        await eventually(lambda: len(it.registry.asked) == 33)
        it.registry.gate.set()
        assert await alices == YES_FOR
        assert {type(one) for one in await asyncio.gather(*tries, return_exceptions=True)} == {TooMany, Unauthorized}


async def test_no_password_is_in_a_name_a_record_an_error_or_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with scene() as (it, verdicts):
        await pull(verdicts)
        with pytest.raises(Unauthorized) as told:
            await pull(verdicts, login("bob", "hunter2"))
        it.registry.down = DOWN
        with pytest.raises(UpstreamUnavailable) as silence:
            await pull(verdicts, login("carol", "hunter2"))
        said = [
            repr(it.memory),
            repr(vars(verdicts)),
            repr(vars(verdicts._remembered)),
            repr(told.value),
            repr(silence.value),
            caplog.text,
        ]
        assert not [text for text in said if "hunter2" in text or "alice" in text]
        assert len(verdicts.principal(ALICE)) == 64


def test_names_are_told_apart_by_each_of_their_parts() -> None:
    name = keyed(lambda: b"k" * 32)
    names = {
        name("ab", "c"),
        name("a", "bc"),
        name("abc"),
        name("", "abc"),
        name("abc", ""),
        keyed(lambda: b"l")("abc"),
    }
    assert len(names) == 6
    assert name("ab", "c") == keyed(lambda: b"k" * 32)("ab", "c")


def test_the_key_is_made_once_for_the_eyes_of_this_mirror_only(tmp_path: Path) -> None:
    file = tmp_path / "verdicts.key"
    key = key_in(file)
    assert len(key) == 32
    assert key_in(file) == key
    assert file.stat().st_mode & 0o777 == 0o600
    assert [found.name for found in tmp_path.iterdir()] == ["verdicts.key"]


def test_a_key_that_is_none_is_said(tmp_path: Path) -> None:
    file = tmp_path / "verdicts.key"
    file.write_bytes(b"short")
    with pytest.raises(StartError, match="remove it"):
        key_in(file)


def test_where_no_key_can_be_kept_one_is_made_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert len(key_in(tmp_path / "absent" / "verdicts.key")) == 32
    assert "asked anew" in caplog.text
