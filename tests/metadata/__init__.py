"""Tests of what the mirror knows."""

import pytest

pytest.register_assert_rewrite("tests.metadata.conformance")
