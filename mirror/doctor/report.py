"""What the doctor found: findings under the subject that they are about, as a table for people or JSON for programs."""

import json
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum

import click

WIDTH = 110
"""Columns of a table for people."""

_STEP = "  "


class Mark(StrEnum):
    """How bad it is: ``fail`` is what fails, or would; ``warn`` is what works and might not for long."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


_COLOURS = {Mark.OK: "green", Mark.WARN: "yellow", Mark.FAIL: "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. ``advice`` says what to do about it; it is empty for what is well."""

    check: str
    mark: Mark
    said: str
    advice: str = ""


@dataclass(slots=True)
class Subject:
    """What is examined as one: an endpoint, the shared store, the disk; with its findings in their order.

    ``name`` is the setting that names it, or the word for it. Nothing here may hold a secret.
    """

    name: str
    about: str
    findings: list[Finding] = field(default_factory=list)

    def ok(self, check: str, said: str) -> None:
        """It is well."""
        self._note(check, Mark.OK, said, "")

    def warn(self, check: str, said: str, advice: str) -> None:
        """It works, and might not for long."""
        self._note(check, Mark.WARN, said, advice)

    def fail(self, check: str, said: str, advice: str) -> None:
        """It fails, or would."""
        self._note(check, Mark.FAIL, said, advice)

    def take_over(self, other: "Subject", where: str) -> None:
        """Note what was found about ``other``, which is a part of this one, at ``where``."""
        self.findings += [replace(finding, said=f"{where}: {finding.said}") for finding in other.findings]

    def _note(self, check: str, mark: Mark, said: str, advice: str) -> None:
        # Names in certificates and answers of servers are what strangers wrote: they shall not steer a terminal.
        said = "".join(character if character.isprintable() else "?" for character in said)
        self.findings.append(Finding(check, mark, said, advice))


def worst(subjects: Iterable[Subject]) -> Mark:
    """The worst mark of all findings."""
    marks = {finding.mark for subject in subjects for finding in subject.findings}
    return next((mark for mark in (Mark.FAIL, Mark.WARN) if mark in marks), Mark.OK)


def as_json(subjects: Sequence[Subject]) -> str:
    """One object: the worst mark, and every finding with its subject."""
    findings = [
        {
            "subject": subject.name,
            "about": subject.about,
            "check": finding.check,
            "mark": finding.mark.value,
            "finding": finding.said,
            "advice": finding.advice or None,
        }
        for subject in subjects
        for finding in subject.findings
    ]
    return json.dumps({"mark": worst(subjects).value, "findings": findings}, indent=2, ensure_ascii=False)


def as_table(subjects: Sequence[Subject]) -> str:
    """Lines for people, with colours that `click.echo` leaves out where nobody would see them."""
    checks = [finding.check for subject in subjects for finding in subject.findings]
    width = max(map(len, checks), default=0)
    lines: list[str] = []
    for subject in subjects:
        lines += [click.style(f"{subject.name}: {subject.about}", bold=True)]
        for finding in subject.findings:
            lines += _finding(finding, width)
        lines.append("")
    return "\n".join([*lines, _summary(subjects)])


def _finding(finding: Finding, width: int) -> Iterable[str]:
    mark = click.style(f"{finding.mark.value:<4}", fg=_COLOURS[finding.mark])
    indent = " " * len(f"{_STEP}fail  {'':<{width}}  ")
    said = wrapped(finding.said, indent)
    yield f"{_STEP}{mark}  {finding.check:<{width}}  {said[0]}"
    yield from (f"{indent}{line}" for line in said[1:])
    for index, line in enumerate(wrapped(finding.advice, f"{indent}-> ") if finding.advice else ()):
        yield f"{indent}{'   ' if index else '-> '}{line}"


def wrapped(text: str, indent: str, width: int = WIDTH) -> list[str]:
    """The lines of ``text``, one at least, that fit behind ``indent`` where ``width`` columns are."""
    # Neither addresses nor the names of settings are broken: people copy them.
    lines = textwrap.wrap(text, width - len(indent), break_long_words=False, break_on_hyphens=False)
    return lines or [""]


def _summary(subjects: Sequence[Subject]) -> str:
    marks = [finding.mark for subject in subjects for finding in subject.findings]
    failing, doubtful = marks.count(Mark.FAIL), marks.count(Mark.WARN)
    if not failing and not doubtful:
        return "All is well."
    verdict = f"{failing} would fail" if failing else "Nothing would fail"
    return f"{verdict}, {doubtful} to look at, {len(marks) - failing - doubtful} well."
