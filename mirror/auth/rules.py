"""What a user may do to a repository; pure. ``auth.rules`` of the settings, first match wins."""

import enum
from collections.abc import Sequence

from mirror.config import Rule
from mirror.config.rights import ANYONE
from mirror.globs import Globs

ANONYMOUS = ""
"""The principal of those who send no credentials. No rule is ever for it."""


class Action(enum.Enum):
    """What a rule lets users do. ``OVERWRITE`` is to push a tag that names something else already."""

    PULL = "pull"
    PUSH = "push"
    DELETE = "delete"
    OVERWRITE = "overwrite"


_WITHOUT_RULES = frozenset({Action.PULL, Action.PUSH})


class Rules:
    """The rules, ready to be asked."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(
            (frozenset(rule.who), Globs(rule.repositories), frozenset(map(Action, rule.may))) for rule in rules
        )

    def may(self, who: str, action: Action, repository: str) -> bool:
        """Whether the user ``who`` may do that to ``repository``, which begins with its upstream or `hosted.prefix`.

        The first rule that is for both decides alone. Without any rule users may pull and push; what no rule is for is
        denied.
        """
        if who == ANONYMOUS:
            return False
        if not self._rules:
            return action in _WITHOUT_RULES
        for users, repositories, allowed in self._rules:
            if (who in users or ANYONE in users) and repository in repositories:
                return action in allowed
        return False
