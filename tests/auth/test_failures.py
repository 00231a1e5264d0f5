"""Failed logins in the log: often enough to be seen, never often enough to fill it."""

import pytest

from mirror.auth.failures import ONCE_IN, FailedLogins
from tests.cluster.replica import Clock


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_a_failed_login_is_said_with_its_address_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    failed = FailedLogins(clock)
    for _ in range(5):
        failed.note("anna", "10.0.0.7", "auth.file")
    failed.note("ben", "10.0.0.8", "ghcr.io")
    said = "a login as 'anna' from 10.0.0.7 has failed: refused by auth.file"
    assert lines(caplog) == [said, "a login as 'ben' from 10.0.0.8 has failed: refused by ghcr.io"]
    clock.seconds += ONCE_IN
    failed.note("anna", "10.0.0.7", "auth.file")
    assert lines(caplog)[2:] == [said]


def test_a_name_is_shown_bounded_and_in_one_line(caplog: pytest.LogCaptureFixture) -> None:
    failed = FailedLogins(Clock())
    failed.note("x" * 10_000, "10.0.0.7", "auth.file")
    failed.note("a\nERROR all is lost\x1b[2J", "10.0.0.7", "auth.file")
    long, forged = lines(caplog)
    assert len(long) < 200
    assert "\n" not in forged
    assert "\x1b" not in forged


def test_many_names_do_not_make_many_lines(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    failed = FailedLogins(clock)
    for number in range(5000):
        failed.note(f"user{number}", "10.0.0.7", "auth.file")
    assert len(lines(caplog)) < 40
    assert "no more are named" in lines(caplog)[-1]
    clock.seconds += ONCE_IN
    failed.note("anna", "10.0.0.7", "auth.file")
    assert "'anna'" in lines(caplog)[-1]
