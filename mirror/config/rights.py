"""Who may read and write: the users, and the rules that say what each of them may do to which repositories."""

import re
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, field_validator

from mirror.config.section import Section
from mirror.config.upstreams import Glob
from mirror.config.values import Duration, File, Switch, absent_is_empty, shown

ANYONE: Final = "*"
"""In ``who`` of a rule: every user of the file; never who sends no credentials."""

_USER = re.compile(r"[^\x00-\x1f\x7f:]{1,255}")


class Rule(Section):
    """What some users may do to some repositories."""

    who: tuple[str, ...] = Field(
        description='Users of `auth.file`, or `"*"` for each of them; never those who send no credentials.'
    )
    repositories: tuple[Glob, ...] = Field(
        description="Repositories as clients name them by path, such as `hosted/team-a/**` or `ghcr.io/acme/*`: `*` is "
        "any part of one component, `**` any components. Docker Hub's own are `docker.io/library/*`."
    )
    may: Annotated[tuple[Literal["pull", "push", "delete", "overwrite"], ...], BeforeValidator(absent_is_empty)] = (
        Field(
            description="All that they may do there: `pull` (of use with `mode: htpasswd`), `push`, `delete`, and "
            "`overwrite`, to push a tag that exists. `[]` is nothing."
        )
    )

    @field_validator("who", mode="after")
    @classmethod
    def _are_users(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not _USER.fullmatch(name):
                raise ValueError(f'must be names of users, without colons, or "*", not {shown(name)}')
        return _not_empty(value)

    @field_validator("repositories", mode="after")
    @classmethod
    def _are_some(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return _not_empty(value)


def _not_empty(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value:
        raise ValueError("must not be empty, or the rule is for nothing")
    return value


class AuthSettings(Section):
    """Who may read, and who may push."""

    mode: Literal["none", "htpasswd", "upstream"] = Field(
        "none",
        description="Who may read. `none`: everyone. `htpasswd`: users of `file`, what `rules` let them pull, from "
        "mirrored registries too. `upstream`: whoever the registry itself lets pull, by the credentials that the "
        "client sends or without any; they are tried at its last endpoint. What is hosted here is read by users of "
        "`file`, by `rules`, where there is a file, and else by everyone.",
    )
    file: File | None = Field(
        None,
        description="An htpasswd file with bcrypt entries, as `htpasswd -B` makes them. Its users may push, in every "
        "mode. Read again when it changes. Without one anyone may push, but only while `listen` is a loopback address, "
        "and only in requests whose `Host` is one or among `names`.",
    )
    rules: Annotated[tuple[Rule, ...], BeforeValidator(absent_is_empty)] = Field(
        (),
        description="What users may do; the first rule that is for the user and the repository counts. Without rules "
        "every user may pull and push, and nobody may delete or overwrite; once there is one, what none is for is "
        "denied.",
    )
    verdict_for: Duration = Field(
        300.0,
        description="How long it is remembered that a password is right, until the file changes: to find out takes "
        "longer than anything else. With `mode: upstream`, how long a registry's yes counts; a no counts for 10s.",
    )
    stale_verdict_for: Duration = Field(
        3600.0,
        description="With `mode: upstream`: for how long after that a yes still stands while the registry does not "
        "answer. Who has none then gets 503.",
    )
    allow_plain_http: Switch = Field(
        False,
        description="With `mode: upstream`: let clients send their passwords for the registries without TLS, because "
        "something in front of the mirror has it, or because the network is trusted.",
    )
