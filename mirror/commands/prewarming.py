"""``prewarm``: a job at the mirror, begun and followed to its end; interrupted, it goes on there."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mirror.commands import text
from mirror.commands.answers import Job, Progress, items, read
from mirror.commands.client import Client, path_of
from mirror.commands.following import END, follow
from mirror.commands.options import Asked
from mirror.commands.outcomes import Outcomes
from mirror.commands.screen import DONE, FAILED, INTERRUPTED, Screen, run
from mirror.commands.sources import Sources
from mirror.commands.spelling import all_asked_for, asked_for, batches
from mirror.commands.waiting import until_up
from mirror.errors import CommandError, MirrorRefused

GOOD: Final = frozenset({"held", "fetched"})

_JOB = re.compile(r"[\w.-]{1,100}", re.ASCII)
_MOST = 10_000  # references of one job


@dataclass(frozen=True, slots=True)
class How:
    """How to warm; what is None, or empty, the mirror decides. ``wait``: seconds, for a mirror that is not up yet."""

    pin: bool
    parallel: int | None
    platforms: Sequence[str]
    wait: float = 0.0


def prewarm(asked: Asked, sources: Sources, how: How) -> int:
    """Have all of it warmed, and say what became of each reference; gives the exit status."""

    def work(client: Client, screen: Screen) -> int:
        references, broken = sources.read()
        names, faults = all_asked_for(references, client.host)
        where = {asked_for(one, client.host): place for one, place in references.items() if place is not None}
        problems = [*((None, words) for words in broken), *faults]
        for name, words in problems:
            screen.complain(words)
            screen.tell({"reference": name, "result": "invalid", "why": words})
        if not names and not problems:
            screen.note("No module is named there: there is nothing to do.")
        status = FAILED if problems else DONE
        begun = 0
        try:
            for batch in batches(names, _MOST):
                status = max(status, _warmed(client, screen, how, batch, where))
                begun += len(batch)
                if status == INTERRUPTED:
                    break
        finally:
            if 0 < begun < len(names):
                screen.complain(
                    f"{text.count(len(names) - begun, 'reference')} were not asked for: they are for another job"
                )
        return status

    return run(asked, work)


def follow_job(asked: Asked, job: str) -> int:
    """Say what becomes of a job's references, from its first one on; gives the exit status."""

    def work(client: Client, screen: Screen) -> int:
        state = read(Job, _of_job(client, "GET", job))
        return _followed(client, screen, state, Outcomes(screen, GOOD))

    return run(asked, work)


def cancel_job(asked: Asked, job: str) -> int:
    """Have a job end with what it has done; gives the exit status."""

    def work(client: Client, screen: Screen) -> int:
        document = _of_job(client, "DELETE", job)
        state = read(Job, document)
        screen.tell(document)
        screen.say(f"Job {text.escaped(state.id)} is {text.escaped(state.state)}: {_numbers(state)}.")
        return DONE

    return run(asked, work)


def _of_job(client: Client, method: str, job: str) -> dict[str, object]:
    if not _JOB.fullmatch(job):
        raise CommandError(f"{job} is no job; `wasm-mirror prewarm --jobs` lists them", wrong_use=True)
    try:
        return client.call(method, path_of("prewarm", job))
    except MirrorRefused as refused:
        if refused.answered == 404 and refused.said is not None:  # it is the job that is not there
            raise CommandError(refused.said[1]) from refused
        raise


def _warmed(client: Client, screen: Screen, how: How, batch: Sequence[str], where: Mapping[str, str]) -> int:
    body: dict[str, object] = {"references": batch, "pin": how.pin}
    if how.parallel is not None:
        body["parallel"] = how.parallel
    if how.platforms:
        body["platforms"] = list(how.platforms)
    try:
        job = read(Job, until_up(lambda: client.call("POST", "prewarm", body=body), how.wait, screen.note))
    except KeyboardInterrupt:
        screen.note("")  # behind the ^C
        screen.complain(
            f"interrupted before {client.url} has said that it begins; `wasm-mirror prewarm --jobs` shows it"
        )
        return INTERRUPTED
    return _followed(client, screen, job, Outcomes(screen, GOOD, batch, where))


def _followed(client: Client, screen: Screen, job: Job, outcomes: Outcomes) -> int:
    again = f"`wasm-mirror prewarm --follow {job.id}` shows it, `wasm-mirror prewarm --cancel {job.id}` ends it"
    try:
        end = _shown(client, screen, job, outcomes)
    except KeyboardInterrupt:
        screen.note("")  # behind the ^C
        screen.complain(f"interrupted; so far: {outcomes.summary()}")
        screen.complain(f"job {job.id} goes on at {client.url}: {again}")
        return INTERRUPTED
    except CommandError as error:
        screen.complain(error.message)
        screen.complain(f"so far: {outcomes.summary()}; job {job.id} may go on there: {again}")
        return FAILED
    if end.state != "done":
        screen.complain(f"job {end.id} was {end.state}, with {end.done:,} of {text.count(end.total, 'reference')} done")
    screen.say(f"{outcomes.summary()}.")
    return outcomes.status if end.state == "done" else FAILED


def _shown(client: Client, screen: Screen, job: Job, outcomes: Outcomes) -> Job:
    """Print each result of the job as it comes; gives the job as it ended."""
    if screen.terminal:
        return _drawn(client, screen, job, outcomes)
    for kind, data in follow(client, job.id):
        if kind == "result":
            outcomes.add(data)
        elif kind == END:
            return read(Job, data)
    raise AssertionError("follow() ends with the end of the job")


def _drawn(client: Client, screen: Screen, job: Job, outcomes: Outcomes) -> Job:
    """The same, with bars below the results."""
    from mirror.commands.bars import Downloads

    done = 0
    with Downloads(screen) as bars:
        bars.total(0, job.total, outcomes.summary())
        for kind, data in follow(client, job.id):
            if kind == "progress":
                bars.progress(read(Progress, data))
            elif kind == "result":
                result = outcomes.count(data)
                done += result.replica is None
                bars.over(result.reference, result.replica, outcomes.line(result))
                bars.total(done, job.total, outcomes.summary())
            elif kind == END:
                return read(Job, data)
    raise AssertionError("follow() ends with the end of the job")


def list_jobs(asked: Asked) -> int:
    """The mirror's jobs, newest first; gives the exit status."""
    from mirror.commands.tables import Cell, Column, Row, show

    def work(client: Client, screen: Screen) -> int:
        documents = items(client.call("GET", "prewarm"), "jobs")
        jobs = [read(Job, document) for document in documents]
        for document in documents:
            screen.tell(document)
        if screen.in_json:
            return DONE
        columns = [
            Column("job"),
            Column("state"),
            Column("began", spare=1),
            Column("done", right=True),
            Column("results", folds=24),
        ]
        colours = {"running": "yellow", "done": "green", "cancelled": "red"}
        rows: list[Row] = [
            [
                job.id,
                Cell(job.state, colours.get(job.state, "")),
                "" if job.began_at is None else text.moment(job.began_at),
                f"{job.done:,} of {job.total:,}",
                _counts(job),
            ]
            for job in jobs
        ]
        show(screen, columns, rows)
        return DONE

    return run(asked, work)


def _numbers(job: Job) -> str:
    counts = _counts(job)
    return f"{job.done:,} of {text.count(job.total, 'reference')} done" + (f" ({counts})" if counts else "")


def _counts(job: Job) -> str:
    return ", ".join(f"{number:,} {text.escaped(word)}" for word, number in job.counts.items() if number)
