"""Only who has the secret can ask or tell anything, and the secret can be changed while replicas run."""

import logging
import traceback
from pathlib import Path

import pytest

from mirror.cluster.secret import ACCEPTED_FOR, LOOK_AGAIN_AFTER, SKEW, Secret
from mirror.errors import StartError, Unauthorized
from tests.cluster.replica import Clock

OLD = b"an old secret of some bytes"
NEW = b"the new secret of some bytes"
OTHER = b"what somebody else has made up"
NOW = 1_700_000_000.0
TARGET = "/peer/v1/blobs/sha256:00?held=1"


def secret(folder: Path, *lines: bytes, clock: Clock | None = None, name: str = "secret") -> Secret:
    file = folder / name
    file.write_bytes(b"\n".join(lines) + b"\n")
    return Secret(file, clock=clock or Clock())


def accepts(judge: Secret, signer: Secret) -> bool:
    """Whether ``judge`` takes a request and an answer of ``signer``; it takes both or none."""
    signed = signer.sign("GET", TARGET, NOW)
    try:
        taken = judge.verify(signed.header, "GET", TARGET, NOW) == signed.nonce
    except Unauthorized:
        taken = False
    assert judge.vouches_for(signer.sign_answer("n", b"{}"), "n", b"{}") == taken
    return taken


def test_who_has_the_secret_is_known(tmp_path: Path) -> None:
    one, other = secret(tmp_path, OLD, name="one"), secret(tmp_path, OLD, name="other")
    assert accepts(one, other)
    assert accepts(other, one)


def test_who_has_another_secret_is_not(tmp_path: Path) -> None:
    one, other = secret(tmp_path, OLD, name="one"), secret(tmp_path, OTHER, name="other")
    assert not accepts(one, other)
    assert not accepts(other, one)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("HEAD", TARGET),
        ("GET", "/peer/v1/blobs/sha256:00"),
        ("GET", "/peer/v1/blobs/sha256:01?held=1"),
        ("GET", f"{TARGET}&x=1"),
        ("GET", "/peer/v1/tags/a/b?tag=c"),
        ("GET\n", TARGET),
        ("GET", f"\n{TARGET}"),
    ],
)
def test_a_signature_is_good_for_its_one_question(tmp_path: Path, method: str, target: str) -> None:
    one = secret(tmp_path, OLD)
    header = one.sign("GET", TARGET, NOW).header
    one.verify(header, "GET", TARGET, NOW)
    with pytest.raises(Unauthorized):
        one.verify(header, method, target, NOW)


def test_time_and_nonce_cannot_be_changed(tmp_path: Path) -> None:
    one = secret(tmp_path, OLD)
    signed = one.sign("GET", TARGET, NOW)
    for changed in (
        signed.header.replace(f"t={int(NOW)}", f"t={int(NOW) + 1}"),
        signed.header.replace(signed.nonce, "0" * 32),
    ):
        assert changed != signed.header
        with pytest.raises(Unauthorized):
            one.verify(changed, "GET", TARGET, NOW)


@pytest.mark.parametrize("seconds", [-SKEW, 0.0, SKEW])
def test_clocks_may_differ_by_five_minutes(tmp_path: Path, seconds: float) -> None:
    one = secret(tmp_path, OLD)
    one.verify(one.sign("GET", TARGET, NOW).header, "GET", TARGET, NOW + seconds)


@pytest.mark.parametrize("seconds", [-SKEW - 1, SKEW + 1, 86400.0])
def test_an_old_request_is_refused_and_told_why(tmp_path: Path, seconds: float) -> None:
    one = secret(tmp_path, OLD)
    header = one.sign("GET", TARGET, NOW).header
    with pytest.raises(Unauthorized, match=f"differ by {abs(seconds):.0f} s"):
        one.verify(header, "GET", TARGET, NOW + seconds)


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Basic cm9ib3Q6eA==",
        "WasmMirror",
        f"WasmMirror v=1,t=1700000000,n={'0' * 32},s={'0' * 64}",
        f"WasmMirror v=1,t=1700000000,n={'0' * 32}",
        f"WasmMirror v=2,t=1700000000,n={'0' * 32},s={'0' * 64}",
        f"WasmMirror v=1,t=-1,n={'0' * 32},s={'0' * 64}",
        f"WasmMirror v=1,t={'9' * 5000},n={'0' * 32},s={'0' * 64}",
        f"WasmMirror v=1,t=170000000\u0660,n={'0' * 32},s={'0' * 64}",
        f"WasmMirror v=1,t=1700000000,n=,s={'0' * 64}",
        f"WasmMirror v=1,t=1700000000,n={'0' * 32},s=",
        f"WasmMirror v=1,t=1700000000,n={'0' * 32},s={'é' * 64}",
    ],
)
def test_what_is_no_proof_is_refused(tmp_path: Path, header: str | None) -> None:
    with pytest.raises(Unauthorized):
        secret(tmp_path, OLD).verify(header, "GET", TARGET, NOW)


def test_no_number_of_signatures_makes_work(tmp_path: Path) -> None:
    one = secret(tmp_path, OLD)
    header = one.sign("GET", TARGET, NOW).header
    one.verify(header + f",s={'0' * 64}" * 7, "GET", TARGET, NOW)
    with pytest.raises(Unauthorized):
        one.verify(header + f",s={'0' * 64}" * 8, "GET", TARGET, NOW)


def test_an_answer_is_good_for_its_question_and_its_words(tmp_path: Path) -> None:
    one = secret(tmp_path, OLD)
    signature = one.sign_answer("nonce", b'{"v":1}')
    assert one.vouches_for(signature, "nonce", b'{"v":1}')
    assert not one.vouches_for(signature, "nonce", b'{"v":2}')
    assert not one.vouches_for(signature, "other", b'{"v":1}')
    assert not one.vouches_for(signature, "nonce", b"")
    for other in (None, "", "v=1", f"v=1,s={'0' * 64}", signature.upper(), signature.replace("v=1", "v=2")):
        assert not one.vouches_for(other, "nonce", b'{"v":1}')


def test_the_signature_of_a_question_is_none_of_an_answer(tmp_path: Path) -> None:
    one = secret(tmp_path, OLD)
    signed = one.sign("GET", TARGET, NOW)
    taken = "v=1" + signed.header[signed.header.index(",s=") :]
    body = f"GET\n{TARGET}\n{int(NOW)}\n{signed.nonce}".encode()
    assert not one.vouches_for(taken, signed.nonce, body)
    assert not one.vouches_for(taken, "", body)


def test_nonces_do_not_repeat(tmp_path: Path) -> None:
    one = secret(tmp_path, OLD)
    assert len({one.sign("GET", TARGET, NOW).nonce for _ in range(100)}) == 100


def test_of_several_secrets_the_first_signs_and_all_are_accepted(tmp_path: Path) -> None:
    both = secret(tmp_path, NEW, b"", b"  " + OLD + b"\r", name="both")
    new, old = secret(tmp_path, NEW, name="new"), secret(tmp_path, OLD, name="old")
    assert accepts(both, new)
    assert accepts(both, old)
    assert accepts(new, both)
    assert not accepts(old, both)


def test_a_new_secret_is_good_within_a_second_and_the_old_one_for_ten_minutes_more(tmp_path: Path) -> None:
    clock = Clock()
    running = secret(tmp_path, OLD, clock=clock)
    new, old = secret(tmp_path, NEW, name="new"), secret(tmp_path, OLD, name="old")
    secret(tmp_path, NEW)  # the same file
    assert not accepts(running, new), "the file is looked at once a second"
    clock.seconds += LOOK_AGAIN_AFTER
    assert accepts(running, new)
    assert accepts(running, old)
    assert accepts(new, running)
    assert accepts(old, running), "a replica that has not seen the new file is understood by, and understands, this one"
    clock.seconds += ACCEPTED_FOR - LOOK_AGAIN_AFTER
    assert accepts(running, old)
    clock.seconds += 2 * LOOK_AGAIN_AFTER
    assert not accepts(running, old)
    assert not accepts(old, running)
    assert accepts(running, new)


def test_a_secret_that_comes_back_is_no_longer_on_its_way_out(tmp_path: Path) -> None:
    clock = Clock()
    running, old = secret(tmp_path, OLD, clock=clock), secret(tmp_path, OLD, name="old")
    for lines in ((NEW,), (OLD,)):
        secret(tmp_path, *lines)
        clock.seconds += LOOK_AGAIN_AFTER
        assert accepts(running, old)
    assert running.sign("GET", TARGET, NOW).header.count(",s=") == 2
    clock.seconds += 2 * ACCEPTED_FOR
    assert accepts(running, old)


def test_secrets_that_were_there_before_are_not_gathered_without_a_bound(tmp_path: Path) -> None:
    clock = Clock()
    running = secret(tmp_path, OLD, clock=clock)
    for number in range(20):
        secret(tmp_path, b"secret number %06d" % number)
        clock.seconds += LOOK_AGAIN_AFTER
        assert running.sign("GET", TARGET, NOW).header.count(",s=") <= 5
    assert not accepts(running, secret(tmp_path, OLD, name="old"))


def test_a_secret_is_exchanged_as_kubernetes_does_it(tmp_path: Path) -> None:
    clock = Clock()
    for folder, content in (("..1", OLD), ("..2", NEW)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "secret").write_bytes(content)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "mounted").symlink_to("..data/secret")
    running = Secret(tmp_path / "mounted", clock=clock)
    (tmp_path / "..next").symlink_to("..2")
    (tmp_path / "..next").rename(tmp_path / "..data")
    clock.seconds += LOOK_AGAIN_AFTER
    assert accepts(running, secret(tmp_path, NEW, name="new"))


@pytest.mark.parametrize("content", [None, b"", b"short"])
def test_a_file_that_spoils_leaves_the_secret_in_force_and_is_told_once(
    tmp_path: Path, content: bytes | None, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    running, old = secret(tmp_path, OLD, clock=clock), secret(tmp_path, OLD, name="old")
    file = tmp_path / "secret"
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)
    for _ in range(3):
        clock.seconds += LOOK_AGAIN_AFTER
        assert accepts(running, old)
    (record,) = caplog.records
    assert str(file) in record.message
    secret(tmp_path, NEW)
    clock.seconds += LOOK_AGAIN_AFTER
    assert accepts(running, secret(tmp_path, NEW, name="new"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "it is empty"),
        (b" \n\t\n", "it is empty"),
        (b"fifteen bytes!!", "line 1 is shorter than 16 bytes"),
        (OLD + b"\nhunter2", "line 2 is shorter than 16 bytes"),
        (b"\n".join(b"secret number %06d" % number for number in range(9)), "more than 8 secrets"),
        (b"x" * 70_000, "longer than 65536 bytes"),
    ],
)
def test_a_file_without_a_good_secret_is_an_error_at_the_start(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StartError) as caught:
        Secret(file)
    assert f"cluster.secret_file {file}" in caught.value.message
    assert words in caught.value.message
    told = "".join(traceback.format_exception(caught.value))
    assert not any(part in told for part in ("hunter2", OLD.decode(), "secret number", "fifteen bytes"))


def test_the_secret_is_never_shown(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    clock = Clock()
    running = secret(tmp_path, OLD, clock=clock)
    secret(tmp_path, NEW)
    clock.seconds += LOOK_AGAIN_AFTER
    signed = running.sign("GET", TARGET, NOW)
    with pytest.raises(Unauthorized) as caught:
        running.verify(signed.header.replace("t=1", "t=2"), "GET", TARGET, NOW)
    shown = f"{running!r} {running} {signed!r} {caught.value!r} {caught.value.detail} {caplog.text}"
    assert "read again" in caplog.text
    for one in (OLD, NEW):
        assert one.decode() not in shown
        assert one.hex() not in shown
