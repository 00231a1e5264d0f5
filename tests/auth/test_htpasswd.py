"""Users in an htpasswd file: who they are, what it costs to find out, and until when it is remembered."""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import bcrypt
import pytest

from mirror.auth import htpasswd
from mirror.auth.htpasswd import LONGEST, WRONG_FOR, Users, check_users, read_table
from mirror.config import Settings
from mirror.errors import StartError, TooMany, Unauthorized
from mirror.upstream.watched import LOOK_AGAIN_AFTER
from mirror.wiring import check_secrets
from tests.auth.support import line, users_file
from tests.cluster.replica import Clock
from tests.support.waiting import eventually


class Counted:
    """Compares as bcrypt does, and remembers what with what; while ``shut`` nothing is answered."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, bytes]] = []
        self._open = threading.Event()
        self._open.set()

    def __call__(self, password: bytes, entry: bytes) -> bool:
        self.asked.append((password, entry))
        self._open.wait(10)
        return bcrypt.checkpw(password, entry)

    @contextmanager
    def shut(self) -> Iterator[None]:
        self._open.clear()
        try:
            yield
        finally:
            self._open.set()


@asynccontextmanager
async def users_of(
    file: Path,
    check: Callable[[bytes, bytes], bool] | None = None,
    clock: Clock | None = None,
    verdict_for: float = 300,
) -> AsyncIterator[Users]:
    users = Users(file, verdict_for=verdict_for, clock=clock or Clock(), check=check or bcrypt.checkpw)
    try:
        yield users
    finally:
        await users.aclose()


@pytest.mark.parametrize("kind", ["2a", "2b", "2y"])
async def test_a_user_is_known_by_the_password_of_the_file(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "users"
    file.write_text(f"# authors\n\n{line('ännä', 'hunter2', kind)}{line('ben', 'größe 3', kind)}")
    async with users_of(file) as users:
        assert await users.verify("ännä", b"hunter2")
        assert await users.verify("ben", "größe 3".encode())
        wrong = [("ben", "hunter2"), ("ännä", "Hunter2"), ("ännä", ""), ("Ben", "größe 3"), ("", ""), ("b", "en")]
        assert not [pair for pair in wrong if await users.verify(pair[0], pair[1].encode())]


async def test_what_htpasswd_writes_is_read(tmp_path: Path) -> None:
    file = tmp_path / "users"  # the example of Apache's documentation, "Password Formats"
    file.write_text("myName:$2y$05$c4WoMPo3SXsafkva.HHa6uXQZWr7oboPiC2bT/r7q1BB8I2s0BRqC\n")
    async with users_of(file) as users:
        assert await users.verify("myName", b"myPassword")


async def test_a_herd_with_one_secret_costs_one_computation_and_later_ones_none(tmp_path: Path) -> None:
    check = Counted()
    async with users_of(users_file(tmp_path, {"anna": "hunter2"}), check) as users:
        with check.shut():
            herd = [asyncio.create_task(users.verify("anna", b"hunter2")) for _ in range(1000)]
            await eventually(lambda: check.asked)
        assert await asyncio.gather(*herd) == [True] * 1000
        assert await users.verify("anna", b"hunter2")
        assert len(check.asked) == 1


async def test_a_client_that_leaves_does_not_stop_the_others(tmp_path: Path) -> None:
    check = Counted()
    async with users_of(users_file(tmp_path, {"anna": "hunter2"}), check) as users:
        with check.shut():
            first, second = (asyncio.create_task(users.verify("anna", b"hunter2")) for _ in range(2))
            await eventually(lambda: check.asked)
            first.cancel()
        assert await second


async def test_bcrypt_does_not_hold_up_the_loop(tmp_path: Path) -> None:
    main = threading.get_ident()
    where: list[int] = []

    def check(password: bytes, entry: bytes) -> bool:
        where.append(threading.get_ident())
        return True

    async with users_of(users_file(tmp_path, {"anna": "x"}), check) as users:
        await users.verify("anna", b"x")
    assert where != [main]


async def test_a_verdict_is_kept_for_as_long_as_the_settings_say(tmp_path: Path) -> None:
    check, clock = Counted(), Clock()
    async with users_of(users_file(tmp_path, {"anna": "hunter2"}), check, clock, verdict_for=60) as users:
        for seconds, asked in ((0.0, 1), (59.0, 1), (1.0, 2)):
            clock.seconds += seconds
            assert await users.verify("anna", b"hunter2")
            assert len(check.asked) == asked


async def test_a_wrong_password_is_remembered_for_a_moment_only(tmp_path: Path) -> None:
    check, clock = Counted(), Clock()
    async with users_of(users_file(tmp_path, {"anna": "hunter2"}), check, clock) as users:
        for seconds, asked in ((0.0, 1), (WRONG_FOR - 1, 1), (1.0, 2)):
            clock.seconds += seconds
            assert not await users.verify("anna", b"hunter1")
            assert len(check.asked) == asked


async def test_rights_end_with_the_entry_in_the_file(tmp_path: Path) -> None:
    clock = Clock()
    file = users_file(tmp_path, {"anna": "hunter2", "ben": "old"})
    async with users_of(file, clock=clock) as users:
        assert await users.verify("anna", b"hunter2")
        assert await users.verify("ben", b"old")
        users_file(tmp_path, {"ben": "new-one"})
        clock.seconds += LOOK_AGAIN_AFTER
        assert not await users.verify("anna", b"hunter2")
        assert not await users.verify("ben", b"old")
        assert await users.verify("ben", b"new-one")


async def test_a_verdict_that_comes_after_the_file_has_changed_is_not_remembered_for_the_new_one(
    tmp_path: Path,
) -> None:
    check, clock = Counted(), Clock()
    async with users_of(users_file(tmp_path, {"anna": "old", "ben": "b"}), check, clock) as users:
        with check.shut():
            early = asyncio.create_task(users.verify("anna", b"old"))
            await eventually(lambda: check.asked)
            users_file(tmp_path, {"anna": "new", "ben": "b"})
            clock.seconds += LOOK_AGAIN_AFTER
        await early
        assert not await users.verify("anna", b"old")


@pytest.mark.shows("`auth.file` is absent, or cannot be used, while the mirror runs")
@pytest.mark.parametrize("content", ["", "anna:plain\n", "\xff\n", None])
async def test_a_file_that_breaks_leaves_the_users_as_they_were(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    clock = Clock()
    file = users_file(tmp_path, {"anna": "hunter2"})
    async with users_of(file, clock=clock) as users:
        assert await users.verify("anna", b"hunter2")
        file.unlink()
        if content is not None:
            file.write_bytes(content.encode("latin-1"))
        clock.seconds += 1000
        assert await users.verify("anna", b"hunter2")
        assert not await users.verify("anna", b"plain")
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert "auth.file" in record.message
    assert "plain" not in record.message


async def test_unknown_users_take_the_same_work_as_known_ones(tmp_path: Path) -> None:
    """Line 26 of the design's list on security: how long an answer takes does not tell who is a user."""
    check, clock = Counted(), Clock()
    entries = [bcrypt.hashpw(b"x", bcrypt.gensalt(cost)).decode() for cost in (4, 5)]
    file = tmp_path / "users"
    file.write_text("".join(f"user{number}:{entry}\n" for number, entry in enumerate(entries)))
    async with users_of(file, check, clock) as users:
        for seconds in (0.0, WRONG_FOR):
            clock.seconds += seconds
            for number in range(40):
                for _ in range(2):
                    assert not await users.verify(f"nobody{number}", b"x")
    costs = [entry[:7] for _, entry in check.asked]
    assert len(costs) == 80  # one for each name, and again when that is forgotten: as with wrong passwords
    assert set(costs) == {b"$2b$04$", b"$2b$05$"}  # as costly as those of users
    assert costs[:40] == costs[40:]  # and the same each time
    assert not {entry for _, entry in check.asked} & {entry.encode() for entry in entries}


async def test_who_is_not_in_the_file_is_nobody_whatever_fits(tmp_path: Path) -> None:
    async with users_of(users_file(tmp_path, {"anna": "hunter2"}), lambda password, entry: True) as users:
        assert await users.verify("anna", b"x")
        assert not await users.verify("nobody", b"x")


async def test_the_work_for_an_unknown_user_is_bcrypts_own(tmp_path: Path) -> None:
    file = tmp_path / "users"
    file.write_text(f"anna:{bcrypt.hashpw(b'hunter2', bcrypt.gensalt(9)).decode()}\n")
    async with users_of(file) as users:
        took = {"anna": 1e9, "nobody": 1e9}
        for attempt in range(3):
            for name in took:
                began = time.perf_counter()
                assert not await users.verify(name, b"wrong%d" % attempt)
                took[name] = min(took[name], time.perf_counter() - began)
    assert took["nobody"] > took["anna"] / 3


async def test_a_password_beyond_what_bcrypt_reads_is_refused_and_not_cut(tmp_path: Path) -> None:
    check = Counted()
    async with users_of(users_file(tmp_path, {"anna": "x" * LONGEST}), check) as users:
        assert await users.verify("anna", b"x" * LONGEST)
        for name in ("anna", "nobody"):
            with pytest.raises(Unauthorized, match="72 bytes at most"):
                await users.verify(name, b"x" * (LONGEST + 1))
        assert not await users.verify("anna", b"x" * 71 + b"\0")


async def test_passwords_are_checked_few_at_a_time_and_a_flood_of_them_is_turned_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(htpasswd, "_MOST_WAITING", 5)
    check = Counted()
    async with users_of(users_file(tmp_path, {"anna": "hunter2"}), check) as users:
        assert await users.verify("anna", b"hunter2")
        with check.shut():
            flood = [asyncio.create_task(users.verify("anna", b"%d" % number)) for number in range(20)]
            await eventually(lambda: sum(one.done() for one in flood) == 15)
            same = asyncio.create_task(users.verify("anna", b"4"))
            assert await users.verify("anna", b"hunter2")  # who is known does not notice
            await eventually(lambda: len(check.asked) == 3)
        found = await asyncio.gather(*flood, same, return_exceptions=True)
        assert [type(one) for one in found] == [bool] * 5 + [TooMany] * 15 + [bool]
        assert not await users.verify("anna", b"19")


async def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(htpasswd, "_MOST_REMEMBERED", 3)
    check = Counted()
    async with users_of(users_file(tmp_path, {"anna": "hunter2"}), check) as users:
        assert await users.verify("anna", b"hunter2")
        for number in range(10):
            assert not await users.verify("anna", b"%d" % number)
        asked = len(check.asked)
        assert not await users.verify("anna", b"9")
        assert await users.verify("anna", b"hunter2")  # wrong ones take no room from right ones
        assert len(check.asked) == asked
        assert not await users.verify("anna", b"0")
        assert len(check.asked) == asked + 1


async def test_no_password_is_kept_or_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with users_of(users_file(tmp_path, {"anna": "hunter2"})) as users:
        assert await users.verify("anna", b"hunter2")
        assert not await users.verify("anna", b"hunter3")
        kept = [*users._right._until, *users._wrong._until]
        assert [len(key) for key in kept] == [32, 32]
        assert "hunter" not in repr(vars(users)) + repr(read_table(tmp_path / "users")) + caplog.text
        other = Users(tmp_path / "users", verdict_for=300)
        assert await other.verify("anna", b"hunter2")
        assert not set(other._right._until) & set(users._right._until)  # the key is this process's own


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "no user in it"),
        (b"\n# none\n", "no user in it"),
        (b"hunter2\n", "line 1 is not <user>:<entry>"),
        (b":hunter2\n", "line 1 is not <user>:<entry>"),
        (b"\xff:hunter2\n", "line 1 is not <user>:<entry>"),
        (b"\nanna:hunter2\n", "the entry of anna in line 2 is not bcrypt .* `htpasswd -B`"),
        (b"anna:$apr1$hunter2$hunter2hunter2hunter2x.\n", "the entry of anna .* `htpasswd -B`"),
        (b"anna:{SHA}hunter2hunter2hunter2hunt=\n", "the entry of anna .* `htpasswd -B`"),
        (b"anna:$2b$31$" + b"x" * 53 + b"\n", "the entry of anna .* cost from 4 to 17"),
        (b"anna:$2b$04$" + b"x" * 53 + b"\n", "the entry of anna"),
        (line("anna", "hunter2").encode() * 2, "the user anna stands in it twice"),
        (b"#" * (5 << 20), "more than 4 MiB"),
    ],
)
def test_a_file_that_cannot_be_used_stops_the_start_in_one_line(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    file = tmp_path / "users"
    if content is not None:
        file.write_bytes(content)
    settings = Settings.model_validate({"auth": {"file": str(file)}, "upstreams": {"ghcr.io": {}}})
    with pytest.raises(StartError, match=rf"auth\.file .*{words}.*; `htpasswd -B -c") as failure:
        check_secrets(settings)
    assert "hunter" not in failure.value.message
    assert "\n" not in failure.value.message
    assert failure.value.__cause__ is None


def test_a_good_file_or_none_does_not(tmp_path: Path) -> None:
    file = users_file(tmp_path, {"anna": "hunter2"})
    check_users(Settings.model_validate({"auth": {"file": str(file)}, "upstreams": {"ghcr.io": {}}}))
    check_users(Settings.model_validate({"upstreams": {"ghcr.io": {}}}))
