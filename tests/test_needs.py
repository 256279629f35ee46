"""Test that a missing tool skips a test, or fails it where the tool is required."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tests import needs


def outcome_of(*names: str) -> str:
    """Return the outcome of a test that needs the given tools or packages."""
    try:
        needs.check(SimpleNamespace(iter_markers=lambda _: [pytest.mark.needs(*names).mark]))
    except (pytest.skip.Exception, pytest.fail.Exception) as stopped:
        return type(stopped).__name__
    return "Passed"


@pytest.mark.parametrize(
    ("names", "required", "expected"),
    [
        (("pytest", "sh"), "pytest sh", "Passed"),
        (("pytest", "no-such-tool"), "", "Skipped"),
        (("no-such-tool",), "pytest", "Skipped"),
        (("pytest", "no-such-tool"), "pytest no-such-tool", "Failed"),
    ],
)
def test_missing_tool_skips_or_fails_the_test(monkeypatch, names, required, expected):
    monkeypatch.setenv("WEBCHAT_REQUIRE", required)
    assert outcome_of(*names) == expected
