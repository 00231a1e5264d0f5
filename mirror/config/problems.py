"""What is wrong with the settings: one line for each fault, that says where, which key, and what is allowed."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mirror.config import schema
from mirror.errors import StartError

Location = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, order=True)
class Origin:
    """Where a value comes from: a file, with its line from 1 on, a variable, or an option of the command line."""

    source: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One fault: ``words`` go on from the key, and never hold what may be a secret."""

    origin: Origin
    location: Location
    words: str

    def __str__(self) -> str:
        steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in self.location)
        key = "".join(steps).removeprefix(".")
        return f"{self.origin}: {key}: {self.words}" if key else f"{self.origin}: {self.words}"


class ConfigurationError(StartError):
    """The settings are wrong; ``message`` has a line for each of ``problems``."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(dict.fromkeys(sorted(problems, key=lambda problem: (problem.origin, str(problem)))))
        super().__init__("\n".join(map(str, self.problems)))


def of(error: ValidationError, origins: Mapping[Location, Origin]) -> list[Problem]:
    """The faults that validation found, each with the origin of its key, or of what should hold it."""
    return [_problem(details, origins) for details in error.errors(include_url=False, include_input=False)]


def _problem(details: ErrorDetails, origins: Mapping[Location, Origin]) -> Problem:
    location = details["loc"]
    origin = next(origins[location[:length]] for length in range(len(location), -1, -1) if location[:length] in origins)
    if details["type"] != "extra_forbidden":
        return Problem(origin, location, _words(details))
    *parents, key = location
    allowed = schema.names_at(tuple(parents))
    glued = next((name for name in allowed if str(key).startswith(f"{name}:")), None)
    if glued:  # the rest is the value, perhaps a password
        return Problem(origin, (*parents, glued), "needs a space behind its colon")
    near = difflib.get_close_matches(str(key), allowed, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known here: {', '.join(allowed)}"
    return Problem(origin, location, f"unknown key; {hint}")


def _words(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    match details["type"]:
        case "value_error":
            return str(context["error"])
        case "missing":
            return "is missing"
        case "string_type":
            return "must be text"
        case "tuple_type":
            return "must be a list"
        case "mapping_type" | "dict_type" | "model_type" | "model_attributes_type":
            return "must be a mapping"
        case "literal_error":
            return f"must be {context['expected']}".replace("'", "")
        case "greater_than":
            return f"must be more than {context['gt']:g}"
        case "greater_than_equal":
            return f"must be at least {context['ge']:g}"
        case "less_than_equal":
            return f"must be at most {context['le']:.12g}"
        case _:
            return details["msg"]
