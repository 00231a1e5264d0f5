"""What a user may do: the first rule that is for the user and the repository."""

import pytest

from mirror.auth.rules import Action, Rules
from mirror.config import Rule

EVERY = set(Action)


def rule(who: str, repositories: str, may: str = "") -> Rule:
    """A rule, each part of it words with blanks between them."""
    return Rule.model_validate({"who": who.split(), "repositories": repositories.split(), "may": may.split()})


def allowed(rules: Rules, who: str, repository: str) -> set[Action]:
    return {action for action in Action if rules.may(who, action, repository)}


def test_without_rules_users_pull_and_push_and_neither_delete_nor_overwrite() -> None:
    assert allowed(Rules([]), "anna", "hosted/a") == {Action.PULL, Action.PUSH}


def test_the_first_rule_for_user_and_repository_decides_alone() -> None:
    rules = Rules(
        [
            rule("anna", "hosted/team-a/**", "pull push delete overwrite"),
            rule("anna ben", "hosted/**", "pull push"),
            rule("*", "**", "pull"),
        ]
    )
    assert allowed(rules, "anna", "hosted/team-a/x") == EVERY
    assert allowed(rules, "anna", "hosted/team-b/x") == {Action.PULL, Action.PUSH}
    assert allowed(rules, "ben", "hosted/team-a/x") == {Action.PULL, Action.PUSH}
    assert allowed(rules, "carl", "hosted/team-a/x") == {Action.PULL}


def test_a_rule_that_allows_nothing_shuts_out() -> None:
    rules = Rules([rule("ben", "hosted/secret/**"), rule("*", "**", "pull")])
    assert allowed(rules, "ben", "hosted/secret/x") == set()
    assert allowed(rules, "anna", "hosted/secret/x") == {Action.PULL}


def test_what_no_rule_is_for_is_denied() -> None:
    rules = Rules([rule("anna", "hosted/a", "pull push delete overwrite")])
    assert allowed(rules, "anna", "hosted/b") == set()
    assert allowed(rules, "ben", "hosted/a") == set()
    assert allowed(rules, "anna", "hosted/a/b") == set()


def test_each_right_is_one_of_its_own() -> None:
    for action in Action:
        assert allowed(Rules([rule("anna", "**", action.value)]), "anna", "hosted/a") == {action}


def test_who_sends_no_credentials_has_no_rights_whatever_the_rules_say() -> None:
    for rules in (Rules([]), Rules([rule("*", "**", "pull push delete overwrite")])):
        assert allowed(rules, "", "hosted/a") == set()


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("hosted/*", ["hosted/a"], ["hosted/a/b", "hosted", "xhosted/a"]),
        ("hosted/**", ["hosted/a", "hosted/a/b"], ["hosted", "hostedx/a"]),
        ("hosted/a", ["hosted/a"], ["hosted/ab", "hosted/a/b", "hosted/xa"]),
        ("ghcr.io/acme/*", ["ghcr.io/acme/x"], ["ghcrxio/acme/x", "ghcr.io/acme"]),
        ("**/plugin", ["hosted/plugin", "hosted/a/plugin"], ["hosted/plugins"]),
        ("**", ["hosted/a", "docker.io/library/x"], []),
    ],
)
def test_repositories_are_named_by_patterns(pattern: str, inside: list[str], outside: list[str]) -> None:
    rules = Rules([rule("anna", pattern, "push")])
    assert [name for name in (*inside, *outside) if rules.may("anna", Action.PUSH, name)] == inside
