"""The table, the JSON, and the round."""

import asyncio
import json
import os
import signal
import threading
import time

import click
import pytest

from mirror.doctor.report import Mark, Subject, as_json, as_table, worst
from mirror.doctor.visit import examine, visit
from mirror.errors import StoreError


def subjects() -> list[Subject]:
    first, second = Subject("upstreams.corp.endpoints[0]", "https://corp.example"), Subject("data_dir", "/data")
    first.ok("DNS", "10.0.0.5 (private)")
    first.fail("TLS", "the certificate is not trusted", f"name its authority in {'upstreams.corp.' * 8}ca_file")
    second.warn("file system", "tmpfs", "put it on a local disk")
    return [first, second]


def test_the_table_has_a_mark_the_finding_and_the_advice_beneath_it() -> None:
    lines = as_table(subjects()).splitlines()
    plain = "\n".join(lines)
    assert "upstreams.corp.endpoints[0]: https://corp.example" in plain
    row = next(index for index, line in enumerate(lines) if "fail" in line and "TLS" in line)
    assert lines[row + 1].strip().startswith("-> name its authority")
    above, below = click.unstyle(lines[row - 1]), click.unstyle(lines[row])
    assert above.index("10.0.0.5") == below.index("the certificate"), "columns"
    assert lines[-1] == "1 would fail, 1 to look at, 1 well."


def test_names_of_settings_are_not_broken_over_two_lines() -> None:
    assert f"{'upstreams.corp.' * 8}ca_file" in as_table(subjects())


def test_json_has_all_findings_and_the_worst_mark() -> None:
    told = json.loads(as_json(subjects()))
    assert told["mark"] == "fail"
    assert [finding["mark"] for finding in told["findings"]] == ["ok", "fail", "warn"]
    assert told["findings"][0] == {
        "subject": "upstreams.corp.endpoints[0]",
        "about": "https://corp.example",
        "check": "DNS",
        "mark": "ok",
        "finding": "10.0.0.5 (private)",
        "advice": None,
    }


def test_the_worst_mark_counts() -> None:
    first, second = subjects()
    assert worst([first, second]) is Mark.FAIL
    assert worst([second]) is Mark.WARN
    assert worst([]) is Mark.OK


def test_when_all_is_well_the_table_says_so() -> None:
    subject = Subject("data_dir", "/data")
    subject.ok("space", "plenty")
    assert as_table([subject]).splitlines()[-1] == "All is well."


async def test_an_error_of_ours_is_told_in_its_words() -> None:
    subject = Subject("x", "y")

    async def look(_: Subject) -> None:
        raise StoreError("the store is gone")

    await examine(subject, look)
    assert [(one.mark, one.said) for one in subject.findings] == [(Mark.FAIL, "the store is gone")]


async def test_an_error_that_nobody_foresaw_is_told_without_its_words() -> None:
    subject = Subject("x", "y")

    async def look(_: Subject) -> None:
        raise RuntimeError("password hunter2")

    await examine(subject, look)
    assert "RuntimeError" in subject.findings[0].said
    assert "hunter2" not in as_table([subject])


def test_subjects_are_examined_at_once_and_what_hangs_in_a_thread_holds_nobody_up() -> None:
    arrived, both = threading.Barrier(2), [Subject("a", ""), Subject("b", "")]
    for_ever = threading.Event()

    async def look(subject: Subject) -> None:
        await asyncio.to_thread(arrived.wait, 10)  # each alone would wait in vain
        subject.ok("met", "")
        await asyncio.to_thread(for_ever.wait, 60)

    began = time.monotonic()
    try:
        visit([(subject, look) for subject in both], within=0.5)
    finally:
        for_ever.set()
    assert time.monotonic() - began < 10
    for subject in both:
        assert [finding.check for finding in subject.findings] == ["met", "time"]


def test_what_was_begun_is_put_away_when_the_round_is_interrupted() -> None:
    put_away: list[str] = []

    async def look(subject: Subject) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            put_away.append(subject.name)

    with pytest.raises(KeyboardInterrupt):
        visit([(Subject("a", ""), look)])
    assert put_away == ["a"]


def test_one_that_ends_at_once_does_not_hurry_those_that_put_things_away_in_threads() -> None:
    put_away: list[str] = []

    async def quick(_: Subject) -> None:
        await asyncio.Event().wait()

    async def tidy(subject: Subject) -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            await asyncio.Event().wait()
        finally:
            for step in range(20):  # each a turn of the loop, in which nothing may cancel it once more
                await asyncio.to_thread(put_away.append, f"{subject.name} {step}")

    with pytest.raises(KeyboardInterrupt):
        visit([(Subject("quick", ""), quick), (Subject("tidy", ""), tidy)])
    assert len(put_away) == 20
