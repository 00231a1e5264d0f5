"""What is said of artifacts of every kind; ``tests/e2e`` holds the same table against the real agent."""

import pytest

from tests.wasm.verdicts import Case, cases, described

CASES = {case.name: case for case in cases()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_agents_and_the_gateway_take_what_the_table_says(case: Case) -> None:
    description = described(case)
    for verdict in (description.agent, description.gateway):
        assert verdict.accepted == (case.module is not None)
        assert case.say in verdict.reason
        assert bool(verdict.reason) == bool(verdict.remedy) == (not verdict.accepted)
    assert description.complete
    if case.module is not None:
        assert description.module_digest is not None
        assert description.module_digest.hex == case.sha256


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_reasons_are_one_sentence_without_a_full_stop(case: Case) -> None:
    description = described(case)
    for verdict in (description.agent, description.gateway, description.envoy):
        for text in (verdict.reason, verdict.remedy):
            assert text == text.strip().removesuffix(".")
            assert ". " not in text
            assert "\n" not in text
            assert not text[:1].isupper() or text.startswith("Envoy")
